"""For people at a terminal: colours, a live line while a turn is made, tables that fit the width.

Whatever comes from outside (what was typed, transcripts, file names) goes through `defused` and is never read
as markup.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.padding import Padding
from rich.spinner import Spinner
from rich.table import Table as Grid
from rich.text import Text

from csm_repl.errors import CsmReplError
from csm_repl.events import (
    Audio,
    Echo,
    Event,
    LineDone,
    Notice,
    Progress,
    Stopped,
    Table,
    TurnDone,
    TurnStarted,
)
from csm_repl.front.printers.base import defused, report_lines, speaker_color
from csm_repl.terminal import open_console

__all__ = ["RichPrinter", "open_console", "print_table", "speaker_color", "speaker_label"]

_LONGEST_VOICE = 20
_GAP = 2
_LEAST_TEXT = 16
"""A text column narrower than this cannot be read."""
_LEAST_LONG_TEXT = 24
_LONG_TEXT = 48
_TEXT_COLUMNS = ("text", "value", "does")
"""Tables have one of these; it is wrapped, and gets what the others leave."""
_DISPENSABLE = ("transcript", "seconds", "file", "from")
"""Columns that a narrow terminal loses, the first ones first."""


def speaker_label(speaker: int, voice: str) -> str:
    """Number and name; the name alone where it says the number."""
    name = defused(voice)
    if name == f"speaker {speaker}":
        return name
    return f"{speaker} {_fitted(name, _LONGEST_VOICE)}"


def print_table(table: Table, *, color: str) -> None:
    """A table on stdout: fitted to a terminal, in full width anywhere else."""
    console = open_console(color)
    if not sys.stdout.isatty():
        console.width = max(80, sum(_widths(table).values()) + _GAP * len(table.columns))
    _print_table(console, table)


class RichPrinter:
    """Shows events to somebody at a terminal.

    Args:
        console: see `open_console`.
        quiet: only results and errors.
        verbose: details too.
    """

    def __init__(self, console: Console, *, quiet: bool = False, verbose: bool = False) -> None:
        self.console = console
        self._quiet = quiet
        self._verbose = verbose
        self._live: Live | None = None
        self._turn: _LiveTurn | None = None

    @property
    def _animates(self) -> bool:
        return self.console.is_terminal and not self.console.is_dumb_terminal and not self._quiet

    def say(self, text: str) -> None:
        if not self._quiet:
            self._print(Text(defused(text), style="dim"))

    def handle(self, event: Event, line: int) -> None:
        if isinstance(event, Audio | Progress):
            self._show_progress(event)
            return
        if isinstance(event, TurnStarted):
            self._start_turn(event)
            return
        if isinstance(event, TurnDone | LineDone | Stopped):
            self.rest()
        if isinstance(event, LineDone):
            self._print_path(str(event.file))
        elif isinstance(event, Table):
            _print_table(self.console, event)
        elif isinstance(event, Stopped):
            self._print(Text(defused(event.text), style="yellow"))
        elif self._quiet:
            pass
        elif isinstance(event, Notice):
            self._print_notice(event)
        elif isinstance(event, Echo):
            self._print(_echo(event))
        elif isinstance(event, TurnDone):
            self._print_report(event)

    def error(self, error: CsmReplError, line: int | None = None) -> None:
        self.rest()
        text = Text(defused(error.cause), style="red")
        if error.remedy:
            text.append(f" {defused(error.remedy)}", style="not red default")
        self._print(text)

    def track(self, file: str) -> None:
        self._print_path(file)

    def traceback(self, text: str) -> None:
        """For --debug."""
        self.rest()
        for line in text.splitlines():
            self._print(Text(defused(line), style="dim"))

    def banner(self, title: str, speakers: Sequence[tuple[int, str]], hints: Sequence[str]) -> None:
        """What is loaded, who speaks, and what to do now."""
        if self._quiet:
            return
        self._print(Text(defused(title), style="bold"))
        if speakers:
            labels = [Text(speaker_label(*pair), style=speaker_color(pair[0])) for pair in speakers]
            self._print(Text("Voices: ") + Text(", ").join(labels))
        for hint in hints:
            self._print(Text(defused(hint), style="dim"))

    def place(self, number: int, n_lines: int, command: str) -> None:
        """Which line of a block comes now; a command's text too, which nothing else repeats."""
        if not self._quiet:
            text = defused(f"{number}/{n_lines}  {command}").rstrip()
            self._print(Text(text, style="dim", no_wrap=True, overflow="ellipsis"))

    def gap(self) -> None:
        """An empty line, between what was shown and the next prompt."""
        if not self._quiet:
            self.console.print()

    def bell(self) -> None:
        """Rings the terminal's bell."""
        self.console.bell()

    @contextlib.contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """A spinner as long as the block runs. What is printed meanwhile stands above it."""
        if not self._animates:
            yield
            return
        with self._open_live(Spinner("dots", Text(defused(text), style="dim"))):
            yield

    @contextlib.contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A line that stands still as long as the block runs, and that progress bars may write over."""
        if not self._animates:
            yield
            return
        file = self.console.file
        self.console.print(Text(defused(text), style="dim"), end="\r", no_wrap=True, overflow="ellipsis")
        file.flush()
        try:
            yield
        finally:
            file.write("\r\x1b[2K")
            file.flush()

    def rest(self) -> None:
        """Takes the live line away. To be called before anything else writes to the terminal."""
        live, self._live, self._turn = self._live, None, None
        if live is not None:
            live.stop()

    # --- the live line --------------------------------------------------------------------------------

    def _start_turn(self, event: TurnStarted) -> None:
        self.rest()
        if self._animates:
            self._turn = _LiveTurn(event)
            self._live = self._open_live(self._turn)
            self._live.start()

    def _show_progress(self, event: Audio | Progress) -> None:
        if self._turn is not None:
            self._turn.generated_s, self._turn.elapsed_s = event.generated_s, event.elapsed_s

    def _open_live(self, content: RenderableType) -> Live:
        return Live(content, console=self.console, transient=True, refresh_per_second=10)

    # --- what stays -----------------------------------------------------------------------------------

    def _print(self, content: RenderableType) -> None:
        self.console.print(content)

    def _print_path(self, path: str) -> None:
        # Not wrapped by rich: a path that the terminal breaks can still be selected as one.
        text = Text(defused(path), style="" if self._quiet else "bold")
        self.console.print(text if self._quiet else Text("  ") + text, soft_wrap=True)

    def _print_notice(self, event: Notice) -> None:
        if event.level == "detail" and not self._verbose:
            return
        style = "yellow" if event.level == "warning" else "dim" if event.level == "detail" else ""
        self._print(Text(defused(event.text), style=style))

    def _print_report(self, event: TurnDone) -> None:
        style = "dim" if event.ended == "end" else "yellow"
        # The only turn's file is the line's, which comes next; a stopped turn is followed by no line.
        names_file = event.n_turns > 1 or event.ended == "interrupted"
        file = Text(f"{event.file.name}  " if names_file else "", style=speaker_color(event.speaker))
        room = self.console.width - _GAP - file.cell_len
        reports = list(report_lines(event))
        report, *others = next((lines for lines in reports if cell_len(lines[0]) <= room), reports[-1])
        self._print(Padding(file + Text(report, style=style), (0, 0, 0, _GAP)))
        for line in others:
            self._print(Padding(Text(line, style=style), (0, 0, 0, 2 * _GAP)))


class _LiveTurn:
    """The line that shows a turn while it is made; rich renders it anew ten times a second."""

    def __init__(self, event: TurnStarted) -> None:
        self._event = event
        self._spinner = Spinner("dots")
        self.generated_s = 0.0
        self.elapsed_s = 0.0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        event = self._event
        who = Text(speaker_label(event.speaker, event.voice), style=speaker_color(event.speaker))
        if event.n_turns > 1:
            who = Text(f"{event.index + 1}/{event.n_turns} ", style="dim") + who
        parts = {"who": who, "seconds": Text(f"{self.generated_s:.1f} s")}
        if self.generated_s:
            parts["speed"] = Text(f"RTF {self.elapsed_s / self.generated_s:.2f}")
        if event.ceiling_s is not None:
            parts["ceiling"] = Text(f"at most {event.ceiling_s:.1f} s", style="dim")
        parts["keys"] = Text("Ctrl-C stops", style="dim")
        for least_useful in (None, "ceiling", "speed", "keys"):
            parts.pop(str(least_useful), None)
            text = Text(" " * _GAP).join(parts.values())
            if text.cell_len + _GAP <= options.max_width:
                break
        spinner = Text.assemble(self._spinner.render(time.monotonic()), " ")  # type: ignore[arg-type]
        line = spinner + text
        line.truncate(options.max_width, overflow="ellipsis")
        yield line


def _echo(event: Echo) -> RenderableType:
    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for turn in event.turns:
        label = Text(speaker_label(turn.speaker, turn.voice), style=speaker_color(turn.speaker))
        grid.add_row(label, Text(defused(turn.text)))
        if turn.said:
            grid.add_row(Text("said", style="dim", justify="right"), Text(defused(turn.said), style="dim"))
    return grid


def _print_table(console: Console, table: Table) -> None:
    if not table.rows:
        console.print(Text(defused(table.empty)))
        return
    console.print(Text(defused(table.title), style="bold"))
    widths = _widths(table)
    flexible = next((name for name in _TEXT_COLUMNS if name in widths), max(widths, key=lambda n: widths[n]))
    natural = widths.pop(flexible)
    least = min(natural, _LEAST_LONG_TEXT if natural > _LONG_TEXT else _LEAST_TEXT)
    for beside in _fewer_and_fewer(widths, console.width):
        room = console.width - sum(beside.values()) - _GAP * len(beside)
        if room >= least:
            shown = [name for name in table.columns if name in beside or name == flexible]
            console.print(_grid(table, shown, {**beside, flexible: min(natural, room)}))
            return
    _print_stacked(console, table, widths, flexible)


def _fewer_and_fewer(widths: dict[str, int], width: int) -> Iterator[dict[str, int]]:
    """What may stand beside the text: all columns, then without those that can be spared, then folded."""
    yield widths
    for name in _DISPENSABLE:
        if widths.pop(name, None) is not None:
            yield widths
    yield {name: min(natural, width // 3) for name, natural in widths.items()}


def _print_stacked(console: Console, table: Table, widths: dict[str, int], below: str) -> None:
    """One column's cells under their rows, for a terminal too narrow to have them beside."""
    while sum(widths.values()) + _GAP * (len(widths) - 1) > console.width > 2 * _GAP * len(widths):
        widths[max(widths, key=lambda name: widths[name])] -= 1
    for row in [table.columns, *table.rows]:
        style = "dim" if row is table.columns else ""
        cells = {name: defused(cell) for name, cell in zip(table.columns, row, strict=True)}
        beside = [set_cell_size(_fitted(cells[name], width), width) for name, width in widths.items()]
        line = Text((" " * _GAP).join(beside).rstrip(), style=style, no_wrap=True, overflow="crop")
        console.print(line)
        console.print(Padding(Text(cells[below], style=style, overflow="fold"), (0, 0, 0, _GAP)))


def _widths(table: Table) -> dict[str, int]:
    return {
        name: max(cell_len(defused(row[index])) for row in [table.columns, *table.rows])
        for index, name in enumerate(table.columns)
    }


def _grid(table: Table, shown: list[str], widths: dict[str, int]) -> Grid:
    grid = Grid(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    for name in shown:
        index = table.columns.index(name)
        is_numeric = all(_is_number(row[index]) for row in table.rows)
        grid.add_column(name, width=widths[name], overflow="fold", justify="right" if is_numeric else "left")
    for row, record in zip(table.rows, table.records, strict=True):
        speaker = record.get("speaker")
        color = speaker_color(speaker) if isinstance(speaker, int) else ""
        cells = dict(zip(table.columns, row, strict=True))
        grid.add_row(*(Text(defused(cells[name]), style=color if name == "voice" else "") for name in shown))
    return grid


def _fitted(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).isdigit()
