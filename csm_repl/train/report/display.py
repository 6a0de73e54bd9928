"""Shows a run: a bar with figures at a terminal, plain lines elsewhere, or JSON. Results go to stdout, all
else to stderr.

The only part of `train` that writes to the terminal.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from csm_repl.settings import Settings
from csm_repl.terminal import defused, open_console, show, show_json, show_path
from csm_repl.train.events import (
    CheckpointSaved,
    Evaluated,
    Finished,
    LeftOut,
    LeftOutTotal,
    Note,
    Reading,
    Sampled,
    SpeakerTable,
    StepDone,
)
from csm_repl.train.report.log import LogFormatter, Pace, duration, speaker_lines

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__all__ = ["Display", "PlainDisplay", "open_display"]

_JSON_TYPES: dict[type, str] = {
    Reading: "reading",
    LeftOut: "left_out",
    LeftOutTotal: "left_out_total",
    Note: "note",
    StepDone: "step_done",
    Evaluated: "evaluated",
    Sampled: "sampled",
    SpeakerTable: "speakers",
    CheckpointSaved: "saved",
    Finished: "finished",
}
"""The names are part of the output, and do not follow the classes'."""
MAX_LEFT_OUT = 8
"""Up to this many, each thing left out gets a line; all are counted at the end."""
MAX_SPEAKERS = 20
"""Rows of the table of speakers."""


def open_display(settings: Settings, log_every: int) -> PlainDisplay:
    """The display that suits whatever stderr is."""
    arguments = {"quiet": settings.quiet, "verbose": settings.verbose}
    if settings.json:
        return JsonDisplay(sys.stdout, sys.stderr, log_every, **arguments)
    if sys.stderr is not None and sys.stderr.isatty() and not settings.quiet:
        console = open_console(settings.color, sys.stderr)
        if console.is_terminal and not console.is_dumb_terminal:
            return RichDisplay(sys.stdout, console, log_every, **arguments)
    return PlainDisplay(sys.stdout, sys.stderr, log_every, **arguments)


class PlainDisplay:
    """A line for each event that is worth one.

    Args:
        out: receives results.
        err: receives the rest.
        log_every: steps between two lines.
        quiet: only results.
        verbose: everything that is left out, and every save.
    """

    def __init__(
        self, out: TextIO, err: TextIO, log_every: int, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        self._out = out
        self._err = err
        self._quiet = quiet
        self._verbose = verbose
        self._log = LogFormatter(log_every)
        self._n_left_out = 0

    def say(self, text: str) -> None:
        if not self._quiet:
            self._line(text)

    def handle(self, event: object) -> None:
        if self._quiet or (
            isinstance(event, CheckpointSaved) and event.kind != "result" and not self._verbose
        ):
            return
        if isinstance(event, LeftOut):
            self._n_left_out += 1
            if self._n_left_out > MAX_LEFT_OUT and not self._verbose:
                return
        if isinstance(event, LeftOutTotal) and self._n_left_out <= 1:
            return  # it has been said
        if isinstance(event, SpeakerTable):
            for line in speaker_lines(event, None if self._verbose else MAX_SPEAKERS):
                self._line(line)
            return
        for line in self._log.lines(event):
            self._line(line)

    def result(self, path: Path) -> None:
        show_path(str(path), self._out)

    def close(self) -> None:
        """Removes the bar, if there is one."""

    def _line(self, text: str) -> None:
        show(text, self._err)


class JsonDisplay(PlainDisplay):
    """Every event as one object a line on stdout, with its `type`; sentences on stderr."""

    def handle(self, event: object) -> None:
        if isinstance(event, Reading) and event.n_done < event.n_total:
            return
        if dataclasses.is_dataclass(event) and not isinstance(event, type):
            self._object(_JSON_TYPES[type(event)], dataclasses.asdict(event))

    def result(self, path: Path) -> None:
        self._object("result", {"path": path})

    def _object(self, name: str, values: dict[str, Any]) -> None:
        # JSON has no infinity; a best loss that there is not yet is null.
        finite = {
            key: None if isinstance(value, float) and abs(value) == float("inf") else value
            for key, value in values.items()
        }
        show_json({"type": name, **finite}, self._out)


class RichDisplay(PlainDisplay):
    """A bar and the newest figures, updated in place; everything else scrolls above them."""

    def __init__(
        self, out: TextIO, console: Console, log_every: int, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        super().__init__(out, console.file, log_every, quiet=quiet, verbose=verbose)  # type: ignore[arg-type]
        self._console = console
        self._live: Live | None = None
        self._pace = Pace()
        self._held_out: float | None = None

    def handle(self, event: object) -> None:
        if isinstance(event, Reading):
            sound = f"{duration(event.sound_s)} of sound, {event.n_encoded:,} encoded now"
            self._show(self._bar(event.n_done, event.n_total, f"reading  {sound}"))
            if event.n_done == event.n_total:
                self.close()
                super().handle(event)
            return
        if isinstance(event, StepDone):
            self._pace.add(event)
            self._show(self._figures(event))
            return
        if isinstance(event, Evaluated):
            self._held_out = event.loss
        if isinstance(event, Finished):
            self.close()
        super().handle(event)

    def result(self, path: Path) -> None:
        self.close()
        super().result(path)

    def close(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def _line(self, text: str) -> None:
        from rich.text import Text

        self._console.print(Text(defused(text)), soft_wrap=True)

    def _show(self, content: RenderableType) -> None:
        if self._live is None:
            from rich.live import Live

            self._live = Live(content, console=self._console, transient=True, refresh_per_second=4)
            self._live.start()
        else:
            self._live.update(content)

    def _bar(self, n_done: int, n_total: int, text: str) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table as Grid
        from rich.text import Text

        grid = Grid.grid(expand=True, padding=(0, 1))
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        counts = Text(f"{n_done:,}/{n_total:,}")
        grid.add_row(ProgressBar(total=max(1, n_total), completed=n_done), counts)
        return Group(grid, Text(text, style="dim", no_wrap=True, overflow="ellipsis"))

    def _figures(self, event: StepDone) -> RenderableType:
        now = self._pace.now()
        parts = [
            f"loss {now.loss:.3f} = {now.backbone_loss:.3f} + {now.depth_loss:.3f}",
            f"accuracy {now.accuracy:.1%}",
            f"lr {event.lr:.1e}",
            f"{now.items_per_s:.1f} items/s",
        ]
        if now.eta_s is not None:
            parts.insert(3, f"{duration(now.eta_s)} left")
        if self._held_out is not None:
            parts.insert(1, f"held out {self._held_out:.3f}")
        return self._bar(event.step, event.n_steps, "  ".join(parts))


Display = PlainDisplay
"""What shows a run; the others derive from it."""
