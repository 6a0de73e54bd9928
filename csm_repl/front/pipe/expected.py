"""What a script will be, before a line of it is spoken: for the progress at a terminal."""

from __future__ import annotations

from pathlib import Path

from csm_repl.errors import LineError
from csm_repl.front.pipe.lines import read_lines
from csm_repl.studio.commands import parse_input
from csm_repl.text.duration import expected_seconds
from csm_repl.text.grammar import Command

__all__ = ["expected_lines"]


def expected_lines(script: Path, *, offsets: bool) -> dict[int, float] | None:
    """Input line -> about how many seconds of sound; commands and empty lines are left out.

    A line that will fail is there with 0 seconds. None: the script can be read only once.
    """
    if not script.is_file():
        return None
    found: dict[int, float] = {}
    with script.open("rb") as file:
        for number, text in read_lines(file):
            seconds = _seconds(text, offsets)
            if seconds is not None:
                found[number] = seconds
    return found


def _seconds(text: str | LineError, offsets: bool) -> float | None:
    """None: the line makes no sound."""
    if isinstance(text, LineError):
        return 0.0
    try:
        parsed = parse_input(text, offsets=offsets)
    except LineError:
        return 0.0
    if isinstance(parsed, Command) or parsed.empty:
        return None
    return sum(expected_seconds(turn.text) for turn in parsed.turns)
