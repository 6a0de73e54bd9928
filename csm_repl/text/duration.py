"""How long a text can take to say: the guard against takes that never end.

Conversational English runs at 13 to 16 characters a second. The ceiling allows 6 characters a second
and 2.5 seconds on top: slow, emphatic speech with pauses stays under it (`tests/text/test_duration.py`
compares with a synthesiser at half speed), babble and silence do not.
"""

from __future__ import annotations

import re
import unicodedata

from csm_repl.text.pauses import Pause, split_pauses

__all__ = ["ceiling_seconds", "clock_time", "expected_seconds"]

CEILING_CHARS_PER_S = 6.0
CEILING_EXTRA_S = 2.5
USUAL_CHARS_PER_S = 14.0

_DIGIT_CHARS = 5.0
"""A digit is spoken as a word: 'seven' has 5 letters, '2024' is 'twenty twenty-four'."""
_WIDE_CHARS = 4.0
"""A Chinese, Japanese or Korean character is a syllable or more: about a quarter of a second."""

_PAUSE_CHARS = 2.5
"""A stop or a comma is a pause; inside a number or an address it is said."""
_PAUSES = ",.;:!?…—"
_LETTER_CHARS = 2.5
"""Capitals in a row are spelled: 'WWW', 'HTML'."""


_OTHERS = re.compile("[^a-z ]")


def _spoken_chars(text: str) -> float:
    """Length of `text` in characters of spelled-out English."""
    total = float(len(text))
    for match in _OTHERS.finditer(text):
        char, at = match[0], match.start()
        before = text[at - 1 : at]
        if char.isdigit():
            total += _DIGIT_CHARS - 1
        elif not char.isascii() and unicodedata.east_asian_width(char) in "WF":
            total += _WIDE_CHARS - 1
        elif char in _PAUSES:
            total += 0.0 if before and before in _PAUSES else _PAUSE_CHARS - 1
        elif char.isupper() and before.isupper():
            total += _LETTER_CHARS - 1
        elif char in "%&@#/" or unicodedata.category(char) in {"Sc", "Sm", "So"}:
            total += _DIGIT_CHARS - 1
    return total


def ceiling_seconds(text: str) -> float:
    """The longest that a take of `text`, without pauses, may get before it is cut."""
    return CEILING_EXTRA_S + _spoken_chars(text) / CEILING_CHARS_PER_S


def expected_seconds(text: str) -> float:
    """About how long a take of `text` will be, its pauses included."""
    return sum(
        part.seconds if isinstance(part, Pause) else 0.5 + _spoken_chars(part) / USUAL_CHARS_PER_S
        for part in split_pauses(text)
    )


def clock_time(seconds: float) -> str:
    """`3:20`, and from an hour on `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
