"""The twelve voices of the corpus.

Four teachers, each at three sizes of head: the sound is resampled by `size`, which moves pitch and formants
together, and flite's duration stretch puts the tempo back (Festival's HTS voices have none, so a bigger head
speaks more slowly). The sizes are those at which pocketsphinx still understands the voice.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["VOICES", "Voice"]


@dataclass(frozen=True)
class Voice:
    name: str
    teacher: str
    """`flite/NAME` or `festival/NAME`."""
    size: float
    """Factor on all frequencies."""
    share: int = 2
    """Of the sentences: more for those that are heard better."""


VOICES = (
    Voice("hts-low", "festival/cmu_us_slt_arctic_hts", 0.93, 3),
    Voice("hts", "festival/cmu_us_slt_arctic_hts", 1.0, 3),
    Voice("hts-high", "festival/cmu_us_slt_arctic_hts", 1.07, 3),
    Voice("rms-low", "flite/rms", 0.92),
    Voice("rms", "flite/rms", 1.0),
    Voice("rms-high", "flite/rms", 1.12),
    Voice("awb-low", "flite/awb", 0.95, 1),
    Voice("awb", "flite/awb", 1.03, 1),
    Voice("awb-high", "flite/awb", 1.12, 1),
    Voice("kal-low", "flite/kal16", 0.94),
    Voice("kal", "flite/kal16", 1.03),
    Voice("kal-high", "flite/kal16", 1.12),
)
