"""A turn as values: what is to be said, after what, and what came of it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

from csm_repl.engine import SamplingOptions, build_prompt
from csm_repl.session.context import ContextSpan
from csm_repl.session.conversation import Piece
from csm_repl.speech.stages import MakeStage
from csm_repl.text.pauses import Pause

__all__ = [
    "Context",
    "ContextPlan",
    "Cue",
    "FixedContext",
    "HowItEnded",
    "TakeTimings",
    "TurnPiece",
    "TurnRequest",
    "TurnResult",
]

HowItEnded = Literal["end", "cut", "context", "interrupted"]
"""By itself, at the ceiling, because no position was left, or because it was stopped."""


@dataclass(frozen=True, eq=False)
class ContextPlan:
    """The prompt for a piece, and what leaves the context for it."""

    prompt: torch.Tensor
    """Int64 [S, K + 1]."""
    dropped: tuple[tuple[ContextSpan, str], ...] = ()
    """What leaves and why, as in `Plan`. Its keys are `Piece`s, and paths of clips."""
    left_out: frozenset[Hashable] = frozenset()
    """All clips that are out, for the plan after this one."""

    @property
    def gone(self) -> frozenset[Hashable]:
        """Keys of what leaves."""
        return frozenset(span.key for span, _ in self.dropped)


class Context(Protocol):
    """What a turn hears. A value: planning changes nothing."""

    @property
    def min_room(self) -> int:
        """Positions for frames without which a piece is not begun."""
        ...

    def plan(
        self, own: Sequence[Piece], ids: Sequence[int], begun: torch.Tensor | None, room: int
    ) -> ContextPlan:
        """The prompt for a piece.

        Args:
            own: pieces of the same turn before it that are still in the context.
            ids: its text ids.
            begun: its codes [K, T] so far; generation goes on after them.
            room: positions to keep free for what is still to come.
        """
        ...

    def after(self, plan: ContextPlan) -> Context:
        """What is heard once that plan holds."""
        ...


@dataclass(frozen=True, eq=False)
class FixedContext:
    """Segments that all stay, as callers of the Python API give them."""

    segments: tuple[tuple[Sequence[int], torch.Tensor], ...]
    """Text ids and codes [K, T] of each."""
    n_codebooks: int
    min_room: int = 1

    def plan(
        self, own: Sequence[Piece], ids: Sequence[int], begun: torch.Tensor | None, room: int
    ) -> ContextPlan:
        spoken = [(piece.text_ids, piece.codes) for piece in own]
        return ContextPlan(build_prompt([*self.segments, *spoken], ids, self.n_codebooks, begun=begun))

    def after(self, plan: ContextPlan) -> FixedContext:
        return self


@dataclass(frozen=True)
class TurnPiece:
    """A part of a turn that is said in one go."""

    text: str
    ids: tuple[int, ...]
    room: int
    """Positions to keep free for its frames."""
    max_frames: int | None
    """Ceiling for this piece; None: only the turn's."""


@dataclass(frozen=True, eq=False)
class TurnRequest:
    """A turn to be spoken."""

    pieces: tuple[TurnPiece | Pause, ...]
    """In order; at least one. The sound ends before a pause, and begins anew behind it."""
    context: Context
    options: SamplingOptions = field(default_factory=SamplingOptions)
    seed: int = 0
    max_frames: int | None = None
    """Ceiling for all pieces together; None: only each piece's."""
    stages: tuple[MakeStage, ...] = ()
    """What the samples go through."""


@dataclass(frozen=True)
class TakeTimings:
    """Seconds of work (the listener's time is not in them) and positions.

    Beside other turns, the work is that for all of them.
    """

    elapsed_s: float = 0.0
    first_audio_s: float = 0.0
    prefill_s: float = 0.0
    n_prefilled: int = 0
    n_prompt: int = 0


@dataclass(frozen=True)
class Cue:
    """Which samples say which text."""

    text: str
    start: int
    end: int
    """Exclusive; both count in the turn's samples."""


@dataclass(frozen=True, eq=False)
class TurnResult:
    """What came of a turn."""

    pieces: tuple[Piece, ...]
    """What was said to its end, for the conversation."""
    n_pieces_out: int
    """How many of the first ones have left the context: a long turn pushes its own beginning out."""
    samples: torch.Tensor
    """What went out, float32 [N], pauses included."""
    codes: torch.Tensor
    """All frames, int64 [K, T]; trimmed silence is in them, pauses are not."""
    cues: tuple[Cue, ...]
    """One for each piece that was begun, in order."""
    ended: HowItEnded
    timings: TakeTimings
    dropped: tuple[tuple[ContextSpan, str], ...] = ()
    """What has left the context for it, as in `ContextPlan`, in order."""
    left_out: frozenset[Hashable] | None = None
    """As in `ContextPlan`; None: nothing was planned."""

    @property
    def gone(self) -> frozenset[Hashable]:
        """Keys of what has left."""
        return frozenset(span.key for span, _ in self.dropped)
