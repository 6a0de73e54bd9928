"""How far a run is, and the learning rate that goes with it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from csm_repl.train.options import TrainOptions

__all__ = ["PEAK_LR", "RunProgress", "learning_rate"]

PEAK_LR = {"lora": 2e-4, "full": 3e-5, "scratch": 1e-3}


@dataclass(frozen=True)
class RunProgress:
    """What a run has used of what it was given."""

    options: TrainOptions
    step: int
    epochs: float
    """Passes over the data."""
    seconds: float
    """Of all sittings together."""

    @property
    def share(self) -> float:
        """0 at the start, 1 at the end: the largest of the shares of steps (or epochs) and of time."""
        options = self.options
        if options.max_steps is not None:
            share = self.step / options.max_steps
        else:
            share = self.epochs / options.epochs if options.epochs > 0 else 1.0
        if options.max_minutes is not None:
            limit = 60 * options.max_minutes
            share = max(share, self.seconds / limit if limit > 0 else 1.0)
        return min(1.0, share)

    @property
    def n_steps(self) -> int:
        """Steps of the whole run, as far as is known now; 0: nothing is known yet."""
        if self.options.max_steps is not None and self.options.max_minutes is None:
            return self.options.max_steps
        return round(self.step / self.share) if self.share > 0 else 0

    @property
    def over(self) -> str | None:
        """Why the run is over, or None."""
        options = self.options
        if options.max_steps is not None and self.step >= options.max_steps:
            return f"all {options.max_steps} steps are done"
        if options.max_steps is None and self.epochs >= options.epochs:
            return f"all {options.epochs:g} epochs are done"
        if options.max_minutes is not None and self.seconds >= 60 * options.max_minutes:
            return f"the {options.max_minutes:g} minutes are up"
        return None


def learning_rate(progress: RunProgress) -> float:
    """Of the next step: linear warm-up times a cosine over the run's share."""
    options = progress.options
    peak = PEAK_LR[options.mode] if options.lr is None else options.lr
    warm = min(1.0, (progress.step + 1) / options.warmup_steps) if options.warmup_steps else 1.0
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress.share))
    return peak * warm * (options.final_lr_share + (1.0 - options.final_lr_share) * cosine)
