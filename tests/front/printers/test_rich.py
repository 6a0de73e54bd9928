"""What the rich printer writes, with a console in memory."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from csm_repl.errors import LineError
from csm_repl.events import (
    Echo,
    EchoTurn,
    LineDone,
    Notice,
    Progress,
    Stopped,
    Table,
    TurnDone,
    TurnStarted,
)
from csm_repl.front.printers import defused
from csm_repl.front.printers.rich import RichPrinter, open_console, print_table, speaker_label


def _printer(width: int = 100, *, color: str = "never", **options: Any) -> tuple[RichPrinter, io.StringIO]:
    file = io.StringIO()
    console = open_console(color, file)
    console.width = width
    return RichPrinter(console, **options), file


def _turn(index: int = 0, n_turns: int = 1, ended: Any = "end") -> TurnDone:
    return TurnDone(
        index, n_turns, index, "anna", "Hi.", Path(f"outputs/run/001-{index + 1}.wav"),
        seconds=2.0, elapsed_s=1.0, first_audio_s=0.1, seed=7, ended=ended, meta={},
    )  # fmt: skip


REPORT = "2.00 s of audio in 1.00 s (RTF 0.50, first audio 0.10 s, seed 7)"


def test_a_line_of_one_turn_has_a_report_and_a_path() -> None:
    printer, file = _printer()
    printer.handle(Echo((EchoTurn(0, "anna", "Hi."),)), 1)
    printer.handle(_turn(), 1)
    printer.handle(LineDone(1, Path("outputs/run/001.wav"), 2.0, (_turn(),)), 1)
    assert [line.rstrip() for line in file.getvalue().splitlines()] == [
        "0 anna  Hi.",
        f"  {REPORT}",
        "  outputs/run/001.wav",
    ]


def test_several_turns_are_told_apart_by_their_files() -> None:
    printer, file = _printer()
    printer.handle(_turn(1, 2), 1)
    assert file.getvalue().rstrip() == f"  001-2.wav  {REPORT}"


def test_of_a_report_only_the_file_has_the_speaker_s_colour() -> None:
    printer, file = _printer(color="always")
    printer.handle(_turn(0, 2), 1)
    assert re.search(r"\x1b\[36m\S+\.wav  \x1b\[0m\x1b\[2m[\d.]+ s of audio", file.getvalue())


def test_a_stopped_take_names_its_file() -> None:
    printer, file = _printer()
    printer.handle(_turn(ended="interrupted"), 1)
    printer.handle(Stopped("Stopped."), 1)
    assert file.getvalue().splitlines()[0].startswith("  001-1.wav  2.00 s")
    assert file.getvalue().splitlines()[-1].rstrip() == "Stopped."


def test_text_is_not_markup_and_steers_nothing() -> None:
    printer, file = _printer(color="always")
    evil = "[bold]x[/bold] :smile: \x1b]0;title\x07 \u202e \x9b31m \udc80 a\nb\r c"
    printer.handle(Echo((EchoTurn(0, evil, evil),)), 1)
    printer.handle(Notice(evil), 1)
    printer.error(LineError(evil, evil))
    printer.handle(Table("t", evil, ("text",), ((evil,),), ({},)), 1)
    shown = file.getvalue()
    assert "[bold]x[/bold] :smile: \\x1b]0;title\\x07 \\u202e \\x9b31m \\udc80 a b  c" in shown
    assert not {"\x07", "\u202e", "\x9b", "\udc80", "\r"} & set(shown)
    assert "\x1b]" not in shown


def test_emoji_and_wide_characters_are_left_alone() -> None:
    text = "日本語 👩‍👩‍👧 é e\u0301 🇫🇷"
    assert defused(text) == text


@pytest.mark.parametrize("width", [20, 60, 100])
def test_no_line_of_an_echo_is_wider_than_the_terminal(width: int) -> None:
    printer, file = _printer(width)
    turns = (EchoTurn(0, "anna", "日本語" * 40 + "🙂" * 40), EchoTurn(12, "b" * 80, "word " * 40))
    printer.handle(Echo(turns), 1)
    console = Console()
    assert all(console.measure(line.rstrip()).maximum <= width for line in file.getvalue().splitlines())


def test_errors_are_one_paragraph() -> None:
    printer, file = _printer(width=400)
    printer.error(LineError("What is wrong.", "What to do."), 3)
    assert file.getvalue().rstrip() == "What is wrong. What to do."


def test_quiet_shows_results_and_errors_only() -> None:
    printer, file = _printer(quiet=True)
    printer.say("Loading.")
    printer.banner("csm-repl", [], ["Type."])
    printer.handle(Notice("Something.", "warning"), 1)
    printer.handle(Echo((EchoTurn(0, "anna", "Hi."),)), 1)
    printer.handle(TurnStarted(0, 1, 0, "anna", "Hi.", 7, 3.0), 1)
    printer.handle(_turn(), 1)
    printer.handle(LineDone(1, Path("outputs/run/001.wav"), 2.0, (_turn(),)), 1)
    printer.error(LineError("Wrong."))
    assert file.getvalue().splitlines() == ["outputs/run/001.wav", "Wrong."]


def test_verbose_shows_details() -> None:
    for verbose in (False, True):
        printer, file = _printer(verbose=verbose)
        printer.handle(Notice("A detail.", "detail"), 1)
        assert ("A detail." in file.getvalue()) is verbose


def test_the_live_line_shows_seconds_and_speed_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    printer, file = _printer(color="always")
    printer.handle(TurnStarted(1, 3, 1, "ben", "Hi.", 7, 6.5), 1)
    printer.handle(Progress(generated_s=2.0, elapsed_s=1.0), 1)
    live = printer._live
    assert live is not None
    live.refresh()
    printer.rest()
    assert printer._live is None
    shown = Console(file=io.StringIO()).render_str(file.getvalue()).plain
    for part in ("2/3 ", "1 ben", "2.0 s", "RTF 0.50", "at most 6.5 s"):
        assert part in shown
    # The cursor is shown again.
    assert file.getvalue().rstrip().endswith("\x1b[2K") or "\x1b[?25h" in file.getvalue()


@pytest.mark.parametrize(
    ("color", "variables", "colored"),
    [
        ("auto", {"TERM": "xterm"}, True),
        ("auto", {"TERM": "xterm", "NO_COLOR": "1"}, False),
        ("auto", {"TERM": "dumb"}, False),
        ("always", {"TERM": "xterm", "NO_COLOR": "1"}, True),
        ("always", {"TERM": "dumb"}, True),
        ("never", {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colours(
    monkeypatch: pytest.MonkeyPatch, color: str, variables: dict[str, str], colored: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    class Tty(io.StringIO):
        def isatty(self) -> bool:
            return True

    file = Tty()
    RichPrinter(open_console(color, file)).handle(Echo((EchoTurn(0, "anna", "Hi."),)), 1)
    assert ("\x1b[36m" in file.getvalue()) is colored


def test_a_name_that_says_the_number_is_not_numbered() -> None:
    assert speaker_label(3, "speaker 3") == "speaker 3"
    assert speaker_label(3, "anna") == "3 anna"
    assert speaker_label(3, "a" * 50) == "3 " + "a" * 19 + "…"
    assert cell_len(speaker_label(3, "日本語" * 10)) <= 22


def _table(text: str) -> Table:
    return Table(
        "voices",
        "Voices",
        ("speaker", "clip", "text"),
        (("0", "reference-anna.wav", text),),
        ({"speaker": 0},),
        empty="Nothing.",
    )


def test_a_table_for_a_pipe_is_neither_cut_nor_coloured(capsys: pytest.CaptureFixture[str]) -> None:
    text = "word " * 100 + "end"
    print_table(_table(text), color="auto")
    lines = capsys.readouterr().out.splitlines()
    assert [line.rstrip() for line in lines] == [
        "Voices",
        "speaker  clip                text",
        f"      0  reference-anna.wav  {text}",
    ]


def test_a_table_on_a_narrow_terminal_puts_the_text_under_its_row() -> None:
    printer, file = _printer(40)
    printer.handle(_table("word " * 20 + "end"), 1)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert lines[1:4] == ["speaker  clip", "  text", "0        reference-anna.wav"]
    assert " ".join(lines[4:]).split() == ["word"] * 20 + ["end"]
    assert max(map(len, lines)) <= 40


HISTORY = Table(
    "history",
    "History",
    ("#", "speaker", "voice", "seconds", "text", "file"),
    (("ref", "0", "anna", "1.0", "The first voice.", "reference-anna.wav"),
     ("12", "1", "日本語", "12.5", "Hello 👩‍👩‍👧 " + "日本語" * 20 + " and so on", "012-1.wav")),
    ({"speaker": 0}, {"speaker": 1}),
)  # fmt: skip
STATUS = Table(
    "status",
    "Status",
    ("what", "value", "from"),
    (("model", "sesame/csm-1b", ""), ("silence-threshold-db", "-45.0", "default"),
     ("output", "outputs/2026-11-26_183738", "")),
    ({}, {}, {}),
)  # fmt: skip
HELP = Table(
    "help",
    "Commands",
    ("command", "does"),
    (("$SET name value$", "changes a setting: temperature, top-k, seed, play"), ("$EXIT$", "leaves")),
    ({}, {}),
)  # fmt: skip
LONG_CLIP = Table(
    "voices",
    "Voices",
    ("speaker", "voice", "clip", "seconds", "transcript", "text"),
    (("0", "anna", "reference-" + "very-long-" * 5 + "name.wav", "1.0", "Whisper", "The first voice."),),
    ({"speaker": 0},),
)


@pytest.mark.parametrize("width", [12, 20, 40, 60, 80, 100])
@pytest.mark.parametrize("table", [HISTORY, STATUS, HELP, LONG_CLIP, _table("word " * 40)])
def test_no_line_of_a_table_is_wider_than_the_terminal(table: Table, width: int) -> None:
    printer, file = _printer(width)
    printer.handle(table, 1)
    assert max(cell_len(line.rstrip()) for line in file.getvalue().splitlines()) <= width


@pytest.mark.parametrize(
    ("table", "width", "columns"),
    [
        (HISTORY, 100, "# speaker voice seconds text file"),
        (HISTORY, 60, "# speaker voice text"),
        (HISTORY, 40, "# speaker voice"),
        (STATUS, 80, "what value from"),
        (STATUS, 40, "what value"),
        (HELP, 40, "command does"),
        (LONG_CLIP, 80, "speaker voice clip text"),
    ],
)
def test_a_narrow_terminal_loses_the_columns_that_say_least(table: Table, width: int, columns: str) -> None:
    printer, file = _printer(width)
    printer.handle(table, 1)
    assert file.getvalue().splitlines()[1].split() == columns.split()


@pytest.mark.parametrize("width", [40, 60, 80])
@pytest.mark.parametrize("ended", ["end", "interrupted", "cut", "context"])
@pytest.mark.parametrize("n_turns", [1, 12])
def test_a_report_keeps_to_its_lines(width: int, ended: str, n_turns: int) -> None:
    printer, file = _printer(width)
    turn = _turn(11, n_turns, ended)
    printer.handle(replace(turn, seconds=112.08, elapsed_s=140.5, seed=2**31), 1)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    # One line, or one more each for the reason and the remedy; the seed is never lost.
    assert len(lines) <= {"end": 1, "context": 2, "interrupted": 2, "cut": 3}[ended]
    assert "112.08 s" in lines[0]
    assert str(2**31) in lines[0]


def test_a_narrow_terminal_loses_the_time_to_first_audio_first() -> None:
    for width, report in (
        (76, REPORT),
        (60, "2.00 s of audio in 1.00 s (RTF 0.50, seed 7)"),
        (30, "2.00 s (RTF 0.50, seed 7)"),
        (20, "2.00 s, seed 7"),
    ):
        printer, file = _printer(width)
        printer.handle(_turn(), 1)
        assert file.getvalue().strip() == report
    printer, file = _printer(60)
    printer.handle(_turn(ended="cut"), 1)
    assert [line.strip() for line in file.getvalue().splitlines()] == [
        "2.00 s of audio (RTF 0.50, seed 7), cut at the ceiling",
        "$SET max-seconds off$ lifts it",
    ]


@pytest.mark.parametrize("width", [10, 24, 40, 80])
def test_the_live_line_fits(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    printer, file = _printer(width, color="always")
    printer.handle(TurnStarted(1, 3, 1, "日本語" * 10, "Hi.", 7, 6.5), 1)
    printer.handle(Progress(generated_s=2.0, elapsed_s=1.0), 1)
    printer.rest()
    (line,) = {text for text in _plain(file).split("\r") if "2/3" in text}
    assert cell_len(line.strip()) <= width
    assert ("Ctrl-C stops" in line) is (width >= 80)


def _plain(file: io.StringIO) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\n", "", file.getvalue())


def test_an_empty_table_says_so() -> None:
    printer, file = _printer()
    printer.handle(Table("t", "Title", ("a",), (), (), empty="Nothing to show."), 1)
    assert file.getvalue().rstrip() == "Nothing to show."
