"""A folder of clips, in any depth of folders, with their words beside them or in a list.

`transcripts` knows where words stand, `speakers` whose voice a clip is. A list such as `metadata.csv` counts
for the folder that it lies in and those below; clips that it does not name are used where they have a
transcript of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from csm_repl.errors import UsageError
from csm_repl.train.data.manifest import Manifest, ManifestEntry, ProblemList, Utterance
from csm_repl.train.data.sounds import FileSound, LazySound
from csm_repl.train.data.sources.listing import ListReader
from csm_repl.train.data.sources.locate import Folders
from csm_repl.train.data.sources.speakers import speaker_of
from csm_repl.train.data.sources.transcripts import TranscriptFinder, without_microphone
from csm_repl.voices.names import ENDINGS

__all__ = ["read_folder"]

_LISTS = (
    "metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.json", "validated.tsv", "train.tsv",
    "manifest.jsonl", "manifest.json",
)  # fmt: skip
"""The first one that a folder has is read, and no other list. LJSpeech and AudioFolder: metadata; Common
Voice, whose lists overlap: validated."""
_LIST_ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".list")
_NO_LISTS = (".trans.tsv", ".book.tsv")
"""LibriTTS has these of each chapter, beside the words of each clip."""
_NOT_DATA = frozenset({"__MACOSX"})


@dataclass(frozen=True)
class _Folder:
    parts: tuple[str, ...]
    """Below the root."""
    path: Path
    names: list[str]
    """Of its files, sorted."""
    links: frozenset[str]
    """Those of them that are links."""


@dataclass(frozen=True)
class _Clip:
    entry: ManifestEntry
    has_words: bool
    is_link: bool

    @property
    def path(self) -> Path:
        sound = self.entry.turns[0].sound
        assert isinstance(sound, FileSound)
        return sound.path


def read_folder(root: Path) -> Manifest:
    """All clips under `root`, by path. UsageError where there are none."""
    return _FolderReader(root).read()


class _FolderReader:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders = Folders()
        self._transcripts = TranscriptFinder(self._folders)
        self._entries: list[ManifestEntry] = []
        self._problems = ProblemList()
        self._notes: list[str] = []
        self._lists: dict[tuple[str, ...], str] = {}
        """A list that counts for each folder that has one."""
        self._read: list[str] = []
        """Lists, for a note."""
        self._sounds: set[LazySound] = set()
        """What lists have already given."""
        self._listed: set[str] = set()
        """The files that lists name."""
        self._clips: list[_Clip] = []
        self._unlisted: dict[str, int] = {}
        self._second_microphones: list[str] = []

    def read(self) -> Manifest:
        if not self._root.is_dir():
            raise UsageError(f"There is no folder {self._root}.", "Check its name.")
        folders = sorted(self._walk(), key=lambda folder: folder.parts)
        # All lists first: one may name clips of any folder.
        for folder in folders:
            self._read_lists(folder)
        for folder in folders:
            self._read_clips(folder)
        self._take_clips()
        self._note_what_was_read_and_skipped()
        if not self._entries:
            remedy = f"Put clips ({', '.join(ENDINGS)}) and their words (.txt) into it."
            raise self._problems.nothing_left(self._root, remedy)
        problems = tuple(self._problems.kept)
        return Manifest(tuple(self._entries), problems, tuple(self._notes), self._problems.n_more)

    # --- folders --------------------------------------------------------------------------------------

    def _walk(self) -> Iterator[_Folder]:
        """Every real folder once, however many links lead to it. Links come last: names of real folders say
        whose voice it is."""
        seen: dict[tuple[int, int], str] = {}
        to_visit: list[tuple[tuple[str, ...], Path]] = [((), self._root)]
        links: list[tuple[tuple[str, ...], Path]] = []
        again: list[str] = []
        dangling: list[str] = []
        while to_visit or links:
            parts, path = to_visit.pop() if to_visit else links.pop(0)
            try:
                info = path.stat()
                shown = "/".join(parts) or str(self._root)
                first = seen.setdefault((info.st_dev, info.st_ino), shown)
                if first != shown:
                    again.append(f"{shown} is {first}")
                    continue
                with os.scandir(path) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                cause = f"The folder cannot be read: {error.strerror}."
                self._problems.add(str(path), cause, "Check its permissions, or leave it out.")
                continue
            names, linked = [], []
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _NOT_DATA:
                    continue
                if _is_folder(entry):
                    place = (*parts, entry.name), path / entry.name
                    (links if entry.is_symlink() else to_visit).append(place)
                    continue
                names.append(entry.name)
                if entry.is_symlink():
                    linked.append(entry.name)
                    if not os.path.exists(entry.path):  # noqa: PTH110 - quicker
                        dangling.append("/".join((*parts, entry.name)))
            yield _Folder(parts, path, names, frozenset(linked))
        if dangling:
            self._notes.append(f"Links that lead nowhere: {_some(dangling)}.")
        if again:
            self._notes.append(f"Links to folders that are read already: {_some(sorted(again))}.")

    # --- lists ----------------------------------------------------------------------------------------

    def _read_lists(self, folder: _Folder) -> None:
        by_fold = {name.lower(): name for name in reversed(folder.names)}
        if any(self._takes_list(folder, by_fold[name]) for name in _LISTS if name in by_fold):
            return
        stems = {_split(name)[0] for name in folder.names if _split(name)[1] in ENDINGS}
        for name in folder.names:
            stem, ending = _split(name)
            # What is called like a clip is about that clip alone, and there may be 100,000 of these.
            if ending in _LIST_ENDINGS and not name.endswith(_NO_LISTS) and stem not in stems:
                self._takes_list(folder, name)

    def _takes_list(self, folder: _Folder, name: str) -> bool:
        path, shown = folder.path / name, "/".join((*folder.parts, name))
        try:
            if not path.is_file() or not ListReader(path, self._root, self._folders).is_list():
                return False
            reader = ListReader(path, self._root, self._folders)
            entries = reader.read(self._problems)
        except UsageError as error:
            self._problems.add(shown, error.cause, error.remedy)
            return False
        sounds = [{turn.sound for turn in entry.turns} for entry in entries]
        new = [entry for entry, found in zip(entries, sounds, strict=True) if not found <= self._sounds]
        self._sounds.update(*sounds)
        self._entries += new
        again = f", of which {len(entries) - len(new):,} twice" if len(new) < len(entries) else ""
        self._read.append(f"{shown} ({len(entries):,} items{again})")
        self._notes += reader.notes()
        self._listed.update(
            os.path.normpath(sound.path)
            for found in sounds
            for sound in found
            if isinstance(sound, FileSound)
        )
        self._lists.setdefault(folder.parts, shown)
        return True

    # --- clips ----------------------------------------------------------------------------------------

    def _read_clips(self, folder: _Folder) -> None:
        owners: dict[Path, str] = {}
        lists = [shown for parts, shown in self._lists.items() if folder.parts[: len(parts)] == parts]
        stems = {_split(name)[0] for name in folder.names}
        for name in folder.names:
            stem, ending = _split(name)
            if ending not in ENDINGS:
                continue
            path = folder.path / name
            if os.path.normpath(path) in self._listed:
                continue
            shown = "/".join((*folder.parts, name))
            plain = without_microphone(stem)
            if plain is not None and not stem.endswith("_mic1") and f"{plain}_mic1" in stems:
                self._second_microphones.append(shown)
                continue
            words, txt, has_words = self._transcripts.find(path)
            if lists and not has_words:
                self._unlisted[lists[-1]] = self._unlisted.get(lists[-1], 0) + 1
                continue
            owner = owners.setdefault(txt, name) if words is None else name
            if owner != name:
                self._problems.add(shown, f"It has the same transcript file as {owner}.", "Rename it.")
                continue
            speaker = speaker_of((self._root_name, *folder.parts), name)
            turn = Utterance(shown, FileSound(path), words, speaker, None if words is not None else txt)
            self._clips.append(_Clip(ManifestEntry(shown, (turn,)), has_words, name in folder.links))

    def _take_clips(self) -> None:
        """Each real file once, however many links lead to it: that which has words, and is none itself."""
        targets = {os.path.realpath(clip.path) for clip in self._clips if clip.is_link}
        best: dict[str, _Clip] = {}
        for clip in self._clips if targets else ():
            real = os.path.realpath(clip.path)
            if real in targets:
                other = best.setdefault(real, clip)
                if (clip.has_words, not clip.is_link) > (other.has_words, not other.is_link):
                    best[real] = clip
        again = []
        for clip in self._clips:
            real = os.path.realpath(clip.path) if targets else ""
            first = best.get(real, clip)
            if first is not clip or real in self._listed:
                again.append(
                    f"{clip.entry.name} is {first.entry.name}" if first is not clip else clip.entry.name
                )
                continue
            self._entries.append(clip.entry)
        if again:
            self._notes.append(f"Links to sound files that are read already: {_some(again)}.")

    @property
    def _root_name(self) -> str:
        return self._root.name or self._root.resolve().name

    def _note_what_was_read_and_skipped(self) -> None:
        if self._read:
            self._notes.insert(0, f"Lists that were read: {_some(self._read)}.")
        for name, n in self._unlisted.items():
            self._notes.append(
                f"{n:,} sound files are not used: {name} does not name them, and they have no transcript of "
                "their own."
            )
        if self._second_microphones:
            self._notes.append(
                f"{len(self._second_microphones):,} sound files are not used: they are what a second "
                f"microphone recorded ({self._second_microphones[0]})."
            )


def _split(name: str) -> tuple[str, str]:
    """Stem, and ending in small letters."""
    stem, ending = os.path.splitext(name)  # noqa: PTH122 - ten times as fast, and there may be 100,000
    return stem, ending.lower()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
