"""What pipes and logs get: one line each, nothing that steers a terminal."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from csm_repl.errors import LineError
from csm_repl.events import Echo, EchoTurn, Event, LineDone, Notice, Stopped, Table, TurnDone
from csm_repl.front.printers import JsonPrinter, PlainPrinter

ARMED = "a\x1b[2Jb\nc\u202ed\ud800"
DEFUSED = "a\\x1b[2Jb c\\u202ed\\ud800"


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (Echo((EchoTurn(0, ARMED, ARMED),)), f"0 {DEFUSED}: {DEFUSED}\n"),
        (Notice(ARMED), f"{DEFUSED}\n"),
        (Stopped(ARMED), f"{DEFUSED}\n"),
        (Table("t", "T", ("one", "two"), (("x\ty", ARMED),), ({},)), f"one\ttwo\nx y\t{DEFUSED}\n"),
    ],
)
def test_what_comes_from_outside_cannot_steer_a_terminal(event: Event, shown: str) -> None:
    err = io.StringIO()
    PlainPrinter(io.StringIO(), err).handle(event, 1)
    assert err.getvalue() == shown


def test_an_error_is_one_line_whatever_it_quotes() -> None:
    err = io.StringIO()
    PlainPrinter(io.StringIO(), err).error(LineError(f"{ARMED}.", "Type\nit again."), 3)
    assert err.getvalue() == f"csm-repl: input line 3: {DEFUSED}. Type it again.\n"


def test_a_path_is_printed_as_it_is() -> None:
    out = io.StringIO()
    PlainPrinter(out, io.StringIO()).handle(LineDone(1, Path("odd\u202e/001.wav"), 1.0, ()), 1)
    assert out.getvalue() == "odd\u202e/001.wav\n"


def test_json_keeps_the_text_exactly() -> None:
    out = io.StringIO()
    record = {"text": "a\x1b[2Jb\nc\u202ed"}
    JsonPrinter(out, io.StringIO()).handle(Table("history", "H", ("text",), (("x",),), (record,)), 2)
    assert json.loads(out.getvalue()) == {"type": "history", "line": 2, "rows": [record]}


def _all_events(printer: PlainPrinter) -> None:
    turn = TurnDone(
        0, 1, 1, "ben", "Hi.", Path("001.wav"), seconds=2.0, elapsed_s=1.0, first_audio_s=0.1, seed=7,
        ended="end", meta={},
    )  # fmt: skip
    printer.say("Loading.")
    for event in (
        Echo((EchoTurn(1, "ben", "Hi."),)),
        turn,
        LineDone(1, Path("001.wav"), 2.0, (turn,)),
        Notice("A notice."),
        Notice("A warning.", "warning"),
        Table("t", "T", ("one", "two"), (("x", "y"),), ({},)),
        Stopped("Stopped."),
    ):
        printer.handle(event, 1)
    printer.error(LineError("Wrong."), 2)


def test_colours_are_on_stderr_only_and_change_no_text() -> None:
    shown = {}
    for color in (False, True):
        out, err = io.StringIO(), io.StringIO()
        _all_events(PlainPrinter(out, err, color=color))
        assert out.getvalue() == "001.wav\n"
        shown[color] = err.getvalue()
    assert "\x1b" not in shown[False]
    assert re.sub(r"\x1b\[\d+m", "", shown[True]) == shown[False]
    for piece in (
        "\x1b[35m1 ben\x1b[0m: Hi.",
        "\x1b[33mA warning.",
        "\x1b[31mcsm-repl: input line 2: Wrong.",
    ):
        assert piece in shown[True]
    assert all(line.count("\x1b[0m") == line.count("\x1b[") / 2 for line in shown[True].splitlines())


def test_what_is_coloured_cannot_bring_colours_of_its_own() -> None:
    err = io.StringIO()
    PlainPrinter(None, err, color=True).handle(Notice("\x1b[31mred", "warning"), 1)
    assert err.getvalue() == "\x1b[33m\\x1b[31mred\x1b[0m\n"
