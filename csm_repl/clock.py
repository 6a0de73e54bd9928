"""Seconds of work: those in which Ctrl-Z had stopped the program do not count."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

__all__ = ["counted_stops", "suspend", "working_seconds"]

_stopped_s = 0.0


def working_seconds() -> float:
    """As `time.perf_counter`, less the time in `suspend`."""
    return time.perf_counter() - _stopped_s


def suspend() -> None:
    """Stops the program as SIGTSTP does by default; returns when it goes on. In the main thread only."""
    global _stopped_s
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    began = time.perf_counter()
    try:
        # Unlike os.kill, it is back only when the program goes on.
        signal.raise_signal(signal.SIGTSTP)
    finally:
        _stopped_s += time.perf_counter() - began
        signal.signal(signal.SIGTSTP, handler)


@contextlib.contextmanager
def counted_stops() -> Iterator[None]:
    """While the block runs, SIGTSTP goes through `suspend`, unless somebody handles or ignores it."""
    if (
        not hasattr(signal, "SIGTSTP")
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTSTP, lambda number, frame: suspend())
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
