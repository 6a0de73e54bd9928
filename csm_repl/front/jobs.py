"""Runs a job's events and turns Ctrl-C into an orderly stop."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from csm_repl.errors import CsmReplError, ExitCode, OutputError
from csm_repl.events import Event, Stopped
from csm_repl.paths import log_file

__all__ = ["TWICE_WITHIN_S", "Interrupts", "run_job", "unexpected"]

TWICE_WITHIN_S = 2.0


class Interrupts:
    """Ctrl-C as the whole program counts it: the second within two seconds leaves with 130.

    As a `with` block it handles SIGINT. A prompt in raw mode gets no signal and calls `note` itself, and
    `forget` for every other key.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = float("-inf")
        self._before: Any = None

    def note(self) -> bool:
        """Counts one; whether it is the second within two seconds."""
        now = self._clock()
        twice = now - self._last <= TWICE_WITHIN_S
        self._last = now
        return twice

    def forget(self) -> None:
        """The next one is a first one again: something was typed."""
        self._last = float("-inf")

    def __enter__(self) -> Interrupts:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.note():
            raise SystemExit(int(ExitCode.INTERRUPTED))
        raise KeyboardInterrupt


def run_job(events: Iterator[Event], handle: Callable[[Event], None]) -> bool:
    """Hands every event to `handle`; whether Ctrl-C stopped the job.

    An interrupt that hits the handler is thrown into the job, so that there is one place where a stop is
    put in order.
    """
    iterator = iter(events)
    stopped = False
    hit: KeyboardInterrupt | None = None
    while True:
        try:
            if hit is None:
                event = next(iterator)
            else:
                throw = getattr(iterator, "throw", None)
                if throw is None:
                    raise hit
                interrupt, hit = hit, None
                event = throw(interrupt)
        except StopIteration:
            return stopped
        except KeyboardInterrupt:
            handle(Stopped("Stopped."))
            return True
        stopped = stopped or isinstance(event, Stopped)
        try:
            handle(event)
        except KeyboardInterrupt as interrupt:
            hit = interrupt


def unexpected(error: BaseException) -> CsmReplError:
    """What to tell the user about an error that nobody foresaw; its traceback belongs in the log."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    return OutputError(
        f"Unexpected error: {type(error).__name__}: {first_line}",
        f"The model is still loaded. Please report it; the details are in {log_file()}.",
    )
