"""A turn between its submission and its end: what was made of it, and what is still to come."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch

from csm_repl.codec import chunk_sizes
from csm_repl.engine import TakeNoise
from csm_repl.session.context import ContextSpan
from csm_repl.session.conversation import Piece
from csm_repl.speech.request import Cue, HowItEnded, TurnPiece, TurnRequest
from csm_repl.speech.stages import StageChain
from csm_repl.text.pauses import Pause

__all__ = ["OpenTurn", "Stretch"]


@dataclass
class Stretch:
    """What is said in one go of the codec."""

    first_frame: int = 0
    first_sample: int = 0
    n_samples: int | None = None
    """Once it is over."""
    starts: list[tuple[str, int]] = field(default_factory=list)
    """The pieces' texts and first frames."""


class OpenTurn:
    """A turn between its submission and its end."""

    def __init__(
        self, number: int, request: TurnRequest, queue: deque[Any] | None, noise: TakeNoise, rate: int
    ) -> None:
        self.number = number
        self.request = request
        self.queue = queue
        """Where its events go; None: to whoever calls `step`."""
        self.noise = noise
        self.context = request.context
        self.left = deque(request.pieces)
        """Pieces that are not over, the one being said included."""
        self.room = 0
        """Positions that the next plan keeps free for the piece being said."""
        self.take: int | None = None
        """The engine's name of what is being generated."""
        self.slot: int | None = None
        """Of the codec's streams."""
        self.piece_frames: list[torch.Tensor] = []
        """Of the piece being said, each int64 [K]."""
        self.frames: list[torch.Tensor] = []
        self.pending: list[torch.Tensor] = []
        """Frames that were not decoded yet."""
        self.decoded: deque[torch.Tensor] = deque()
        """Samples that have not gone through the stages yet."""
        self.slot_broken = False
        """A pass failed in the codec's slot, so what it held has to be made anew."""
        self.flushed = False
        self.sizes = chunk_sizes()
        self.chunk = next(self.sizes)
        self.rate = rate
        self.stages = StageChain([make(rate) for make in request.stages])
        self.out: list[torch.Tensor] = []
        self.said: list[Piece] = []
        self.heard_own: list[Piece] = []
        """Those of `said` that are still in the context."""
        self.stretches = [Stretch()]
        """What is said between pauses."""
        self.ended: HowItEnded = "end"
        self.over = False
        """No further frame is made."""
        self.dropped: tuple[tuple[ContextSpan, str], ...] = ()
        self.left_out: frozenset[Hashable] | None = None
        self.elapsed_s = 0.0
        self.first_audio_s = 0.0
        self.prefill_s = 0.0
        self.n_prefilled = 0
        self.n_prompt = 0

    @property
    def piece(self) -> TurnPiece | Pause:
        return self.left[0]

    @property
    def at_pause(self) -> bool:
        """Whether silence is next, once what was said before it is out."""
        return not self.over and isinstance(self.left[0], Pause)

    @property
    def n_samples(self) -> int:
        """Of what has gone out."""
        return sum(map(len, self.out))

    def max_frames(self) -> int | None:
        """Frames that the piece being said may still get; None: no ceiling."""
        ceilings = []
        if self.request.max_frames is not None:
            ceilings.append(self.request.max_frames - len(self.frames))
        if isinstance(self.piece, TurnPiece) and self.piece.max_frames is not None:
            ceilings.append(self.piece.max_frames - len(self.piece_frames))
        return min(ceilings, default=None)

    def end_piece(self, ended: HowItEnded) -> None:
        """The piece being said is over."""
        piece = self.left.popleft()
        assert isinstance(piece, TurnPiece)
        if self.piece_frames:
            said = Piece(piece.text, piece.ids, torch.stack(self.piece_frames, dim=1))
            self.said.append(said)
            self.heard_own.append(said)
        self.piece_frames = []
        self.take = None
        if ended != "end":
            self.ended = ended
        # A ceiling of the piece's own cuts the piece; the turn's cuts the turn.
        cuts_turn = self.request.max_frames is not None and len(self.frames) >= self.request.max_frames
        self.over = not self.left or ended == "context" or cuts_turn

    def end_stretch(self) -> None:
        """All samples of what is said before the pause, or before the end, are out."""
        self.stretches[-1].n_samples = self.n_samples - self.stretches[-1].first_sample

    def begin_stretch(self) -> None:
        """The pause is over."""
        self.stages = StageChain([make(self.rate) for make in self.request.stages])
        self.stretches.append(Stretch(len(self.frames), self.n_samples))
        self.flushed = False

    def cues(self, samples_per_frame: int) -> Iterator[Cue]:
        """One for each piece that was begun."""
        ends = [*(stretch.first_frame for stretch in self.stretches[1:]), len(self.frames)]
        for stretch, end_frame in zip(self.stretches, ends, strict=True):
            n_samples = stretch.n_samples
            if n_samples is None:
                n_samples = self.n_samples - stretch.first_sample
            bounds = [
                stretch.first_sample + min((frame - stretch.first_frame) * samples_per_frame, n_samples)
                for frame in (*(first for _, first in stretch.starts), end_frame)
            ]
            texts = [text for text, _ in stretch.starts]
            for text, (start, end) in zip(texts, pairwise(bounds), strict=True):
                yield Cue(text, start, end)
