"""How far a run is, with a clock and a terminal of our own."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from csm_repl.errors import LineError
from csm_repl.events import Audio, LineDone, Notice
from csm_repl.front.printers import PlainPrinter, ScriptProgress, StatusLine


class Run:
    def __init__(self, expected: Mapping[int, float] | None) -> None:
        self.now = 0.0
        self.err = io.StringIO()
        self.said: list[str] = []
        self.progress = ScriptProgress(expected, StatusLine(self.err), self.said.append, lambda: self.now)

    def speak(self, line: int, seconds: float, took: float) -> None:
        self.now += took
        self.progress.hear(Audio(torch.zeros(1), 24_000, seconds, took), line)
        self.progress.hear(LineDone(line, Path(f"{line:03d}.wav"), seconds, ()), line)

    @property
    def shown(self) -> list[str]:
        return [text for text in self.err.getvalue().split("\r\x1b[2K") if text]


def test_a_script_shows_how_many_lines_are_over_and_how_long_the_others_will_take() -> None:
    run = Run({1: 2.0, 4: 2.0, 5: 8.0})
    assert run.progress.text() == "0/3 lines"
    run.speak(1, 2.2, took=10.0)
    assert run.progress.text() == "1/3 lines, about 0:50 left"
    run.speak(4, 1.8, took=14.0)
    assert run.progress.text() == "2/3 lines, about 0:48 left"
    assert run.shown[-1] == run.progress.text()


def test_what_is_heard_of_a_line_counts_up_to_what_was_expected_of_it() -> None:
    run = Run({1: 2.0, 2: 2.0})
    run.now = 10.0
    for seconds, left in ((1.0, "0:30"), (2.0, "0:10"), (9.0, "0:10")):
        run.progress.hear(Audio(torch.zeros(1), 24_000, seconds, 1.0), 1)
        assert run.progress.text() == f"0/2 lines, about {left} left"


def test_a_failed_line_is_over_and_says_nothing_about_the_pace() -> None:
    run = Run({1: 2.0, 2: 2.0, 3: 2.0})
    run.progress.fail("The disk is full.", 1)
    run.speak(2, 2.0, took=6.0)
    assert run.progress.text() == "2/3 lines, about 0:06 left"


def test_the_summary_says_what_failed() -> None:
    run = Run({1: 2.0, 2: 2.0, 3: 2.0})
    run.speak(1, 30.0, took=15.0)
    run.progress.fail("The disk is full.", 2)
    run.speak(3, 60.0, took=165.0)
    run.progress.finish()
    assert run.said == [
        "Spoke 2 of 3 lines: 1:30 of audio in 3:00 (RTF 2.00).",
        "Input line 2 failed: The disk is full.",
    ]
    assert run.err.getvalue().endswith("\r\x1b[2K")


def test_many_failures_are_counted() -> None:
    run = Run(None)
    for line in range(1, 15):
        run.progress.fail("It is not UTF-8.", line)
    run.progress.finish()
    assert run.said[0] == "Spoke 0 of 14 lines."
    assert (len(run.said), run.said[-1]) == (12, "4 more lines failed.")


def test_a_pipe_has_a_summary_and_no_moving_line() -> None:
    run = Run(None)
    run.speak(1, 2.0, took=1.0)
    run.speak(2, 4000.0, took=4000.0)
    run.progress.finish()
    assert run.shown == []
    assert run.said == ["Spoke 2 lines: 1:06:42 of audio in 1:06:41 (RTF 1.00)."]


@pytest.mark.parametrize("expected", [None, {1: 2.0}])
def test_a_single_line_needs_no_summary(expected: dict[int, float] | None) -> None:
    run = Run(expected)
    run.speak(1, 2.0, took=1.0)
    run.progress.finish()
    assert run.said == []


def test_a_stopped_script_says_how_far_it_came() -> None:
    run = Run(dict.fromkeys(range(1, 41), 2.0))
    run.speak(1, 2.0, took=1.0)
    run.progress.finish()
    assert run.said == ["Spoke 1 of 40 lines: 0:02 of audio in 0:01 (RTF 0.50)."]


def test_the_moving_line_is_cleared_before_anything_else_is_written() -> None:
    terminal = io.StringIO()
    status = StatusLine(terminal)
    printer = PlainPrinter(terminal, terminal, status=status)
    for write in (
        lambda: printer.handle(Notice("A notice."), 1),
        lambda: printer.track("track.wav"),
        lambda: printer.error(LineError("Wrong."), 1),
    ):
        status.show("1/2 lines")
        write()
    pieces = terminal.getvalue().split("\r\x1b[2K1/2 lines")
    assert pieces == [
        "",
        "\r\x1b[2KA notice.\n",
        "\r\x1b[2Ktrack.wav\n",
        "\r\x1b[2Kcsm-repl: input line 1: Wrong.\n",
    ]


def test_the_moving_line_never_wraps() -> None:
    terminal = io.StringIO()
    StatusLine(terminal).show("x" * 200)
    assert terminal.getvalue() == "\r\x1b[2K" + "x" * 79
