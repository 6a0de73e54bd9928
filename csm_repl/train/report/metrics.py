"""`metrics.csv`: one row a step, and one an evaluation of the held-out items.

A row is written when its step is done, so a killed run has all of them. A run that goes on from an earlier
state drops the rows of the steps that it does again.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from csm_repl.audio import output_error, write_bytes_atomic
from csm_repl.train.events import Evaluated, StepDone

__all__ = ["COLUMNS", "MetricsFile", "MetricsRow", "metrics_row", "read_metrics"]

COLUMNS = (
    "step",
    "epoch",
    "loss",
    "backbone_loss",
    "depth_loss",
    "accuracy",
    "lr",
    "grad_norm",
    "n_items",
    "n_frames",
    "seconds",
    "held_out_loss",
    "held_out_backbone_loss",
    "held_out_depth_loss",
    "held_out_accuracy",
)

MetricsRow = dict[str, float]
"""Column -> value; a row of a step has no held-out values, and the other way round."""


def metrics_row(event: StepDone | Evaluated) -> MetricsRow:
    if isinstance(event, StepDone):
        return {name: getattr(event, name) for name in COLUMNS[:11]}
    return {
        "step": event.step,
        "held_out_loss": event.loss,
        "held_out_backbone_loss": event.backbone_loss,
        "held_out_depth_loss": event.depth_loss,
        "held_out_accuracy": event.accuracy,
    }


def read_metrics(path: Path) -> list[MetricsRow]:
    """The rows of a `metrics.csv`; a line that was cut off by a kill is left out."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise output_error(path, error if isinstance(error, OSError) else OSError(str(error))) from error
    whole = text[: text.rfind("\n") + 1]
    rows = []
    for values in csv.reader(io.StringIO(whole)):
        if len(values) != len(COLUMNS) or values[0] == COLUMNS[0]:
            continue
        try:
            rows.append({name: float(value) for name, value in zip(COLUMNS, values, strict=True) if value})
        except ValueError:
            continue
    return rows


class MetricsFile:
    """`metrics.csv`, open for the rows of one run.

    Args:
        path: the file.
        fresh: a new run, which forgets the rows of an earlier one.

    Raises (everything here):
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.rows: list[MetricsRow] = [] if fresh else read_metrics(path)
        """All that the file holds."""
        self._path = path
        self._began = False

    def add(self, event: StepDone | Evaluated) -> None:
        row = metrics_row(event)
        if not self._began:
            self._begin(event)
            self._began = True
        self.rows.append(row)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(_line(row))
        except OSError as error:
            raise output_error(self._path, error) from error

    def _begin(self, event: StepDone | Evaluated) -> None:
        """Keeps the rows before the first of this run; an evaluation comes after the step that it follows."""
        same = "loss" if isinstance(event, StepDone) else "held_out_loss"
        self.rows = [
            row
            for row in self.rows
            if row["step"] < event.step or (row["step"] == event.step and same not in row and same != "loss")
        ]
        text = ",".join(COLUMNS) + "\n" + "".join(map(_line, self.rows))
        write_bytes_atomic(self._path, text.encode(), replace=True)


def _line(row: MetricsRow) -> str:
    # Seven digits are all that float32 has.
    return ",".join(f"{row[name]:.7g}" if name in row else "" for name in COLUMNS) + "\n"
