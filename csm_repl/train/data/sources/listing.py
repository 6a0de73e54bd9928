"""A list of utterances: JSONL, a JSON array or a table, an utterance or a conversation in each row.

    {"audio": "a.wav", "text": "Hello.", "speaker": 0}
    {"path": "long.wav", "start": 12.5, "end": 15.0, "text": "Hello.", "speaker": "anna"}
    {"audio_filepath": "long.wav", "offset": 12.5, "duration": 2.5, "text": "Hello."}
    {"turns": [{"audio": "a.wav", "text": "Hello.", "speaker": 0, "in_loss": false}, ...]}

Paths are relative to the file. A row that cannot be used is a problem with its number.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csm_repl.train.data.manifest import Manifest, ManifestEntry, ProblemList, Utterance
from csm_repl.train.data.sounds import FileSound
from csm_repl.train.data.sources.locate import Folders, SoundFinder
from csm_repl.train.data.sources.rows import AUDIO_KEYS, SPEAKER_KEYS, TEXT_KEYS, read_rows
from csm_repl.train.data.sources.speakers import MAX_SPEAKER, speaker_of
from csm_repl.train.data.sources.transcripts import TranscriptFinder

__all__ = ["ListReader", "read_list"]

_KNOWN_KEYS = frozenset(
    {*AUDIO_KEYS, *TEXT_KEYS, *SPEAKER_KEYS, "start", "end", "offset", "duration", "in_loss"}
)
_EXAMPLE = '{"audio": "a.wav", "text": "Hello.", "speaker": 0}'
_MOST_TEXT = 5_000
"""Characters. Half a minute of fast speech has 800; a quotation mark that is not closed gives more."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LOOKED_AT = 50


class _RowError(Exception):
    """Half a sentence on what is wrong with a row."""


def read_list(path: Path) -> Manifest:
    """All rows of the file. UsageError where it cannot be read, or no row can be used."""
    reader = ListReader(path, path.parent, Folders())
    problems = ProblemList()
    entries = reader.read(problems)
    if not entries:
        raise problems.nothing_left(path, f"Write one object per line, such as {_EXAMPLE}.")
    return Manifest(tuple(entries), tuple(problems.kept), tuple(reader.notes()), problems.n_more)


class ListReader:
    """Reads one list.

    Args:
        path: of the list.
        root: the folder whose subfolders name speakers where a row does not.
        folders: shared with whoever looks into the same ones.
    """

    def __init__(self, path: Path, root: Path, folders: Folders) -> None:
        self._path = path
        self._root = root
        self._finder = SoundFinder(path.parent, folders)
        self._transcripts = TranscriptFinder(folders)
        self._unknown: Counter[str] = Counter()

    def is_list(self) -> bool:
        """Whether one of the first rows names a sound file that is there."""
        for row in itertools.islice(read_rows(self._path), _LOOKED_AT):
            value = row.value if isinstance(row.value, dict) else {}
            turns = value.get("turns")
            for item in turns if isinstance(turns, list) else [value]:
                audio = _first(item, AUDIO_KEYS) if isinstance(item, dict) else None
                if isinstance(audio, str) and (found := self._finder.find(audio)) and found.is_file():
                    return True
        return False

    def read(self, problems: ProblemList) -> list[ManifestEntry]:
        """The entries, in the order of the rows. UsageError where the file cannot be read."""
        entries = []
        for row in read_rows(self._path):
            try:
                if row.fault:
                    raise _RowError(row.fault)
                entries.append(self._entry(row.value))
            except _RowError as error:
                kind = "line" if row.where.startswith("line") else "object"
                name = f"{self._path.name}, {row.where}"
                problems.add(name, f"The {kind} {error}.", "See docs/training.md.")
        return entries

    def notes(self) -> list[str]:
        """Whole sentences on what was read."""
        notes = []
        if self._unknown:
            every = sorted(self._unknown.items(), key=lambda item: (-item[1], item[0]))
            shown = ", ".join(f"{key[:40]} ({n}×)" for key, n in sorted(every[:12]))
            more = f" and {len(every) - 12} more" if len(every) > 12 else ""
            notes.append(f"Keys in {self._path.name} that mean nothing here: {shown}{more}.")
        if self._finder.n_moved:
            notes.append(
                f"{self._path.name} names {self._finder.n_moved:,} files by another machine's paths; "
                "those of the same name beside it are used."
            )
        return notes

    def _entry(self, value: Any) -> ManifestEntry:
        if not isinstance(value, dict):
            raise _RowError("is not an object")
        if "turns" not in value:
            turn = self._turn(value)
            if not turn.in_loss:
                raise _RowError("is one utterance with in_loss false, so there is nothing to learn")
            return ManifestEntry(turn.name, (turn,))
        self._count_unknown(value, {"turns"})
        if not isinstance(value["turns"], list) or not value["turns"]:
            raise _RowError("has turns that are not a list, or an empty one")
        turns = []
        for index, item in enumerate(value["turns"], 1):
            try:
                if not isinstance(item, dict):
                    raise _RowError("is not an object")
                turns.append(self._turn(item))
            except _RowError as error:
                raise _RowError(f"has a turn {index} that {error}") from None
        if not any(turn.in_loss for turn in turns):
            raise _RowError("has in_loss false in every turn, so there is nothing to learn")
        return ManifestEntry(" + ".join(turn.name for turn in turns), tuple(turns))

    def _turn(self, value: dict[str, Any]) -> Utterance:
        self._count_unknown(value, _KNOWN_KEYS)
        audio = _first(value, AUDIO_KEYS)
        if not isinstance(audio, str) or not audio.strip() or "\0" in audio:
            raise _RowError("has no audio, the path of a sound file")
        path = self._finder.find(audio)
        if path is None or not path.name:
            raise _RowError("has an audio that is not the path of a sound file")
        in_loss = value.get("in_loss", True)
        if isinstance(in_loss, str):  # in a table
            in_loss = {"true": True, "false": False}.get(in_loss.strip().lower(), in_loss)
        if not isinstance(in_loss, bool):
            raise _RowError("has an in_loss that is neither true nor false")
        text = _text(_first(value, TEXT_KEYS))
        start, end = _part(value)
        is_part = start > 0.0 or end is not None
        if text is None and is_part:
            raise _RowError("has no text, which a part of a file needs")
        txt = None
        if text is None:
            text, txt, _ = self._transcripts.find(path)
        name = audio if not is_part else f"{audio} {start:g}-{'' if end is None else f'{end:g}'} s"
        speaker = _speaker(_first(value, SPEAKER_KEYS))
        if speaker is None:
            speaker = self._speaker_by_folder(path)
        return Utterance(name, FileSound(path, start, end), text, speaker, txt, in_loss)

    def _speaker_by_folder(self, path: Path) -> str:
        try:
            folders: Sequence[str] = path.relative_to(self._root).parts[:-1]
        except ValueError:
            return ""
        return speaker_of((self._root.name, *folders), path.name)

    def _count_unknown(self, value: dict[str, Any], known: frozenset[str] | set[str]) -> None:
        # A table's columns are the business of whoever made it.
        if self._path.suffix.lower() in (".json", ".jsonl") and len(self._unknown) < 1_000:
            self._unknown.update(value.keys() - known)


def _first(value: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((found for key in keys if (found := value.get(key)) is not None), None)


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _RowError("has a text that is not a string")
    if len(value) > _MOST_TEXT:
        raise _RowError(f"has a text of {len(value):,} characters, more than any utterance")
    text = " ".join(_CONTROL.sub(" ", value).split())
    if not text:
        raise _RowError("has an empty text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _RowError("has a text with half a character (a lone surrogate)") from None
    return text


def _speaker(value: Any) -> str | None:
    """The speaker that a row names; None where it names none."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return str(value)
    if isinstance(value, str) and len(value) <= 1_000:
        return " ".join(_CONTROL.sub(" ", value).split()) or None
    raise _RowError(f"has a speaker that is neither a number from 0 to {MAX_SPEAKER} nor a name")


def _part(value: dict[str, Any]) -> tuple[float, float | None]:
    """Start and end in seconds; NeMo has `offset` and `duration`, and the duration of a whole file too."""
    start, end = _seconds(value, "start"), _seconds(value, "end")
    offset = _seconds(value, "offset")
    if start is None and offset is not None:
        duration = _seconds(value, "duration")
        start = offset
        if end is None and duration is not None:
            end = offset + duration
    start = start or 0.0
    if end is not None and end <= start:
        raise _RowError("has an end that is not after its start")
    return start, end


def _seconds(value: dict[str, Any], key: str) -> float | None:
    number = value.get(key)
    if number is None:
        return None
    if isinstance(number, str):  # in a table
        try:
            number = float(number.replace(",", "."))
        except ValueError:
            number = math.nan
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    try:
        seconds = float(number) if is_number else math.nan
    except OverflowError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise _RowError(f"has {'an' if key[0] in 'eo' else 'a'} {key} that is not a number of seconds")
    return seconds
