"""What a script will be, before a line of it is spoken: for the progress at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csm_repl.errors import LineError
from csm_repl.front.pipe.lines import read_lines
from csm_repl.front.pipe.scripts import STDIN, place_of, script_labels
from csm_repl.studio.commands import parse_input
from csm_repl.text.duration import expected_seconds
from csm_repl.text.grammar import Command

__all__ = ["expected_lines"]


def expected_lines(scripts: Sequence[str], *, offsets: bool) -> dict[int | str, float] | None:
    """Place of an input line (see `place_of`) -> about how many seconds of sound.

    Commands and empty lines are left out. A line that will fail is there with 0 seconds.
    None: a script can be read only once.
    """
    paths = [Path(script) for script in scripts]
    if not all(script != STDIN and path.is_file() for script, path in zip(scripts, paths, strict=True)):
        return None
    found: dict[int | str, float] = {}
    for label, path in zip(script_labels(scripts), paths, strict=True):
        with path.open("rb") as file:
            for number, text in read_lines(file):
                seconds = _seconds(text, offsets)
                if seconds is not None:
                    found[place_of(label, number)] = seconds
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
