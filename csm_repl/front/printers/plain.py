"""For pipes and logs: a path a line on stdout, everything else on stderr, where it may have colours."""

from __future__ import annotations

import contextlib
import json
from typing import Any, TextIO

from csm_repl.audio import output_error
from csm_repl.errors import CsmReplError, OutputError
from csm_repl.events import Echo, Event, LineDone, Notice, Stopped, Table, TurnDone
from csm_repl.front.printers.base import defused, report_line, speaker_color
from csm_repl.front.printers.progress import StatusLine

__all__ = ["JsonPrinter", "PlainPrinter"]


# ECMA-48's numbers: this runs where rich takes too long to import.
_STYLES = {"dim": 2, "red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36, "bright_blue": 94}


class PlainPrinter:
    """Results as paths.

    Args:
        out: receives results; None where stdout carries sound.
        err: receives the rest.
        quiet: only results and errors.
        verbose: details too.
        color: whether `err` gets colours; `out` never does.
        status: stands on the terminal that the rest is written to.
    """

    def __init__(
        self,
        out: TextIO | None,
        err: TextIO,
        *,
        quiet: bool = False,
        verbose: bool = False,
        color: bool = False,
        status: StatusLine | None = None,
    ) -> None:
        self._out = out
        self._err = err
        self._quiet = quiet
        self._verbose = verbose
        self._color = color
        self._status = status
        self.script: str | None = None
        """What to call the script that is being read, where there are several."""

    def say(self, text: str) -> None:
        if not self._quiet:
            self._note(text, "dim")

    def handle(self, event: Event, line: int) -> None:
        if isinstance(event, LineDone):
            self._result(event, line)
        elif isinstance(event, Table):
            self._table(event, line)
        elif isinstance(event, Stopped):
            self._note(event.text, "yellow")
        elif self._quiet:
            pass
        elif isinstance(event, Notice):
            if event.level != "detail" or self._verbose:
                self._note(event.text, {"warning": "yellow", "detail": "dim"}.get(event.level, ""))
        elif isinstance(event, Echo):
            for turn in event.turns:
                name = self._styled(defused(f"{turn.speaker} {turn.voice}"), speaker_color(turn.speaker))
                self._write(f"{name}: {defused(turn.text)}")
                if turn.said:
                    self._write(self._styled(f"  said: {defused(turn.said)}", "dim"))
        elif isinstance(event, TurnDone):
            name = self._styled(defused(event.file.name), speaker_color(event.speaker))
            style = "dim" if event.ended == "end" else "yellow"
            self._write(f"{name}: {self._styled(report_line(event), style)}")

    def error(self, error: CsmReplError, line: int | None = None) -> None:
        where = "" if line is None else f"{self.script}:{line}: " if self.script else f"input line {line}: "
        self._note(f"csm-repl: {where}{error}", "red")

    def track(self, file: str) -> None:
        """A speaker's track at the end of the run."""
        self._print(file)

    def _result(self, event: LineDone, line: int) -> None:
        self._print(str(event.file))

    def _table(self, table: Table, line: int) -> None:
        if not table.rows:
            self._note(table.empty)
            return
        for row in [table.columns, *table.rows]:
            text = "\t".join(defused(" ".join(cell.split())) for cell in row)
            self._write(self._styled(text, "dim") if row is table.columns else text)

    def _print(self, text: str) -> None:
        if self._out is None:
            return
        self._clear_status()
        try:
            print(text, file=self._out, flush=True)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error("stdout", error) from error

    def _note(self, text: str, style: str = "") -> None:
        self._write(self._styled(defused(text), style))

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._color and style else text

    def _clear_status(self) -> None:
        if self._status is not None:
            self._status.clear()

    def _write(self, text: str) -> None:
        self._clear_status()
        # A report that nobody can get is no reason to lose the take.
        with contextlib.suppress(OSError):
            print(text, file=self._err, flush=True)


class JsonPrinter(PlainPrinter):
    """Results as one JSON object a line, each with its `type` and the input line's number.

    A line that failed has one of type `error`, one that was stopped of type `stopped`.
    """

    def handle(self, event: Event, line: int) -> None:
        if isinstance(event, Stopped):
            self._object({"type": "stopped", "line": line, "text": event.text})
        super().handle(event, line)

    def error(self, error: CsmReplError, line: int | None = None) -> None:
        super().error(error, line)
        if line is not None:
            with contextlib.suppress(OutputError):  # that stdout fails may be what is told
                self._object(
                    {
                        "type": "error",
                        "line": line,
                        "error": error.cause,
                        "remedy": error.remedy,
                        "exit_code": int(error.exit_code),
                    }
                )

    def track(self, file: str) -> None:
        self._object({"type": "track", "file": file})

    def _result(self, event: LineDone, line: int) -> None:
        turns = [
            {
                "file": str(turn.file),
                "index": turn.index,
                "number": turn.number,
                **{k: v for k, v in turn.meta.items() if k != "file"},
            }
            for turn in event.turns
        ]
        self._object(
            {
                "type": "line",
                "line": line,
                "number": event.number,
                "file": str(event.file),
                "seconds": round(event.seconds, 4),
                "turns": turns,
            }
        )

    def _table(self, table: Table, line: int) -> None:
        self._object({"type": table.kind, "line": line, "rows": list(table.records)})

    def _object(self, value: dict[str, Any]) -> None:
        if self.script is not None and "line" in value:
            value = {"type": value["type"], "script": self.script, **value}
        self._print(json.dumps(value, ensure_ascii=False))
