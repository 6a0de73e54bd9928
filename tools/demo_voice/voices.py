"""The twelve voices of the corpus.

Four flite voices, each at three sizes of head: the sound is resampled by `size`, which moves pitch and
formants together, and flite's duration stretch puts the tempo back. The sizes are those at which pocketsphinx
still understands the voice: slt at 1.10 and kal16 at 0.90 are not (word error rate 0.65).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLITE_RATE", "VOICES", "Voice"]

FLITE_RATE = 16_000


@dataclass(frozen=True)
class Voice:
    name: str
    flite: str
    size: float
    """Factor on all frequencies."""


VOICES = (
    Voice("slt-low", "slt", 0.90),
    Voice("slt", "slt", 1.0),
    Voice("slt-high", "slt", 1.06),
    Voice("rms-low", "rms", 0.92),
    Voice("rms", "rms", 1.0),
    Voice("rms-high", "rms", 1.12),
    Voice("awb-low", "awb", 0.95),
    Voice("awb", "awb", 1.03),
    Voice("awb-high", "awb", 1.12),
    Voice("kal-low", "kal16", 0.94),
    Voice("kal", "kal16", 1.03),
    Voice("kal-high", "kal16", 1.12),
)
