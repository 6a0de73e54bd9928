"""The saved state of a run: what it needs to go on as if it had never stopped.

All randomness in a run comes from its seed and step, so no generator's state is kept.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from csm_repl.errors import TrainingError
from csm_repl.train.files import write_atomically

__all__ = ["RunState", "load_state", "save_state"]

_FORMAT = 1
_NEW_RUN = "Give another folder with --out, or remove it to start anew."


@dataclass
class RunState:
    """Where a run stands, beside its weights."""

    step: int = 0
    epoch: int = 0
    """Epoch and number of the batch that comes next."""
    index: int = 0
    seconds: float = 0.0
    best_loss: float = float("inf")
    n_worse: int = 0
    """Evaluations since the best one."""
    evaluated: int = -1
    """Step of the last evaluation."""


def save_state(
    path: Path,
    run: RunState,
    *,
    mode: str,
    data: int,
    weights: dict[str, torch.Tensor],
    optimiser: dict[str, Any],
    average: dict[str, torch.Tensor] | None,
) -> None:
    """Replaces the file at `path`; TrainingError where that fails, and the older file stays.

    Args:
        path: the file.
        run: where the run stands.
        mode: as in the options.
        data: fingerprint of the data.
        weights: what is trained.
        optimiser: the optimiser's `state_dict()`.
        average: the averaged weights, if there are any.
    """
    content = {
        "format": _FORMAT,
        "run": asdict(run),
        "mode": mode,
        "data": data,
        "weights": weights,
        "optimiser": optimiser,
        "average": average,
    }
    write_atomically(path, lambda temporary: torch.save(content, temporary))


def load_state(path: Path, *, mode: str, data: int, shapes: dict[str, torch.Size]) -> dict[str, Any] | None:
    """The saved content with `run` as a RunState, tensors on the CPU; None where there is no file.

    Raises:
        TrainingError: the file is damaged, or of a run with another mode, model or other data.
    """
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = {name: value.shape for name, value in content["weights"].items()}
        saved_format, saved_mode, saved_data = content["format"], content["mode"], content["data"]
        content["run"] = RunState(**content["run"])
    except Exception as error:  # torch raises half a dozen kinds here
        raise TrainingError(f"The saved state {path} is damaged or of another version.", _NEW_RUN) from error
    if saved_format != _FORMAT:
        raise TrainingError(f"The saved state {path} is of another version of csm-repl.", _NEW_RUN)
    if saved_mode != mode or found != shapes:
        raise TrainingError(
            f"{path.parent} holds a run that trains another model or in another way.", _NEW_RUN
        )
    if saved_data != data:
        raise TrainingError(f"{path.parent} holds a run on other data.", _NEW_RUN)
    return dict(content)
