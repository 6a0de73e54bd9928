"""The one numbering of what was said: line 7, turn 7.2; their files are 007.wav and 007-2.wav."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["LAST_LINE", "TakeNumber"]

LAST_LINE = 999_999
_STEM = re.compile(r"([0-9]{3,6})(?:-([1-9][0-9]{0,5}))?")
_NUMBER = re.compile(r"0*([1-9][0-9]{0,5})(?:\.0*([1-9][0-9]{0,5}))?")


@dataclass(frozen=True, order=True)
class TakeNumber:
    """A line of a session, or one of its turns."""

    line: int
    """From 1."""
    turn: int = 0
    """Its place in the line, from 1, empty turns counted; 0: the whole line."""

    def __str__(self) -> str:
        return f"{self.line}.{self.turn}" if self.turn else str(self.line)

    @property
    def stem(self) -> str:
        """The name of its files without their ending."""
        return f"{self.line:03d}-{self.turn}" if self.turn else f"{self.line:03d}"

    @staticmethod
    def of_stem(stem: str) -> TakeNumber | None:
        """What the files of a take are the take of; None: they are not named like one."""
        return _made(_STEM.fullmatch(stem))

    @staticmethod
    def parse(text: str) -> TakeNumber | None:
        """`7` or `7.2`, as a user writes it; None: it is no such number."""
        return _made(_NUMBER.fullmatch(text.strip()))


def _made(match: re.Match[str] | None) -> TakeNumber | None:
    return TakeNumber(int(match[1]), int(match[2] or 0)) if match and int(match[1]) else None
