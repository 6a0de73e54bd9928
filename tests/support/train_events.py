"""Events of a run that has not been."""

from __future__ import annotations

from csm_repl.train.events import Evaluated, StepDone


def step(number: int, loss: float = 3.0) -> StepDone:
    return StepDone(
        step=number, n_steps=100, epoch=number / 50, loss=loss, backbone_loss=loss / 3,
        depth_loss=2 * loss / 3, accuracy=0.25, lr=1e-4, grad_norm=1.5, n_items=4, n_frames=200, seconds=0.5,
    )  # fmt: skip


def evaluated(number: int, loss: float = 3.5) -> Evaluated:
    return Evaluated(number, loss, 1.5, 2.0, 0.2, is_best=True, n_items=3, seconds=1.0)
