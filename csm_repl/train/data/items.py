"""What is trained on: conversations of encoded turns."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["EncodedTurn", "Item"]


@dataclass(frozen=True)
class EncodedTurn:
    """A turn whose sound is already codes."""

    speaker: int
    text: str
    codes: torch.Tensor
    """[K, T], int16: codes are below 2**15, and a data set of many hours is held in memory."""
    in_loss: bool = True
    """Whether its frames are learnt, or only give context to later turns."""

    @property
    def n_frames(self) -> int:
        return int(self.codes.shape[1])


@dataclass(frozen=True)
class Item:
    """One training sequence. A single utterance is a conversation of one turn."""

    name: str
    """Where it comes from, for messages."""
    turns: tuple[EncodedTurn, ...]

    @property
    def n_frames(self) -> int:
        return sum(turn.n_frames for turn in self.turns)
