"""Trims the silence at the end of a take while it streams.

Trailing silence is known only when nothing follows, so silence is held back until sound comes after it.
"""

from __future__ import annotations

import torch

__all__ = ["TailTrimmer"]

THRESHOLD = 10 ** (-50 / 20)
"""-50 dBFS peak: under the noise of a decoded pause (about -55), over none of the fricatives that end words
(-45 and louder in speech at usual level)."""
KEEP_S = 0.16
"""What stays of the silence, so that a last phoneme that fades below the threshold is whole: two frames."""


class TailTrimmer:
    """Passes samples [n] on as soon as they are known not to be trailing silence."""

    def __init__(self, rate: int) -> None:
        self._keep = int(KEEP_S * rate)
        self._held = torch.zeros(0)
        self._owed = 0
        """How much of the silence after the last sound may still go out."""
        self._heard = False

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [n] -> those that may go out now, [m]."""
        joined = torch.cat([self._held, samples])
        loud = (samples.abs() > THRESHOLD).nonzero()
        if len(loud):
            self._heard = True
            self._owed = self._keep
            sound = len(joined) - len(samples) + int(loud[-1]) + 1
        else:
            sound = 0
        silence = min(self._owed, len(joined) - sound) if self._heard else 0
        self._owed -= silence
        self._held = joined[sound + silence :]
        return joined[: sound + silence]

    def finish(self) -> torch.Tensor:
        """What still goes out: nothing, or all of a take that is silent throughout."""
        held, self._held = self._held, torch.zeros(0)
        return held[:0] if self._heard else held
