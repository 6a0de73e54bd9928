"""What goes into the engine and what comes out of it: a request for a take, its frames, and its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from csm_repl.engine.sampling import SamplingOptions, TakeNoise

__all__ = ["Ended", "Frame", "PromptTooLongError", "TakeEnded", "TakeRequest"]

Ended = Literal["end", "cut", "context", "broken"]
"""The all-zero frame came, the ceiling was reached, no position is left, or the model gave NaN or infinity
for the frame after those that were handed out."""


class PromptTooLongError(ValueError):
    """The prompt leaves no room for a frame. Planning the context is the caller's business."""


@dataclass(frozen=True, eq=False)
class TakeRequest:
    """A take to be made."""

    prompt: torch.Tensor
    """Int64 [S, K + 1] on the CPU (see `prompt`)."""
    options: SamplingOptions = field(default_factory=SamplingOptions)
    seed: int = 0
    """The same prompt, options and seed give the same codes on one machine."""
    max_frames: int | None = None
    """Ceiling after which the take is cut; None: only the model's positions end it."""
    noise: TakeNoise | None = None
    """Goes on with the noise of an earlier take, in place of `options` and `seed`."""


@dataclass(frozen=True, eq=False)
class Frame:
    """The next frame of a take."""

    take: int
    """As `submit` called it."""
    codes: torch.Tensor
    """Int64 [K] on the CPU."""


@dataclass(frozen=True)
class TakeEnded:
    """A take is over, and what it took."""

    take: int
    ended: Ended
    n_frames: int
    n_prompt: int
    """Positions of the prompt."""
    n_prefilled: int
    """Those of them that had to be run."""
    prefill_s: float
    """Seconds in the backbone's passes over them."""
