"""`[pause 0.5]`: silence between words or turns."""

from __future__ import annotations

import re
from dataclasses import dataclass

from csm_repl.errors import LineError

__all__ = ["LONGEST_PAUSE_S", "Pause", "find_pauses", "split_pauses", "without_last_pauses", "without_pauses"]

LONGEST_PAUSE_S = 60.0
USUAL_PAUSE_S = 0.5
"""What `[pause]` is without a number."""

_PAUSE = re.compile(
    r"\[\s{0,9}pause(?:[\s:=]\s{0,9}(?P<number>[0-9]{1,6}(?:\.[0-9]{0,6})?|\.[0-9]{1,6})"
    r"\s{0,9}(?P<unit>ms|s|secs?|seconds?)?)?\s{0,9}\]",
    re.IGNORECASE,
)
_LAST = re.compile(rf"(?:{_PAUSE.pattern})\s{{0,9}}\Z", re.IGNORECASE)
_LONGEST_MARK = 64


@dataclass(frozen=True)
class Pause:
    """Silence where nobody speaks."""

    seconds: float


def find_pauses(text: str) -> list[tuple[int, int, Pause]]:
    """Start, end and length of every pause in a turn, in order.

    Raises:
        LineError: one is longer than `LONGEST_PAUSE_S`.
    """
    if "[" not in text:
        return []
    return [(match.start(), match.end(), _pause(match)) for match in _PAUSE.finditer(text)]


def split_pauses(text: str) -> list[str | Pause]:
    """The texts and pauses of a turn, in order.

    Beside a pause, a text has no outer white space and is not empty.

    Raises:
        LineError: as `find_pauses`.
    """
    pauses = find_pauses(text)
    if not pauses:
        return [text]
    parts: list[str | Pause] = []
    at = 0
    for start, end, pause in pauses:
        parts += [text[at:start].strip(), pause]
        at = end
    return [part for part in [*parts, text[at:].strip()] if part]


def without_pauses(text: str) -> str:
    """What of a turn is spoken."""
    return " ".join(part for part in split_pauses(text) if isinstance(part, str))


def without_last_pauses(text: str) -> str:
    """`text` up to the pauses at its end."""
    while text.endswith("]") and (match := _LAST.search(text, max(0, len(text) - _LONGEST_MARK))) is not None:
        text = text[: match.start()].rstrip()
    return text


def _pause(match: re.Match[str]) -> Pause:
    if match["number"] is None:
        return Pause(USUAL_PAUSE_S)
    seconds = float(match["number"]) / (1000 if (match["unit"] or "").lower() == "ms" else 1)
    if seconds > LONGEST_PAUSE_S:
        raise LineError(
            f"{match[0]} is longer than {LONGEST_PAUSE_S:.0f} seconds; nothing was spoken.",
            "Write a shorter pause, or several.",
        )
    return Pause(seconds)
