"""What a run shows: at a terminal, in a pipe, as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from csm_repl.settings import load_settings
from csm_repl.train.events import CheckpointSaved, LeftOut, LeftOutTotal, Note, Reading, SpeakerTable
from csm_repl.train.report.display import (
    MAX_LEFT_OUT,
    MAX_SPEAKERS,
    JsonDisplay,
    PlainDisplay,
    RichDisplay,
    open_display,
)
from tests.support.train_events import evaluated, step


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def err() -> io.StringIO:
    return io.StringIO()


def test_results_go_to_stdout_and_the_rest_to_stderr(out: io.StringIO, err: io.StringIO) -> None:
    display = PlainDisplay(out, err, 1)
    display.say("Loading.")
    display.handle(step(1))
    display.handle(CheckpointSaved(1, Path("state.pt"), "state"))
    display.result(Path("runs/model"))
    assert out.getvalue() == "runs/model\n"
    assert [line.split()[0] for line in err.getvalue().splitlines()] == ["Loading.", "step"]


def test_quiet_leaves_the_results(out: io.StringIO, err: io.StringIO) -> None:
    display = PlainDisplay(out, err, 1, quiet=True)
    display.say("Loading.")
    display.handle(step(1))
    display.handle(LeftOut("a.wav", "Empty."))
    display.result(Path("runs/model"))
    assert (out.getvalue(), err.getvalue()) == ("runs/model\n", "")


def test_many_left_out_clips_are_counted_and_verbose_names_them_all(
    out: io.StringIO, err: io.StringIO
) -> None:
    for verbose, n_lines in ((False, MAX_LEFT_OUT + 2), (True, 32)):
        err.truncate(0)
        err.seek(0)
        display = PlainDisplay(out, err, 1, verbose=verbose)
        for number in range(30):
            display.handle(LeftOut(f"{number}.wav", "Empty."))
        display.handle(Reading(40, 40, 0, 1.0, 1.0))
        display.handle(LeftOutTotal(30, 70, (("Empty.", 30, "0.wav"),)))
        *_, last = lines = err.getvalue().splitlines()
        assert len(lines) == n_lines
        assert last == "Left out 30 of 70: 30 × Empty. (first: 0.wav)"


def test_one_thing_left_out_is_not_counted(out: io.StringIO, err: io.StringIO) -> None:
    display = PlainDisplay(out, err, 1)
    display.handle(LeftOut("a.wav", "Empty."))
    display.handle(LeftOutTotal(1, 70, (("Empty.", 1, "a.wav"),)))
    assert err.getvalue() == "left out: a.wav: Empty.\n"


def test_speakers_are_a_table_by_number_and_verbose_shows_all_rows(
    out: io.StringIO, err: io.StringIO
) -> None:
    rows = tuple((f"p{number}", number, 1 + number) for number in range(25))
    PlainDisplay(out, err, 1).handle(SpeakerTable(rows[::-1]))
    lines = err.getvalue().splitlines()
    assert lines[:3] == [
        "Speakers:",
        "  p0   ->  speaker 0  (1 clip)",
        "  p1   ->  speaker 1  (2 clips)",
    ]
    assert len(lines) == MAX_SPEAKERS + 2
    assert lines[-1] == "  and 5 more; -v lists them all"
    PlainDisplay(out, err, 1, verbose=True).handle(SpeakerTable(rows))
    assert "speaker 24" in err.getvalue()


def test_where_nobody_is_named_there_is_a_sentence_and_no_table(out: io.StringIO, err: io.StringIO) -> None:
    PlainDisplay(out, err, 1).handle(SpeakerTable((("", 0, 7),)))
    assert err.getvalue() == "Speakers: no folder or list names one, so all clips are speaker 0.\n"


def test_names_cannot_steer_the_terminal(out: io.StringIO, err: io.StringIO) -> None:
    display = PlainDisplay(out, err, 1)
    display.handle(LeftOut("\x1b[2Jx.wav", "Empty."))
    assert "\x1b" not in err.getvalue()
    console = Console(file=err, force_terminal=True, width=80)
    RichDisplay(out, console, 1).handle(Note("a\x1b]0;title\x07b [bold]c"))
    assert "\x1b]0" not in err.getvalue()
    assert "[bold]c" in err.getvalue()


def test_json_is_one_object_an_event_whatever_its_numbers(out: io.StringIO, err: io.StringIO) -> None:
    display = JsonDisplay(out, err, 10)
    display.handle(step(3))
    display.handle(evaluated(3, loss=float("inf")))
    display.handle(CheckpointSaved(3, Path("state.pt"), "state"))
    display.result(Path("model"))
    objects = [json.loads(line, parse_constant=pytest.fail) for line in out.getvalue().splitlines()]
    assert [value["type"] for value in objects] == ["step_done", "evaluated", "saved", "result"]
    assert (objects[0]["step"], objects[0]["lr"]) == (3, 1e-4)
    assert objects[1]["loss"] is None
    assert objects[2]["path"] == "state.pt"


@pytest.mark.parametrize("width", [24, 60, 100, 200])
def test_a_terminal_has_a_bar_with_loss_rate_speed_and_rest_in_two_lines(
    out: io.StringIO, err: io.StringIO, width: int
) -> None:
    console = Console(file=err, force_terminal=True, width=width, height=20, color_system=None)
    display = RichDisplay(out, console, 10)
    display.handle(Reading(3, 8, 1, 4.0, 0.5))
    display.handle(Reading(8, 8, 1, 12.0, 0.5))
    display.handle(evaluated(1))
    for number in range(1, 31):
        display.handle(step(number))
    for line in console.render_lines(display._figures(step(30))):
        assert sum(segment.cell_length for segment in line) <= width
    assert len(console.render_lines(display._figures(step(30)))) == 2
    text = "".join(segment.text for segment in console.render(display._figures(step(30))))
    if width >= 100:
        for word in ("30/100", "loss 3.000 = 1.000 + 2.000", "held out 3.500", "1.0e-04", "items/s", "left"):
            assert word in text
    display.close()


def test_what_is_worth_a_line_stands_above_the_bar(out: io.StringIO, err: io.StringIO) -> None:
    console = Console(file=err, force_terminal=True, width=120, color_system=None)
    display = RichDisplay(out, console, 10)
    display.handle(step(1))
    display.handle(evaluated(1))
    display.result(Path("model"))
    assert "step 1: held-out loss 3.5000" in err.getvalue()
    assert out.getvalue() == "model\n"


def test_the_show_fits_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert type(open_display(load_settings({}), 10)) is RichDisplay
    assert type(open_display(load_settings({"json": True}), 10)) is JsonDisplay
    assert type(open_display(load_settings({"quiet": True}), 10)) is PlainDisplay
    monkeypatch.setenv("TERM", "dumb")
    assert type(open_display(load_settings({}), 10)) is PlainDisplay
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert type(open_display(load_settings({}), 10)) is PlainDisplay


def test_the_128_digits_of_a_common_voice_speaker_are_shortened(out: io.StringIO, err: io.StringIO) -> None:
    PlainDisplay(out, err, 1).handle(SpeakerTable((("ab" * 64, 0, 7),)))
    [_, line] = err.getvalue().splitlines()
    assert line == f"  {'ab' * 15}a…  ->  speaker 0  (7 clips)"
