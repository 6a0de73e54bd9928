"""A JSONL file: one utterance or one conversation a line.

    {"audio": "a.wav", "text": "Hello.", "speaker": 0}
    {"audio": "long.wav", "start": 12.5, "end": 15.0, "text": "Hello."}
    {"turns": [{"audio": "a.wav", "text": "Hello.", "speaker": 0, "in_loss": false}, ...]}

Paths are relative to the file. A line that cannot be used is a problem with its number.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from csm_repl.errors import UsageError
from csm_repl.train.data.manifest import (
    MAX_SPEAKER,
    Manifest,
    ManifestEntry,
    Problem,
    Utterance,
    nothing_left,
)
from csm_repl.train.data.sounds import FileSound

__all__ = ["read_jsonl"]

_TURN_KEYS = frozenset({"audio", "text", "speaker", "start", "end", "in_loss"})
_EXAMPLE = '{"audio": "a.wav", "text": "Hello.", "speaker": 0}'


class _LineError(Exception):
    """Half a sentence on what is wrong with a line."""


def read_jsonl(path: Path) -> Manifest:
    """All lines of the file. UsageError where it cannot be read, or no line can be used."""
    entries: list[ManifestEntry] = []
    problems: list[Problem] = []
    unknown: Counter[str] = Counter()
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                line = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
                if not line.strip():
                    continue
                try:
                    entries.append(_read_line(line, path.parent, unknown))
                except _LineError as error:
                    problems.append(
                        Problem(f"{path.name}, line {number}", f"The line {error}.", "See docs/training.md.")
                    )
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.", "Check its name and permissions."
        ) from error
    if not entries:
        raise nothing_left(path, problems, f"Write one object per line, such as {_EXAMPLE}.")
    notes: tuple[str, ...] = ()
    if unknown:
        keys = ", ".join(f"{key} ({n}×)" for key, n in sorted(unknown.items()))
        notes = (f"Keys in {path.name} that mean nothing here: {keys}.",)
    return Manifest(tuple(entries), tuple(problems), notes)


def _read_line(line: bytes, folder: Path, unknown: Counter[str]) -> ManifestEntry:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise _LineError("is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise _LineError(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise _LineError("is not an object")
    if "turns" not in value:
        turn = _read_turn(value, folder, unknown)
        if not turn.in_loss:
            raise _LineError("is one utterance with in_loss false, so there is nothing to learn")
        return ManifestEntry(turn.name, (turn,))
    unknown.update(value.keys() - {"turns"})
    if not isinstance(value["turns"], list) or not value["turns"]:
        raise _LineError("has turns that are not a list, or an empty one")
    turns = []
    for index, item in enumerate(value["turns"], 1):
        try:
            if not isinstance(item, dict):
                raise _LineError("is not an object")
            turns.append(_read_turn(item, folder, unknown))
        except _LineError as error:
            raise _LineError(f"has a turn {index} that {error}") from None
    if not any(turn.in_loss for turn in turns):
        raise _LineError("has in_loss false in every turn, so there is nothing to learn")
    return ManifestEntry(" + ".join(turn.name for turn in turns), tuple(turns))


def _read_turn(value: dict[str, Any], folder: Path, unknown: Counter[str]) -> Utterance:
    unknown.update(value.keys() - _TURN_KEYS)
    audio, text, in_loss = value.get("audio"), value.get("text"), value.get("in_loss", True)
    if not isinstance(audio, str) or not audio.strip() or "\0" in audio:
        raise _LineError("has no audio, the path of a sound file")
    if text is not None:
        if not isinstance(text, str):
            raise _LineError("has a text that is not a string")
        text = " ".join(text.split())
        if not text:
            raise _LineError("has an empty text")
    if not isinstance(in_loss, bool):
        raise _LineError("has an in_loss that is neither true nor false")
    start, end = _seconds(value, "start") or 0.0, _seconds(value, "end")
    if end is not None and end <= start:
        raise _LineError("has an end that is not after its start")
    is_part = start > 0.0 or end is not None
    if text is None and is_part:
        raise _LineError("has no text, which a part of a file needs")
    path = Path(os.path.join(folder, audio))  # noqa: PTH118 - quicker, and there may be 100,000
    name = audio if not is_part else f"{audio} {start:g}-{'' if end is None else f'{end:g}'} s"
    return Utterance(
        name,
        FileSound(path, start, end),
        text,
        _speaker(value.get("speaker", 0)),
        None if is_part else path.with_suffix(".txt"),
        in_loss,
    )


def _speaker(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SPEAKER:
        raise _LineError(f"has a speaker that is not a whole number from 0 to {MAX_SPEAKER}")
    return value


def _seconds(value: dict[str, Any], key: str) -> float | None:
    number = value.get(key)
    if number is None:
        return None
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or not math.isfinite(number) or number < 0:
        raise _LineError(f"has {'an' if key == 'end' else 'a'} {key} that is not a number of seconds")
    return float(number)
