"""Lines that are spoken side by side, reported as if it were one after the other.

Every line is a job with a row of the batch engine. Jobs are asked in turn for one event each, so all rows
advance together. Events wait until the lines before theirs are over. A command waits for the lines before
it, and the lines behind it wait for the command.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator

from csm_repl.commands import parse_input, run_line
from csm_repl.errors import LineError
from csm_repl.events import Audio, Event, LineDone, Stopped, TurnDone
from csm_repl.jobs import run_job
from csm_repl.pipe.lines import LineFeed
from csm_repl.pipe.listener import Listener
from csm_repl.script import Command, Line
from csm_repl.studio import Studio
from csm_repl.studio.line import LineJob

__all__ = ["NOT_UTF8", "SideBySide"]

LINES_PER_ROW = 4
"""So many lines may be begun for each row: those that are over wait, with their sound, for a slow one."""
NOT_UTF8 = ("This line is not UTF-8.", "Save the script as UTF-8.")


class _Begun:
    """A line that is being spoken, or is over and waits to be reported."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.job: LineJob | None = None
        self.running: Generator[Event, None, None] | None = None
        self.events: deque[Event] = deque()
        self.error: Exception | None = None
        self.is_over = False
        """Whether all its turns are spoken, which it may be before `running` has run out."""

    def drop(self) -> None:
        """Stops speaking, which frees the row."""
        if self.running is not None:
            self.running.close()
        self.running = None


class SideBySide:
    """Speaks the lines of a feed.

    Args:
        studio: with a batch engine.
        feed: where lines come from.
        listener: takes their events, in order.
    """

    def __init__(self, studio: Studio, feed: LineFeed, listener: Listener) -> None:
        assert studio.batch_engine is not None
        self._studio = studio
        self._engine = studio.batch_engine
        self._feed = feed
        self._listener = listener
        self._begun: deque[_Begun] = deque()
        self._command: tuple[int, str] | None = None
        """It waits for the lines before it."""
        self._at_end = False

    def run(self) -> bool:
        """Speaks until the input ends; whether Ctrl-C stopped it."""
        try:
            while True:
                if self._command is not None and not self._begun and self._run_command(*self._command):
                    return True
                self._begin_lines()
                if self._begun:
                    self._advance()
                    self._report()
                elif self._command is None:
                    return False
        except KeyboardInterrupt:
            self._stop()
            return True

    @property
    def _running(self) -> list[_Begun]:
        return [line for line in self._begun if line.running is not None]

    def _begin_lines(self) -> None:
        n_rows = self._engine.n_rows
        while self._command is None and not self._at_end and not self._listener.quit:
            if len(self._running) >= n_rows or len(self._begun) >= LINES_PER_ROW * n_rows:
                return
            item = self._feed.next(wait=not self._begun)
            if item is None:
                return
            if not isinstance(item, tuple):
                self._at_end = True
                return
            self._take_in(*item)

    def _take_in(self, number: int, text: str | None) -> None:
        line = _Begun(number)
        try:
            if text is None:
                raise LineError(*NOT_UTF8)
            parsed = parse_input(text)
            if isinstance(parsed, Command):
                self._command = (number, text)
                return
            if parsed.empty:
                return
            self._begun.append(line)
            self._begin(line, parsed)
        except Exception as error:
            line.error = error
            if line not in self._begun:
                self._begun.append(line)
        self._report()

    def _begin(self, line: _Begun, parsed: Line) -> None:
        for event in self._studio.refresh_voices():
            line.events.append(event)
            self._report_events()
        line.job = self._studio.begin(parsed, engine=self._engine)
        line.running = line.job.run()

    def _advance(self) -> None:
        """One more event of every line that is being spoken."""
        for line in self._running:
            assert line.running is not None
            try:
                event = next(line.running)
            except StopIteration:
                line.running = None
            except Exception as error:
                line.running, line.error = None, error
            else:
                if isinstance(event, Stopped):
                    # The line has put its own affairs in order; now it is the others' turn.
                    raise KeyboardInterrupt
                line.is_over = isinstance(event, LineDone)
                if not (isinstance(event, Audio) and len(event.samples) == 0):
                    line.events.append(event)

    def _report(self) -> None:
        """Hands on what no line before it holds up."""
        while self._begun:
            self._report_events()
            line = self._begun[0]
            if line.running is not None:
                return
            self._begun.popleft()
            if line.job is not None:
                line.job.commit()
            if line.error is not None:
                self._listener.fail(line.error, line.number)

    def _report_events(self) -> None:
        line = self._begun[0]
        try:
            while line.events:
                self._listener.handle(line.events.popleft(), line.number)
        except Exception as error:  # a file that cannot be written; said once, in place of the rest
            line.drop()
            line.events.clear()
            line.error = line.error or error

    def _run_command(self, number: int, text: str) -> bool:
        self._command = None
        try:
            return run_job(run_line(self._studio, text), lambda event: self._listener.handle(event, number))
        except Exception as error:
            self._listener.fail(error, number)
        return False

    def _stop(self) -> None:
        """Reports what is in files; takes that are not over are dropped."""
        lines, self._begun = list(self._begun), deque()
        n_dropped = 0
        for line in lines:
            n_dropped += line.running is not None and not line.is_over
            line.drop()
            for event in line.events:
                if line.is_over or isinstance(event, TurnDone):
                    self._listener.handle(event, line.number)
            if line.job is not None:
                line.job.commit()
            if line.error is not None:
                self._listener.fail(line.error, line.number)
        text = "Stopped. What was finished is kept."
        if n_dropped:
            text += f" {n_dropped} unfinished line{' was' if n_dropped == 1 else 's were'} dropped."
        self._listener.handle(Stopped(text), lines[-1].number if lines else 0)
