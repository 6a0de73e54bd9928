"""What a training run reports. The display and the log turn it into text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "CheckpointSaved",
    "DataEvent",
    "Evaluated",
    "Finished",
    "LeftOut",
    "LeftOutTotal",
    "Note",
    "Reading",
    "Sampled",
    "SpeakerTable",
    "StepDone",
    "TrainEvent",
]


@dataclass(frozen=True)
class Reading:
    """How far the data are read and encoded."""

    n_done: int
    n_total: int
    """Utterances."""
    n_encoded: int
    """That were not in the cache."""
    sound_s: float
    """Of what can be used so far."""
    seconds: float
    """Since the start."""


@dataclass(frozen=True)
class LeftOut:
    """An utterance or a conversation that is not trained on."""

    name: str
    cause: str
    remedy: str = ""


@dataclass(frozen=True)
class Note:
    """A whole sentence for the user."""

    text: str


@dataclass(frozen=True)
class LeftOutTotal:
    """All that is not trained on, by reason."""

    n: int
    n_total: int
    """Items, with those that are left out."""
    reasons: tuple[tuple[str, int, str], ...]
    """A cause, how many have it, and the first of them; the most frequent one comes first."""


@dataclass(frozen=True)
class SpeakerTable:
    """Whose voice has which number."""

    rows: tuple[tuple[str, int, int], ...]
    """What the data call the speaker ('' for nobody in particular), the number, and how many utterances."""


DataEvent = Reading | LeftOut | LeftOutTotal | Note | SpeakerTable


@dataclass(frozen=True)
class StepDone:
    """One optimiser step."""

    step: int
    n_steps: int
    """Steps of the whole run, as far as is known now."""
    epoch: float
    loss: float
    backbone_loss: float
    """Cross entropy of codebook 0, nats."""
    depth_loss: float
    """Mean cross entropy of codebooks 1..K-1, nats."""
    accuracy: float
    """Share of the frames whose codebook 0 was the likeliest, teacher forced."""
    lr: float
    grad_norm: float
    """Before clipping."""
    n_items: int
    n_frames: int
    """Audio frames of this step."""
    seconds: float
    """Duration of this step."""


@dataclass(frozen=True)
class Evaluated:
    step: int
    loss: float
    backbone_loss: float
    depth_loss: float
    accuracy: float
    is_best: bool
    n_items: int
    seconds: float


@dataclass(frozen=True)
class Sampled:
    step: int
    path: Path
    text: str
    seconds: float
    """Of sound."""
    ended: bool
    """Whether the take ended by itself."""


@dataclass(frozen=True)
class CheckpointSaved:
    step: int
    path: Path
    kind: str
    """'state', 'best' or 'result'."""


@dataclass(frozen=True)
class Finished:
    step: int
    reason: str
    best_loss: float
    seconds: float


TrainEvent = StepDone | Evaluated | Sampled | CheckpointSaved | Finished
