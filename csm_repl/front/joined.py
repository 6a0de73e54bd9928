"""`-o`: what of a run's events goes into the one file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from csm_repl.audio import AudioSink
from csm_repl.errors import OutputError
from csm_repl.events import Audio, Event, TurnDone, TurnStarted, Withdrawn

__all__ = ["JoinedSound"]

log = logging.getLogger(__name__)


class JoinedSound:
    """The accepted dialogue: takes that were stopped, failed or withdrawn are taken out, if that can be done.

    A file that cannot be written on is closed on what it holds, which is said once; the run goes on without.

    Args:
        sink: None: the run has no such file.
        complain: receives the error.
        say: receives a sentence.
    """

    def __init__(
        self,
        sink: AudioSink | None,
        complain: Callable[[OutputError], None],
        say: Callable[[str], None],
    ) -> None:
        self._sink = sink
        self._complain = complain
        self._say = say
        self._spans: dict[Path, tuple[int, int]] = {}
        self._open: int | None = None
        """Where the turn that is being spoken starts."""
        self._said = False

    def handle(self, event: Event) -> None:
        if self._sink is None:
            return
        if isinstance(event, Audio):
            self._write(self._sink, event)
        elif isinstance(event, TurnStarted):
            self._drop_open_turn(self._sink)
            self._open = self._sink.n_samples
        elif isinstance(event, TurnDone):
            if event.ended == "interrupted":
                self._drop_open_turn(self._sink)
            elif self._open is not None:
                self._spans[event.file] = (self._open, self._sink.n_samples)
            self._open = None
        elif isinstance(event, Withdrawn):
            for file in event.files:
                if file in self._spans:
                    self._take_out(self._sink, *self._spans.pop(file))

    def _drop_open_turn(self, sink: AudioSink) -> None:
        """Takes out what there is of a turn that did not come to its end."""
        start, self._open = self._open, None
        if start is not None and sink.can_withdraw:
            sink.withdraw(start, sink.n_samples)

    def end(self) -> None:
        """The run is over; closing the sink is left to whoever opened it."""
        if self._sink is not None:
            self._drop_open_turn(self._sink)

    def _write(self, sink: AudioSink, event: Audio) -> None:
        try:
            sink.write(event.samples)
        except (OutputError, BrokenPipeError) as error:
            log.info("-o failed", exc_info=True)
            self._sink = None
            cause, where = "The program that read stdout has closed it.", ""
            if isinstance(error, OutputError):
                cause = f"{error.cause} It ends here."
            try:
                self._drop_open_turn(sink)
                sink.close()
            except (OSError, OutputError) as second:
                log.info("-o cannot be closed", exc_info=True)
                if isinstance(second, OutputError):
                    cause, where = second.cause, f"{second.remedy} "
            self._complain(OutputError(cause, f"{where}The takes are kept, and the run goes on without -o."))

    def _take_out(self, sink: AudioSink, start: int, end: int) -> None:
        if sink.can_withdraw:
            sink.withdraw(start, end)
        elif not self._said:
            self._said = True
            self._say("What -o has sent to stdout cannot be taken back.")
