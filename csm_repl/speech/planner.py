"""The context of a turn as a prompt: the voices' clips, the conversation, and what the turn has said so far.

Planning is a function of values. Who commits a turn, commits what left the context for it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, replace

import torch

from csm_repl.engine import build_prompt, spoken_text
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.session.context import ContextSpan, plan_context
from csm_repl.session.conversation import Piece
from csm_repl.speech.pieces import (
    MIN_PIECE_POSITIONS,
    PIECE_POSITIONS,
    ceiling_frames,
    room_frames,
    split_turn,
)
from csm_repl.speech.request import ContextPlan, TurnPiece
from csm_repl.text.pauses import Pause, split_pauses
from csm_repl.voices import Clip

__all__ = ["Heard", "PlannedContext", "Planner"]

MIN_ROOM = 16
"""A context that cannot give this many frames ends the take."""
_TURN_BEGUN = "this turn"


@dataclass(frozen=True)
class Heard:
    """What a turn can hear."""

    clips: tuple[Clip, ...]
    """Of all voices, as the line found them."""
    spans: tuple[ContextSpan, ...] = ()
    """Of the conversation; their keys are `Piece`s."""
    left_out: frozenset[Hashable] = frozenset()
    """Clips that an earlier plan left out."""

    def without(self, gone: Collection[Hashable], left_out: frozenset[Hashable] | None) -> Heard:
        """After `gone` has left; `left_out` replaces what was out, if anything was planned."""
        spans = tuple(span for span in self.spans if span.key not in gone)
        return replace(self, spans=spans, left_out=self.left_out if left_out is None else left_out)

    def followed_by(self, pieces: Sequence[Piece], speaker: int, turn: Hashable) -> Heard:
        """With a further turn of the same line."""
        new = tuple(
            ContextSpan(piece, speaker, piece.n_positions, pinned=False, turn=turn, same_line=True)
            for piece in pieces
        )
        return replace(self, spans=(*self.spans, *new))


class Planner:
    """Lays out prompts.

    Args:
        tokenizer: of the model.
        n_codebooks: K.
        n_positions: of the model's context.
        frame_rate: frames a second.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, n_codebooks: int, n_positions: int, frame_rate: float
    ) -> None:
        self._tokenizer = tokenizer
        self._n_codebooks = n_codebooks
        self._frame_rate = frame_rate
        self._clip_ids: dict[tuple[int, str], tuple[int, ...]] = {}
        self.n_positions = n_positions

    def ids(self, speaker: int, text: str) -> tuple[int, ...]:
        """Text ids of a turn, BOS and EOS around them."""
        return self._tokenizer.encode(spoken_text(speaker, text))

    def unwritable(self, text: str) -> str:
        """The characters of `text` that the tokenizer has no ids for."""
        return self._tokenizer.unwritable(text)

    def pieces(
        self, text: str, speaker: int, clips: Sequence[Clip], max_seconds: float | None
    ) -> tuple[TurnPiece | Pause, ...]:
        """A turn's text in pieces that leave the context half of its positions, and the pauses between them.

        Args:
            text: of the turn.
            speaker: who says it; the first clip of the voice stays in the context.
            clips: of all voices.
            max_seconds: the user's ceiling for the turn; None: one for each piece, judged from its text.
        """
        own = [clip for clip in clips if clip.speaker == speaker]
        pinned = self.n_clip_positions(own[0]) if own else 0
        limit = max(MIN_PIECE_POSITIONS, min(PIECE_POSITIONS, self.n_positions - pinned))
        ids: dict[str, tuple[int, ...]] = {}

        def n_positions(piece: str) -> int:
            if piece not in ids:
                ids[piece] = self.ids(speaker, piece)
            return len(ids[piece]) + room_frames(piece, self._frame_rate) + 1

        def turn_piece(piece: str) -> TurnPiece:
            return TurnPiece(
                piece,
                ids[piece],
                room_frames(piece, self._frame_rate),
                ceiling_frames(piece, None, self._frame_rate) if max_seconds is None else None,
            )

        found: list[TurnPiece | Pause] = []
        for part in split_pauses(text):
            found += (
                [part] if isinstance(part, Pause) else map(turn_piece, split_turn(part, n_positions, limit))
            )
        return tuple(found)

    def n_clip_positions(self, clip: Clip) -> int:
        assert clip.codes is not None, "the voices were scanned without a codec"
        return len(self._ids_of(clip)) + clip.codes.shape[1] + 1

    def n_context(self, heard: Heard, speaker: int) -> int:
        """Positions of what would stay in the context of `speaker`."""
        spans = [*self._references(heard.clips), *heard.spans]
        plan = plan_context(
            spans,
            needed=0,
            speakers={speaker},
            speaking=speaker,
            limit=self.n_positions,
            left_out=heard.left_out,
        )
        return plan.n_positions

    def plan(
        self,
        heard: Heard,
        own: Sequence[Piece],
        *,
        speaker: int,
        speakers: Collection[int],
        ids: Sequence[int],
        begun: torch.Tensor | None,
        room: int,
        min_room: int,
    ) -> ContextPlan:
        """The prompt for a piece; the arguments are those of `PlannedContext` and `Context.plan`."""
        n_begun = 0 if begun is None else begun.shape[1]
        clips = {clip.path: clip for clip in heard.clips}
        spoken = heard.followed_by(own, speaker, _TURN_BEGUN)
        plan = plan_context(
            [*self._references(heard.clips), *spoken.spans],
            needed=min(self.n_positions, len(ids) + n_begun + room),
            least=min(self.n_positions, len(ids) + n_begun + min(room, min_room)),
            speakers=speakers,
            speaking=speaker,
            limit=self.n_positions,
            left_out=heard.left_out,
        )
        context = []
        for span in plan.kept:
            if span.pinned:
                clip = clips[span.key]  # type: ignore[index]
                assert clip.codes is not None
                context.append((self._ids_of(clip), clip.codes))
            else:
                assert isinstance(span.key, Piece)
                context.append((span.key.text_ids, span.key.codes))
        return ContextPlan(
            prompt=build_prompt(context, ids, self._n_codebooks, begun=begun),
            dropped=plan.dropped,
            left_out=plan.left_out,
        )

    def _references(self, clips: Sequence[Clip]) -> list[ContextSpan]:
        return [
            ContextSpan(clip.path, clip.speaker, self.n_clip_positions(clip), pinned=True) for clip in clips
        ]

    def _ids_of(self, clip: Clip) -> tuple[int, ...]:
        key = (clip.speaker, clip.text)
        if key not in self._clip_ids:
            self._clip_ids[key] = self.ids(*key)
        return self._clip_ids[key]


@dataclass(frozen=True)
class PlannedContext:
    """What a turn of a line hears, of which the oldest leaves when the context is full."""

    planner: Planner
    heard: Heard
    speaker: int
    """Who speaks the turn."""
    speakers: frozenset[int]
    """Everybody who speaks in the line."""
    min_room: int = MIN_ROOM

    def plan(
        self, own: Sequence[Piece], ids: Sequence[int], begun: torch.Tensor | None, room: int
    ) -> ContextPlan:
        return self.planner.plan(
            self.heard,
            own,
            speaker=self.speaker,
            speakers=self.speakers,
            ids=ids,
            begun=begun,
            room=room,
            min_room=self.min_room,
        )

    def after(self, plan: ContextPlan) -> PlannedContext:
        return replace(self, heard=self.heard.without(plan.gone, plan.left_out))
