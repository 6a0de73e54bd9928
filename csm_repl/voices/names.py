"""Which speaker a file in the references folder belongs to, from its name alone. Pure.

reference.wav            speaker 0            reference1-anna.wav     speaker 1, called anna
reference0.wav           speaker 0 as well    reference1-anna-2.wav   anna's second clip
reference12.flac         speaker 12           reference1-2.wav        the unnamed speaker 1's second clip
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass
from itertools import count
from pathlib import PurePath

ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".aif", ".caf", ".webm")

_OTHER_SOUNDS = frozenset(
    {".wma", ".mp4", ".m4b", ".mov", ".mkv", ".mka", ".amr", ".3gp", ".au", ".oga", ".mp2", ".ac3", ".ape"}
)
"""Endings of sound files that are not taken as clips."""

_PATTERN = re.compile(
    r"reference(?P<speaker>[0-9]{1,3})?"
    r"(?:-(?P<name>(?![0-9]+[-.])[^-](?:.*?[^-])?))?"
    r"(?:-(?P<index>[0-9]{1,3}))?"
    rf"(?:{'|'.join(map(re.escape, ENDINGS))})",
    re.IGNORECASE,
)


_MEANT = re.compile(
    r"(?:ref(?:erence)?s?|(?=[0-9]{1,3}$))[\s_.\-(\[]*(?P<speaker>[0-9]*)[)\]]?(?:[\s_.\-]+(?P<name>.*\w.*)|\W*)",
    re.IGNORECASE,
)
"""A clip's name without its ending, as people write it who do not know how."""


@dataclass(frozen=True)
class ClipName:
    """What a clip's file name says."""

    speaker: int
    name: str | None
    """The voice's name; None where the file name has none."""
    index: int
    """Which of the speaker's clips; 1 where the file name does not say."""


def parse_name(filename: str) -> ClipName | None:
    """What `filename` (no folder) says; None where it is no reference clip."""
    # isprintable: a line break or an escape sequence in a name would reach the terminal.
    match = _PATTERN.fullmatch(filename)
    if match is None or not filename.isprintable():
        return None
    name = match["name"]
    if name is not None:
        # macOS hands out decomposed letters; a typed name has composed ones.
        name = unicodedata.normalize("NFC", name.strip())
        if not name:
            return None
    return ClipName(int(match["speaker"] or 0), name, int(match["index"] or 1))


@dataclass(frozen=True)
class Miss:
    """Why a file is not taken as a clip."""

    cause: str
    remedy: str
    better: str = ""
    """The name to give it; '' where that is not enough."""


def says_speaker(filename: str) -> bool:
    """Whether a file that is no clip by its name says a speaker all the same: `reference_15.wav`."""
    match = _MEANT.match(filename)
    return match is not None and len(match["speaker"]) in (1, 2, 3)


def explain_miss(filename: str, free_speaker: int, names: Collection[str] = ()) -> Miss | None:
    """Why a file that looks as if it were meant as a clip is not taken; None for all others.

    Args:
        filename: no folder; `parse_name` does not know it.
        free_speaker: a speaker without clips, for names that say none.
        names: of all files in the folder, which it cannot be given.
    """
    if filename.startswith("."):  # hidden, or what macOS keeps beside a file
        return None
    path = PurePath(filename)
    ending = path.suffix.lower()
    if ending == ".txt":
        inner = PurePath(path.stem)
        better = f"{inner.stem}.txt"
        if inner.suffix.lower() not in (*ENDINGS, ".txt") or parse_name(f"{inner.stem}.wav") is None:
            return None
        cause = "A transcript has its clip's name without the ending."
        if better in names:
            return Miss(cause, f"There is {better} already; delete one of them.")
        return Miss(cause, f"Rename it to {better}.", better)
    if ending in _OTHER_SOUNDS:
        if parse_name(f"{path.stem}.wav") is None:
            return None
        return Miss(f"Files that end in {ending} are not read.", f"Convert it to {path.stem}.wav.")
    if ending not in ENDINGS:
        return None
    if not filename.isprintable():
        return Miss("Its name holds control characters.", "Rename it.")
    better = _better_name(path, free_speaker, names)
    if re.match("ref", filename, re.IGNORECASE):
        cause = "Its name is not spelled as that of a clip."
    else:
        cause = "Its name does not say whose voice it is."
    return Miss(cause, f"Rename it to {better}, for example.", better)


def _better_name(path: PurePath, free_speaker: int, names: Collection[str]) -> str:
    """A clip's name that nobody has and that keeps what `path` says."""
    stem = path.stem
    while PurePath(stem).suffix.lower() in ENDINGS:  # reference1.wav.wav
        stem = PurePath(stem).stem
    match = _MEANT.fullmatch(stem)
    speaker = str(free_speaker) if match is None or len(match["speaker"]) > 3 else match["speaker"]
    said = stem if match is None else match["name"] or ""
    said = re.sub(r"[\s_\-]+", "-", said).strip("-.()[]")
    better = f"reference{speaker and int(speaker)}" + (f"-{said}" if said else "")
    if parse_name(f"{better}.wav") is None:
        better = f"reference{speaker and int(speaker)}"
    if f"{better}{path.suffix.lower()}" in names:
        better = next(f"{better}-{n}" for n in count(2) if f"{better}-{n}{path.suffix.lower()}" not in names)
    return better + path.suffix.lower()
