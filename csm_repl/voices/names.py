"""Which speaker a file in the references folder belongs to, from its name alone. Pure.

reference.wav            speaker 0            reference1-anna.wav     speaker 1, called anna
reference0.wav           speaker 0 as well    reference1-anna-2.wav   anna's second clip
reference12.flac         speaker 12           reference1-2.wav        the unnamed speaker 1's second clip
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
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
    r"ref(?:erence)?s?[\s_.\-(\[]*(?P<speaker>[0-9]*)[)\]]?(?:[\s_.\-]+(?P<name>.*\w.*)|\W*)",
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


def explain_miss(filename: str, free_speaker: int) -> tuple[str, str] | None:
    """Why a file that looks as if it were meant as a clip is not taken, and what to do; None for all others.

    Args:
        filename: no folder; `parse_name` does not know it.
        free_speaker: a speaker without clips, for names that say none.
    """
    if filename.startswith("."):  # hidden, or what macOS keeps beside a file
        return None
    path = PurePath(filename)
    ending = path.suffix.lower()
    if ending == ".txt":
        inner = PurePath(path.stem)
        if inner.suffix.lower() in (*ENDINGS, ".txt") and parse_name(f"{inner.stem}.wav"):
            return (
                "A transcript is named as its clip, without the clip's ending.",
                f"Rename it to {inner.stem}.txt.",
            )
        return None
    if ending in _OTHER_SOUNDS:
        clip = f"{path.stem}.wav"
        if parse_name(clip) is None:
            return None
        return f"Files that end in {ending} are not read.", f"Convert it to {clip}."
    if ending not in ENDINGS:
        return None
    if not filename.isprintable():
        return "Its name holds control characters.", "Rename it."
    name = _better_name(path, free_speaker)
    remedy = (
        f"Rename it to {name}." if name else f"Rename it to reference{free_speaker}{ending}, for example."
    )
    if re.match("ref", filename, re.IGNORECASE):
        return "Its name is not spelled as that of a clip.", remedy
    return "Its name does not say whose voice it is.", remedy


def _better_name(path: PurePath, free_speaker: int) -> str | None:
    """A name that is a clip's and keeps what `path` says; None where there is none."""
    stem = path.stem
    while PurePath(stem).suffix.lower() in ENDINGS:  # reference1.wav.wav
        stem = PurePath(stem).stem
    match = _MEANT.fullmatch(stem)
    if match is None:
        speaker, said = str(free_speaker), stem
    else:
        speaker, said = match["speaker"], match["name"] or ""
    said = re.sub(r"[\s_\-]+", "-", said).strip("-.()[]")
    better = f"reference{speaker and int(speaker)}{said and '-'}{said}{path.suffix.lower()}"
    return better if parse_name(better) else None
