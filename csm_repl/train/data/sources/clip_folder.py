"""A folder of clips, in any depth of folders, with their words beside them or in a list.

`transcripts` knows where words stand, `speakers` whose voice a clip is. A list such as `metadata.csv` counts
for the folder that it lies in and those below; clips that it does not name are used where they have a
transcript of their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from csm_repl.errors import UsageError
from csm_repl.train.data.manifest import Manifest, ManifestEntry, ProblemList, Utterance
from csm_repl.train.data.sounds import FileSound
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
"""The first one that a folder has is read. LJSpeech and AudioFolder: metadata; Common Voice: validated."""
_LIST_ENDINGS = (".csv", ".tsv", ".jsonl", ".list")
_NOT_DATA = frozenset({"__MACOSX"})


@dataclass(frozen=True)
class _Folder:
    parts: tuple[str, ...]
    """Below the root."""
    path: Path
    names: list[str]
    """Of its files, sorted."""


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
        self._lists: list[tuple[tuple[str, ...], str, set[str]]] = []
        """Lists that count: folder, name, the files that they name."""
        self._unlisted: dict[str, int] = {}
        self._second_microphones: list[str] = []
        self._unread_lists: list[str] = []
        self._n_without_words = 0

    def read(self) -> Manifest:
        if not self._root.is_dir():
            raise UsageError(f"There is no folder {self._root}.", "Check its name.")
        for folder in sorted(self._walk(), key=lambda folder: folder.parts):
            self._read_list(folder)
            self._read_clips(folder)
        self._note_what_was_skipped()
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
        while to_visit or links:
            parts, path = to_visit.pop() if to_visit else links.pop(0)
            try:
                info = path.stat()
                shown = "/".join(parts) or "."
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
            names = []
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _NOT_DATA:
                    continue
                if not _is_folder(entry):
                    names.append(entry.name)
                elif entry.is_symlink():
                    links.append(((*parts, entry.name), path / entry.name))
                else:
                    to_visit.append(((*parts, entry.name), path / entry.name))
            yield _Folder(parts, path, names)
        if again:
            more = f" (and {len(again) - 3:,} more)" if len(again) > 3 else ""
            self._notes.append(f"Links to folders that are read already: {', '.join(again[:3])}{more}.")

    # --- lists ----------------------------------------------------------------------------------------

    def _read_list(self, folder: _Folder) -> None:
        by_fold = {name.lower(): name for name in reversed(folder.names)}
        for known in _LISTS:
            name = by_fold.get(known)
            if name is None:
                continue
            try:
                if self._takes_list(folder, name):
                    return
            except UsageError as error:
                self._problems.add("/".join((*folder.parts, name)), error.cause, error.remedy)
        others = [name for name in folder.names if name.lower().endswith(_LIST_ENDINGS)]
        self._unread_lists += ["/".join((*folder.parts, name)) for name in others]

    def _takes_list(self, folder: _Folder, name: str) -> bool:
        path = folder.path / name
        if not path.is_file() or not ListReader(path, self._root, self._folders).is_list():
            return False
        reader = ListReader(path, self._root, self._folders)
        entries = reader.read(self._problems)
        self._entries += entries
        self._notes += reader.notes()
        named = {
            os.path.normpath(turn.sound.path)
            for entry in entries
            for turn in entry.turns
            if isinstance(turn.sound, FileSound)
        }
        self._lists.append((folder.parts, "/".join((*folder.parts, name)), named))
        return True

    # --- clips ----------------------------------------------------------------------------------------

    def _read_clips(self, folder: _Folder) -> None:
        lists = [each for each in self._lists if folder.parts[: len(each[0])] == each[0]]
        owners: dict[Path, str] = {}
        stems = {os.path.splitext(name)[0] for name in folder.names}  # noqa: PTH122 - quicker
        for name in folder.names:
            stem, ending = os.path.splitext(name)  # noqa: PTH122 - ten times as fast, and there may be 100,000
            if ending.lower() not in ENDINGS:
                continue
            path = folder.path / name
            if any(os.path.normpath(path) in named for _, _, named in lists):
                continue
            shown = "/".join((*folder.parts, name))
            plain = without_microphone(stem)
            if plain is not None and not stem.endswith("_mic1") and f"{plain}_mic1" in stems:
                self._second_microphones.append(shown)
                continue
            words, txt, has_words = self._transcripts.find(path)
            if lists and not has_words:
                self._unlisted[lists[-1][1]] = self._unlisted.get(lists[-1][1], 0) + 1
                continue
            owner = owners.setdefault(txt, name) if words is None else name
            if owner != name:
                self._problems.add(shown, f"It has the same transcript file as {owner}.", "Rename it.")
                continue
            self._n_without_words += not has_words
            speaker = speaker_of((self._root_name, *folder.parts), name)
            turn = Utterance(shown, FileSound(path), words, speaker, None if words is not None else txt)
            self._entries.append(ManifestEntry(shown, (turn,)))

    @property
    def _root_name(self) -> str:
        return self._root.name or self._root.resolve().name

    def _note_what_was_skipped(self) -> None:
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
        if self._n_without_words and self._unread_lists:
            shown = ", ".join(self._unread_lists[:3])
            self._notes.append(
                f"{self._n_without_words:,} clips have no transcript that was found. If their words are in "
                f"{shown}, give that file instead of the folder."
            )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
