"""What Ctrl-Z does to the clock of the work, with a clock and a stop of our own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from csm_repl import clock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGTSTP")


class Stop:
    """Stands in for the stop of the process: the shell has it for 100 seconds."""

    def __init__(self) -> None:
        self.now = 5.0
        self.handlers: list[object] = []

    def stop(self, number: int) -> None:
        assert number == signal.SIGTSTP
        self.handlers.append(signal.getsignal(number))
        self.now += 100.0


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stop]:
    fake = Stop()
    monkeypatch.setattr(clock, "_stopped_s", 0.0)
    monkeypatch.setattr(clock.time, "perf_counter", lambda: fake.now)
    with monkeypatch.context() as patch:
        patch.setattr(clock.signal, "raise_signal", fake.stop)
        yield fake


def test_the_time_of_a_stop_is_no_work(stop: Stop) -> None:
    began = clock.working_seconds()
    stop.now += 2.0
    clock.suspend()
    stop.now += 1.0
    assert clock.working_seconds() - began == 3.0


def test_a_stop_is_the_default_one_and_the_handler_is_back_after_it(stop: Stop) -> None:
    before = signal.getsignal(signal.SIGTSTP)
    with clock.counted_stops():
        handler = signal.getsignal(signal.SIGTSTP)
        assert callable(handler)
        handler(signal.SIGTSTP, None)
        assert signal.getsignal(signal.SIGTSTP) is handler
    assert stop.handlers == [signal.SIG_DFL]
    assert clock.working_seconds() == 5.0
    assert signal.getsignal(signal.SIGTSTP) is before


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_who_handles_or_ignores_it_goes_on_doing_so(handler: signal.Handlers) -> None:
    before = signal.signal(signal.SIGTSTP, handler)
    try:
        with clock.counted_stops():
            assert signal.getsignal(signal.SIGTSTP) is handler
    finally:
        signal.signal(signal.SIGTSTP, before)
