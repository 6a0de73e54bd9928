"""What happens to a turn's samples between the codec and whoever hears them.

A stage is made anew for every turn, gets its samples in pieces of any length, and hands them on as soon as
they are final.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from csm_repl.speech.tail import TailTrimmer

__all__ = ["MakeStage", "Stage", "StageChain", "tail_trimmer"]


class Stage(Protocol):
    def push(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples float32 [n] -> those that are final now, [m]."""
        ...

    def finish(self) -> torch.Tensor:
        """The rest, [m]; nothing is pushed afterwards."""
        ...


MakeStage = Callable[[int], Stage]
"""Samples per second -> a fresh stage."""


class StageChain:
    """Stages one after the other, as one.

    Args:
        stages: in the order in which samples go through them; none: samples stay as they are.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        for stage in self._stages:
            samples = stage.push(samples)
        return samples

    def finish(self) -> torch.Tensor:
        rest = torch.zeros(0)
        for stage in self._stages:
            rest = torch.cat([stage.push(rest), stage.finish()])
        return rest


def tail_trimmer(rate: int) -> Stage:
    """Leaves out the silence at the end of a turn."""
    return TailTrimmer(rate)
