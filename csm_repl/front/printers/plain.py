"""For pipes and logs: a path a line on stdout, everything else on stderr, no colour."""

from __future__ import annotations

import json
from typing import Any, TextIO

from csm_repl.errors import CsmReplError
from csm_repl.events import Echo, Event, LineDone, Notice, Stopped, Table, TurnDone
from csm_repl.front.printers.base import defused, report_line

__all__ = ["JsonPrinter", "PlainPrinter"]


class PlainPrinter:
    """Results as paths.

    Args:
        out: receives results; None where stdout carries sound.
        err: receives the rest.
        quiet: only results and errors.
        verbose: details too.
    """

    def __init__(
        self, out: TextIO | None, err: TextIO, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        self._out = out
        self._err = err
        self._quiet = quiet
        self._verbose = verbose

    def say(self, text: str) -> None:
        if not self._quiet:
            self._note(text)

    def handle(self, event: Event, line: int) -> None:
        if isinstance(event, LineDone):
            self._result(event, line)
        elif isinstance(event, Table):
            self._table(event, line)
        elif isinstance(event, Stopped):
            self._note(event.text)
        elif self._quiet:
            pass
        elif isinstance(event, Notice):
            if event.level != "detail" or self._verbose:
                self._note(event.text)
        elif isinstance(event, Echo):
            for turn in event.turns:
                self._note(f"{turn.speaker} {turn.voice}: {turn.text}")
        elif isinstance(event, TurnDone):
            self._note(f"{event.file.name}: {report_line(event)}")

    def error(self, error: CsmReplError, line: int | None = None) -> None:
        where = f"input line {line}: " if line is not None else ""
        self._note(f"csm-repl: {where}{error}")

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
            self._write("\t".join(defused(" ".join(cell.split())) for cell in row))

    def _print(self, text: str) -> None:
        if self._out is not None:
            print(text, file=self._out, flush=True)

    def _note(self, text: str) -> None:
        self._write(defused(text))

    def _write(self, text: str) -> None:
        print(text, file=self._err, flush=True)


class JsonPrinter(PlainPrinter):
    """Results as one JSON object a line, each with its `type` and the input line's number."""

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
        self._print(json.dumps(value, ensure_ascii=False))
