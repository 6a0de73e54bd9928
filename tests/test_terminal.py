"""Ctrl-C is held back while libraries are imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


# --- standard streams -------------------------------------------------------------------------------------

_STREAMS = r"""
import os, sys
from csm_repl.terminal import prepare_streams, settle_streams
prepare_streams()
with open(sys.argv[1], "w") as file:
    assert file.fileno() > 2, file.fileno()
    print("a notice", file=sys.stderr)
    print("Zo\u00eb \u4f60 \udce9", flush=True)
settle_streams()
"""


def _run_streams(path: Path, closed: tuple[int, ...], **options: Any) -> subprocess.CompletedProcess[bytes]:
    def close() -> None:
        for number in closed:
            os.close(number)

    return subprocess.run(
        [sys.executable, "-c", _STREAMS, path], preexec_fn=close, capture_output=True, **options
    )


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2), (1, 2)])
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path, closed: tuple[int, ...]) -> None:
    done = _run_streams(tmp_path / "file", closed)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_bytes() == b""
    assert b"notice" not in done.stdout


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "Zoë 你 ".encode() + b"\xe9"), ("ascii", b"Zo\\xeb \\u4f60 \\udce9")],
)
def test_no_name_is_too_odd_for_a_stream(tmp_path: Path, encoding: str, shown: bytes) -> None:
    done = _run_streams(tmp_path / "file", (), env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.stdout == shown + b"\n"


def test_a_stream_that_fails_at_last_changes_neither_exit_code_nor_stderr() -> None:
    script = "import sys; from csm_repl.terminal import settle_streams; print('x'); settle_streams()"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, env=env)
    assert (done.returncode, done.stderr) == (0, b"")
