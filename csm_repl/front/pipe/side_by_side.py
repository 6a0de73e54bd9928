"""Lines that are spoken side by side, reported as if it were one after the other.

Every step makes a frame for the turn that each begun line is at. Events wait until the lines before theirs
are over. A command waits for the lines before it, and the lines behind it wait for the command.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from csm_repl.errors import LineError
from csm_repl.events import Event, LineDone, Progress, ScriptLine, Stopped, TurnDone
from csm_repl.front.jobs import run_job
from csm_repl.front.pipe.lines import LineFeed
from csm_repl.front.pipe.listener import Listener
from csm_repl.studio import Studio
from csm_repl.studio.line import LineJob
from csm_repl.studio.reading import run_line, understood
from csm_repl.text.formats import ScriptReader
from csm_repl.text.grammar import Command, Line, Parsed

__all__ = ["SideBySide"]

LINES_PER_SLOT = 4
"""So many lines may be begun for each slot: those that are over wait, with their sound, for a slow one."""


class _Begun:
    """A line that is being spoken, or is over and waits to be reported."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.job: LineJob | None = None
        """None: it could not be begun."""
        self.events: deque[Event] = deque()
        self.error: Exception | None = None

    @property
    def running(self) -> bool:
        return self.job is not None and not self.job.over

    @property
    def finished(self) -> bool:
        """Whether all its turns are spoken."""
        return any(isinstance(event, LineDone) for event in self.events)

    def take_in(self, events: Iterator[Event]) -> None:
        """Keeps events until they can be reported; an error ends the line."""
        try:
            for event in events:
                if not isinstance(event, Progress):
                    self.events.append(event)
        except Exception as error:
            self.drop()
            self.error = error

    def drop(self) -> None:
        """Stops speaking, which frees the slot."""
        if self.running and self.job is not None:
            self.job.drop()


class SideBySide:
    """Speaks the lines of a feed.

    Args:
        studio: of independent lines.
        feed: where lines come from.
        listener: takes their events, in order.
        script: what the feed reads, as the user named it.
        reader: of its notation; None: it is plain.
    """

    def __init__(
        self,
        studio: Studio,
        feed: LineFeed,
        listener: Listener,
        script: str = "-",
        reader: ScriptReader | None = None,
    ) -> None:
        self._studio = studio
        self._feed = feed
        self._listener = listener
        self._script = script
        self._reader = reader
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
        return [line for line in self._begun if line.running]

    def _begin_lines(self) -> None:
        n_slots = self._studio.engine.n_slots
        while self._command is None and not self._at_end and not self._listener.quit:
            if len(self._running) >= n_slots or len(self._begun) >= LINES_PER_SLOT * n_slots:
                return
            item = self._feed.next(wait=not self._begun)
            if item is None:
                return
            if not isinstance(item, tuple):
                self._at_end = True
                return
            self._take_in(*item)

    def _take_in(self, number: int, text: str | LineError) -> None:
        line = _Begun(number)
        self._begun.append(line)
        try:
            if isinstance(text, LineError):
                raise text
            parsed = self._understood(line, text)
            if isinstance(parsed, Command):
                self._command = (number, text)
            elif isinstance(parsed, Line) and not parsed.empty:
                self._begin(line, parsed)
        except Exception as error:
            line.error = error
        self._report()

    def _understood(self, line: _Begun, text: str) -> Parsed:
        meaning = understood(self._studio, text, self._reader)
        while True:
            try:
                line.events.append(next(meaning))
            except StopIteration as end:
                parsed: Parsed = end.value
                return parsed
            self._report_events()

    def _begin(self, line: _Begun, parsed: Line) -> None:
        for event in self._studio.refresh_voices():
            line.events.append(event)
            self._report_events()
        line.job = self._studio.begin(parsed, script=ScriptLine(self._script, line.number))
        line.take_in(line.job.start())

    def _advance(self) -> None:
        """One step of all lines."""
        try:
            events = self._studio.speech.step()
        except (RuntimeError, MemoryError) as error:
            # Nobody knows whose fault it was; without one of them the others go on.
            first = self._running[0]
            assert first.job is not None
            first.error = self._studio.failure(first.job, error)
            return
        for event in events:
            for line in self._running:
                if line.job is not None and line.job.turn == event.turn:
                    line.take_in(line.job.hear(event))
                    if isinstance(line.error, RuntimeError | MemoryError):
                        line.error = self._studio.failure(line.job, line.error)
                    break

    def _report(self) -> None:
        """Hands on what no line before it holds up."""
        while self._begun:
            self._report_events()
            line = self._begun[0]
            if line.running:
                return
            self._begun.popleft()
            if line.job is not None:
                self._studio.commit(line.job)
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
            return run_job(
                run_line(self._studio, text, reader=self._reader),
                lambda event: self._listener.handle(event, number),
            )
        except Exception as error:
            self._listener.fail(error, number)
        return False

    def _stop(self) -> None:
        """Reports what is in files; takes that are not over are dropped."""
        lines, self._begun = list(self._begun), deque()
        n_dropped = 0
        for line in lines:
            n_dropped += line.running
            line.drop()
            is_over = line.finished
            for event in line.events:
                if is_over or isinstance(event, TurnDone):
                    self._listener.handle(event, line.number)
            if line.job is not None:
                self._studio.commit(line.job)
            if line.error is not None:
                self._listener.fail(line.error, line.number)
        text = "Stopped. What was finished is kept."
        if n_dropped:
            text += f" {n_dropped} unfinished line{' was' if n_dropped == 1 else 's were'} dropped."
        self._listener.handle(Stopped(text), lines[-1].number if lines else 0)
