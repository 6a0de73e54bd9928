"""What pipes and logs get: one line each, nothing that steers a terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from csm_repl.errors import LineError
from csm_repl.events import Echo, EchoTurn, Event, LineDone, Notice, Stopped, Table
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
