"""Scalars for TensorBoard. Its package is optional, and imported only here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csm_repl.errors import UsageError
from csm_repl.train.events import Evaluated, StepDone
from csm_repl.train.report.metrics import metrics_row

__all__ = ["TensorBoardWriter"]


class TensorBoardWriter:
    """Writes event files into `folder`.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "--tensorboard needs TensorBoard, which is not installed.",
                "Install it with: pip install tensorboard",
            ) from error
        self._open: Any = SummaryWriter
        self._folder = folder
        self._writer: Any = None

    def add(self, event: StepDone | Evaluated) -> None:
        if self._writer is None:
            # A run that goes on does some steps again; TensorBoard forgets the first time.
            self._writer = self._open(str(self._folder), purge_step=event.step)
        group = "training" if isinstance(event, StepDone) else "held_out"
        for name, value in metrics_row(event).items():
            if name != "step":
                self._writer.add_scalar(f"{group}/{name.removeprefix('held_out_')}", value, event.step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
