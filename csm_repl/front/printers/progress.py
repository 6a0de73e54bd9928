"""How far a run is, for whoever watches stderr: a moving line for a script, and a summary at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from typing import TextIO

from csm_repl.clock import working_seconds
from csm_repl.events import Audio, Event, LineDone, Progress, TurnStarted
from csm_repl.text.duration import clock_time

__all__ = ["ScriptProgress", "StatusLine"]

_MOST_FAILURES = 10
_REDRAWN_AFTER_S = 0.2


class StatusLine:
    """The last line of a terminal, written over again and again.

    Args:
        file: a terminal. Whoever else writes to it calls `clear` first.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._shown = False

    def show(self, text: str) -> None:
        columns = 80
        with contextlib.suppress(OSError, ValueError):
            columns = os.get_terminal_size(self._file.fileno()).columns or columns
        # A full last column would wrap, and the rest could not be cleared.
        self._write(f"\r\x1b[2K{text[: columns - 1]}")
        self._shown = True

    def clear(self) -> None:
        if self._shown:
            self._shown = False
            self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._file.write(text)
            self._file.flush()


class ScriptProgress:
    """Counts lines as they are spoken and fail.

    Args:
        expected: input line, or `talk.txt:3`, -> about how many seconds it will be, for each that will be
            spoken; None: nobody knows what is still to come.
        status: where the moving line goes, if `expected` is known; None: nowhere.
        say: receives the summary, sentence by sentence.
        clock: seconds.
    """

    def __init__(
        self,
        expected: Mapping[int | str, float] | None,
        status: StatusLine | None,
        say: Callable[[str], None],
        clock: Callable[[], float] = working_seconds,
    ) -> None:
        self._expected = expected
        self._status = status
        self._say = say
        self._clock = clock
        self._began = clock()
        self._drawn = float("-inf")
        self._spoken: set[int | str] = set()
        self._failed: dict[int | str, str] = {}
        self._audio_s = 0.0
        self._current: tuple[int | str, float] = (0, 0.0)
        """The input line that is being spoken, and seconds of its turn."""

    def hear(self, event: Event, line: int | str) -> None:
        """Takes an event of input line `line`."""
        if isinstance(event, Audio | Progress):
            self._current = (line, event.generated_s)
            if self._clock() - self._drawn >= _REDRAWN_AFTER_S:
                self._draw()
        elif isinstance(event, LineDone):
            self._spoken.add(line)
            self._audio_s += event.seconds
            self._draw()
        elif isinstance(event, TurnStarted):
            self._draw()

    def fail(self, cause: str, line: int | str) -> None:
        """Takes what input line `line` failed of."""
        self._failed[line] = cause
        self._draw()

    def finish(self) -> None:
        """Says what became of the lines; nothing where that was seen anyway."""
        if self._status is not None:
            self._status.clear()
        n_spoken, n_lines = len(self._spoken), len(self._spoken) + len(self._failed)
        if self._expected is not None:
            n_lines = len({*self._expected, *self._failed})
        if n_lines < 2 and not self._failed:
            return
        elapsed_s = self._clock() - self._began
        of_all = f" of {n_lines}" if n_lines > n_spoken else ""
        text = f"Spoke {n_spoken}{of_all} line{'s' if n_lines > 1 else ''}"
        if self._audio_s:
            factor = elapsed_s / self._audio_s
            text += f": {clock_time(self._audio_s)} of audio in {clock_time(elapsed_s)} (RTF {factor:.2f})"
        self._say(f"{text}.")
        for line, cause in list(self._failed.items())[:_MOST_FAILURES]:
            where = line if isinstance(line, str) else f"Input line {line}"
            self._say(f"{where} failed: {cause}")
        if len(self._failed) > _MOST_FAILURES:
            self._say(f"{len(self._failed) - _MOST_FAILURES} more lines failed.")

    def text(self) -> str:
        """`12/40 lines, about 3:20 left`; how long is not said before there is something to judge it from."""
        expected = self._expected or {}
        over = {*self._spoken, *self._failed} & expected.keys()
        text = f"{len(over)}/{len(expected)} lines"
        line, generated_s = self._current
        made = sum(expected[each] for each in over - self._failed.keys())
        if line in expected and line not in over:
            made += min(generated_s, expected[line])
        left = sum(expected.values()) - made - sum(expected[each] for each in over & self._failed.keys())
        if made > 0:
            text += f", about {clock_time(left * (self._clock() - self._began) / made)} left"
        return text

    def _draw(self) -> None:
        if self._status is not None and self._expected:
            self._drawn = self._clock()
            self._status.show(self.text())
