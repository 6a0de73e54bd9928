"""Ctrl-C is held back while libraries are imported."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from csm_repl.terminal import held_interrupts


@pytest.fixture(autouse=True)
def ordinary_handler() -> Iterator[None]:
    """Python's own; a shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_comes_when_the_block_is_over() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the block must get to its end
        with held_interrupts():
            signal.raise_signal(signal.SIGINT)
            done.append("imported")
        done.append("never")
    assert done == ["imported"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_goes_to_the_handler_of_before() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    with held_interrupts():
        signal.raise_signal(signal.SIGINT)
        assert heard == []
    assert heard == [signal.SIGINT]


def test_an_interrupt_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with held_interrupts():
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_an_error_of_the_block_is_not_replaced() -> None:
    with pytest.raises(ImportError), held_interrupts():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        raise ImportError("no such library")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_python_cannot_put_back_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the program is embedded."""
    monkeypatch.setattr(signal, "getsignal", lambda _: None)
    monkeypatch.setattr(signal, "signal", lambda *_: pytest.fail("the handler was replaced"))
    with held_interrupts():
        pass
    monkeypatch.undo()


def test_other_threads_have_nothing_to_hold() -> None:
    done = []

    def work() -> None:
        with held_interrupts():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
