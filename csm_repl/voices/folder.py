"""The references folder: which clips there are, and what has changed since the last look."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from csm_repl.errors import ClipError, CsmReplError
from csm_repl.paths import remove_leftovers
from csm_repl.voices.cache import ClipCache
from csm_repl.voices.clip import ClipLoader, ClipSound, NoTranscriptError, Stamp, TranscriptOrigin, file_stamp
from csm_repl.voices.names import ENDINGS, ClipName, explain_miss, parse_name, says_speaker
from csm_repl.voices.prepare import PrepareOptions

if TYPE_CHECKING:
    import torch

    from csm_repl.voices.transcribe import Transcriber


_MOST_OF_A_KIND = 6
_MORE = {
    "added": "clips were added.",
    "changed": "clips were changed.",
    "removed": "clips are gone.",
    "unusable": "clips cannot be used.",
    "ignored": "files look like clips and are not taken.",
    "remark": "clips are cut short, or only used in part.",
}


@dataclass(frozen=True, eq=False)
class Clip:
    """A reference clip that is ready for use. The same object as long as nothing about it changes."""

    speaker: int
    name: str | None
    """The voice's name, from the file name."""
    path: Path
    text: str
    """One line."""
    transcript: TranscriptOrigin
    """'whisper' while nobody has edited what Whisper wrote."""
    seconds: float
    """Length as prepared, with silences shortened."""
    codes: torch.Tensor | None
    """int64 `[K, T]` on the CPU; None where the folder has no codec."""
    remark: str = ""
    """Whole sentences where much of the recording is not there or not used."""


@dataclass(frozen=True)
class UnusableClip:
    """A file that is named like a reference clip and cannot be used as one."""

    speaker: int
    path: Path
    cause: str
    remedy: str
    needs_words: bool = False
    """All that is wrong is that it has no transcript, and nobody to write it."""


@dataclass(frozen=True)
class IgnoredFile:
    """A file that looks as if it were meant as a clip, and by its name is none."""

    path: Path
    cause: str
    remedy: str
    better: str = ""
    """A name under which it would be taken; '' where a name is not enough."""


@dataclass(frozen=True)
class Change:
    """One thing that is different since the last look; 'listening' comes before what takes a while."""

    kind: Literal["added", "changed", "removed", "unusable", "ignored", "remark", "listening"]
    path: Path
    message: str
    """Whole sentences for the user."""

    @property
    def is_warning(self) -> bool:
        """Whether there is something for the user to do."""
        return self.kind in ("unusable", "ignored", "remark")


@dataclass(frozen=True)
class _Found:
    """A file as the folder lists it. Equal as long as nothing about it has changed."""

    name: ClipName
    txt: Path
    rival: Path | None
    """Another clip with the same transcript file, which comes first."""
    clip_stamp: Stamp | None
    txt_stamp: Stamp | None


@dataclass(frozen=True)
class _Entry:
    found: _Found
    sound: ClipSound | None
    result: Clip | UnusableClip


class VoiceFolder:
    """The clips of one folder. `look` and `refresh` look; everything else answers from the last look.

    Args:
        root: the folder; it may be missing, and appear later.
        options: how clips are prepared.
        encode: float32 `[N]` at 24 kHz -> int64 `[K, T]`; None lists clips without codes.
        codec_id: names the codec and its weights; part of the cache's keys.
        transcriber: for clips without a .txt; it is closed after each look. None: such clips are unusable.
        cache_dir: where encoded clips are kept; None keeps nothing on disk.
    """

    def __init__(
        self,
        root: Path,
        *,
        options: PrepareOptions,
        encode: Callable[[torch.Tensor], torch.Tensor] | None,
        codec_id: str,
        transcriber: Transcriber | None,
        cache_dir: Path | None,
    ) -> None:
        self.root = root
        self.clips: tuple[Clip, ...] = ()
        """By speaker, then name, then number."""
        self.unusable: tuple[UnusableClip, ...] = ()
        self.ignored: tuple[IgnoredFile, ...] = ()
        """By name."""
        self.problem = ""
        """Why the folder itself cannot be listed, with the remedy; '' where it can."""
        remove_leftovers(root)
        cache = ClipCache(cache_dir, preparation=options.fingerprint, codec_id=codec_id)
        self._loader = ClipLoader(options, encode, transcriber, cache)
        self._entries: dict[Path, _Entry] = {}
        self._unreported: list[Change] = []

    def of(self, speaker: int) -> tuple[Clip, ...]:
        """The clips of `speaker`; empty where it has none."""
        return tuple(clip for clip in self.clips if clip.speaker == speaker)

    def name(self, speaker: int) -> str:
        """The name of the speaker's first clip that has one; 'speaker 1' where none has."""
        return self.speakers.get(speaker) or f"speaker {speaker}"

    @property
    def speakers(self) -> dict[int, str | None]:
        """The speakers that have a voice, by number, each with its name; None where no clip has one."""
        found: dict[int, str | None] = {}
        for clip in self.clips:
            found[clip.speaker] = found.get(clip.speaker) or clip.name
        return found

    def refresh(self, *, retry: bool = False) -> list[Change]:
        """As `look`, in one go: what changed, for the user."""
        return [change for change in self.look(retry=retry) if change.kind != "listening"]

    def look(self, *, retry: bool = False) -> Generator[Change, None, None]:
        """Look at the folder and load what is new or different. Costs a few stats where nothing is.

        Yields a 'listening' before Whisper hears a clip, and what changed at the end. Nothing here is
        fatal; whatever cannot be used is in `unusable`.

        Args:
            retry: try unusable clips again even where their files are the same.
        """
        loaded = False
        try:
            listing = self._list()
            for path, found in listing.items():
                entry = self._entries.get(path)
                failed = entry is not None and isinstance(entry.result, UnusableClip)
                if entry is None or entry.found != found or (retry and failed):
                    loaded = True
                    yield from self._load(path, found, entry)
            for path in [path for path in self._entries if path not in listing]:
                self._drop(path)
        finally:
            # Also after Ctrl-C: what was loaded so far is kept, and its changes are told the next time.
            if loaded:
                self._loader.close()
            self._publish()
        changes, self._unreported = self._unreported, []
        yield from _summarised(changes, self.root)

    def _list(self) -> Mapping[Path, _Found]:
        """The folder's clips in order. Where it cannot be listed, those of the last look."""
        try:
            found, problem = self._found([path.name for path in self.root.iterdir()]), ""
        except FileNotFoundError:
            found, problem, self.ignored = {}, "", ()
        except NotADirectoryError:
            found, self.ignored = {}, ()
            problem = f"The references folder {self.root} is a file. Name a folder with --references."
        except OSError as error:
            found = {path: entry.found for path, entry in self._entries.items()}
            problem = (
                f"The references folder {self.root} cannot be read: {error.strerror}. Check its permissions, "
                "or name another folder with --references."
            )
        if problem and problem != self.problem:
            self._unreported.append(Change("unusable", self.root, problem))
        self.problem = problem
        return found

    def _found(self, names: list[str]) -> dict[Path, _Found]:
        parsed = [(clip, name) for name in names if (clip := parse_name(name)) is not None]
        parsed.sort(key=lambda pair: _order(*pair))
        texts = _Transcripts(names, {Path(name).stem for _, name in parsed})
        owners: dict[Path, Path] = {}
        found = {}
        for clip, name in parsed:
            path = self.root / name
            txt = self.root / texts.of(path.stem)
            owner = owners.setdefault(txt, path)
            rival = owner if owner != path else None
            found[path] = _Found(clip, txt, rival, file_stamp(path), file_stamp(txt))
        self._ignore(names, {clip.speaker for clip, _ in parsed})
        return found

    def _ignore(self, files: list[str], taken: set[int]) -> None:
        """Finds the files that look like clips and are none."""
        known = {file.path for file in self.ignored}
        names, ignored = set(files), []
        # Those that say a number first: the others get what is left.
        for name in sorted(files, key=lambda name: (not says_speaker(name), name)):
            if parse_name(name) is not None:
                continue
            free = next(number for number in count() if number not in taken)
            miss = explain_miss(name, free, names)
            if miss is None:
                continue
            ignored.append(IgnoredFile(self.root / name, miss.cause, miss.remedy, miss.better))
            better = parse_name(miss.better)
            if better is not None:
                names.add(miss.better)
                taken = taken | {better.speaker}
        self.ignored = tuple(sorted(ignored, key=lambda file: file.path.name))
        for file in self.ignored:
            if file.path not in known:
                message = f"{file.path.name} is not taken as a clip. {file.cause} {file.remedy}"
                self._unreported.append(Change("ignored", file.path, message))

    def _load(self, path: Path, found: _Found, old: _Entry | None) -> Generator[Change, None, None]:
        name = found.name
        known = old.sound if old is not None else None
        sound = known if old is not None and old.found.clip_stamp == found.clip_stamp else None
        notice = ""
        result: Clip | UnusableClip
        try:
            if found.rival is not None:
                raise ClipError(
                    f"It has the same transcript file as {found.rival.name}.",
                    f"Rename it, for example to {_free_name(path, name)}.",
                )
            recording = self._loader.open(path)
            if sound is None or sound.is_start:
                sound = self._loader.sound(recording, found.txt, known)
            words = self._loader.known_words(sound.digest, found.txt)
            if words is None:
                if self._loader.has_to_listen(sound.digest):
                    yield Change(
                        "listening", path, f"Whisper is transcribing {path.name}; this can take a while."
                    )
                words = self._loader.heard_words(recording, sound.digest, found.txt)
            notice = words.notice
            result = Clip(
                name.speaker,
                name.name,
                path,
                words.text,
                words.origin,
                sound.seconds,
                sound.codes,
                sound.remark,
            )
        except CsmReplError as error:
            needs_words = isinstance(error, NoTranscriptError)
            result = UnusableClip(name.speaker, path, error.cause, error.remedy, needs_words)
        entry = _Entry(found, sound, result)
        change = _change(old, entry, notice)
        if change is not None:
            self._unreported.append(change)
            if isinstance(result, Clip) and result.remark and (old is None or old.sound is not sound):
                self._unreported.append(Change("remark", path, f"{path.name}: {result.remark}"))
        elif old is not None and isinstance(old.result, Clip):
            entry = replace(entry, result=old.result)
        self._entries[path] = entry

    def _drop(self, path: Path) -> None:
        gone = self._entries.pop(path)
        speaker = gone.result.speaker
        message = f"{path.name} is gone."
        left = any(isinstance(e.result, Clip) and e.result.speaker == speaker for e in self._entries.values())
        if isinstance(gone.result, Clip) and not left:
            message += f" {_voice(gone.found.name)} has no clip any more."
        self._unreported.append(Change("removed", path, message))

    def _publish(self) -> None:
        entries = sorted(self._entries.items(), key=lambda item: _order(item[1].found.name, item[0].name))
        results = [entry.result for _, entry in entries]
        self.clips = tuple(result for result in results if isinstance(result, Clip))
        self.unusable = tuple(result for result in results if isinstance(result, UnusableClip))


class _Transcripts:
    """Which `.txt` belongs to which clip: that of the same name, whatever became of its letters.

    Args:
        names: of all files in the folder.
        stems: of the clips.
    """

    def __init__(self, names: list[str], stems: set[str]) -> None:
        texts = {Path(name).stem: name for name in sorted(names) if name.lower().endswith(".txt")}
        self._exact = texts
        self._similar = {_letters(stem): name for stem, name in texts.items() if stem not in stems}

    def of(self, stem: str) -> str:
        """File name; that of the file to make where there is none."""
        return self._exact.get(stem) or self._similar.get(_letters(stem)) or f"{stem}.txt"


def _letters(text: str) -> str:
    """Equal for what differs in case or in how accents are encoded."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _summarised(changes: list[Change], root: Path) -> list[Change]:
    """All changes; of more than a few of one kind the first ones and a count."""
    told = []
    n_of: dict[str, int] = {}
    for change in changes:
        n_of[change.kind] = n_of.get(change.kind, 0) + 1
        if n_of[change.kind] <= _MOST_OF_A_KIND:
            told.append(change)
    for kind, n in n_of.items():
        if n > _MOST_OF_A_KIND:
            rest = f"{n - _MOST_OF_A_KIND:,} more {_MORE[kind]} csm-repl voices lists everything."
            told.append(Change(kind, root, rest))  # type: ignore[arg-type]
    return told


def _order(name: ClipName, filename: str) -> tuple[int, str, int, str]:
    return name.speaker, (name.name or "").casefold(), name.index, filename


def _voice(name: ClipName) -> str:
    return f"Speaker {name.speaker}" + (f" ({name.name})" if name.name else "")


def _free_name(path: Path, name: ClipName) -> str:
    stem = f"reference{name.speaker}" + (f"-{name.name}" if name.name else "")
    numbered = (path.with_name(f"{stem}-{number}{path.suffix}") for number in count(2))
    return next(
        free.name for free in numbered if all(file_stamp(free.with_suffix(e)) is None for e in ENDINGS)
    )


def _change(old: _Entry | None, new: _Entry, notice: str) -> Change | None:
    """What to tell the user about an entry that was loaded again; None where nothing came out different."""
    path = new.result.path
    before = old.result if old is not None else None
    if isinstance(new.result, UnusableClip):
        if before == new.result:
            return None
        return Change(
            "unusable", path, f"{path.name} cannot be used. {new.result.cause} {new.result.remedy}".strip()
        )
    kind: Literal["added", "changed"] = "changed"
    if not isinstance(before, Clip):
        kind = "added"
        message = f"{_voice(new.found.name)} has the clip {path.name}, {new.result.seconds:.1f} s."
    elif old is not None and old.sound is not new.sound:
        message = f"{path.name} was replaced and is {new.result.seconds:.1f} s long now."
    elif before.text != new.result.text:
        message = f"The transcript of {path.name} was changed."
    elif notice:
        message = f"The transcript of {path.name} was missing."
    else:
        return None
    return Change(kind, path, f"{message} {notice}".strip())
