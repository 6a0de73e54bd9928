"""Which speaker a file in the references folder belongs to, from its name alone. Pure.

reference.wav            speaker 0            reference1-anna.wav     speaker 1, called anna
reference0.wav           speaker 0 as well    reference1-anna-2.wav   anna's second clip
reference12.flac         speaker 12           reference1-2.wav        the unnamed speaker 1's second clip
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

ENDINGS = (".wav", ".flac", ".mp3", ".ogg", ".m4a")

_PATTERN = re.compile(
    r"reference(?P<speaker>[0-9]{1,3})?"
    r"(?:-(?P<name>(?![0-9]+[-.])[^-](?:.*?[^-])?))?"
    r"(?:-(?P<index>[0-9]{1,3}))?"
    rf"(?:{'|'.join(map(re.escape, ENDINGS))})",
    re.IGNORECASE,
)


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
