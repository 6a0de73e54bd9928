"""The context of the next turn as rows: the voices' clips, the conversation, and what is being spoken."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import torch

from csm_repl.engine import build_prompt, spoken_text
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.session.context import Span, describe, plan_context
from csm_repl.session.conversation import Conversation, Piece
from csm_repl.voices import Clip

__all__ = ["Window"]


class Window:
    """Plans what stays in the context and remembers what has left it."""

    def __init__(self, tokenizer: Tokenizer, *, n_codebooks: int, limit: int) -> None:
        self._tokenizer = tokenizer
        self._n_codebooks = n_codebooks
        self.limit = limit
        self._left_out: frozenset[Hashable] = frozenset()
        self._clip_ids: dict[tuple[int, str], tuple[int, ...]] = {}
        self.n_positions = 0
        """Positions that the last prompt took."""

    def fresh(self) -> Window:
        """A window of the same size that nothing has left yet."""
        window = Window(self._tokenizer, n_codebooks=self._n_codebooks, limit=self.limit)
        window._clip_ids = self._clip_ids
        return window

    def ids(self, speaker: int, text: str) -> tuple[int, ...]:
        return self._tokenizer.encode(spoken_text(speaker, text))

    def forget(self) -> None:
        """Lets every reference back in."""
        self._left_out = frozenset()

    def n_clip_positions(self, clip: Clip) -> int:
        assert clip.codes is not None, "the voices were scanned without a codec"
        return len(self._ids_of(clip)) + clip.codes.shape[1] + 1

    def n_context(
        self, clips: Sequence[Clip], conversation: Conversation, *, speakers: Collection[int]
    ) -> int:
        """Positions of what would stay in the context of `speakers` now; changes nothing."""
        spans = [*self._references(clips), *conversation.spans()]
        plan = plan_context(spans, needed=0, speakers=speakers, limit=self.limit, left_out=self._left_out)
        return plan.n_positions

    def prompt(
        self,
        clips: Sequence[Clip],
        conversation: Conversation,
        spoken: list[Piece],
        *,
        speaker: int,
        speakers: Collection[int],
        ids: tuple[int, ...],
        begun: torch.Tensor | None,
        room: int,
        names: Mapping[int, str],
    ) -> tuple[torch.Tensor, str]:
        """Rows of the prompt, and one sentence on what had to leave (empty: nothing).

        Args:
            clips: all usable clips.
            spoken: pieces of this turn that are done; those that leave the context leave the list.
            speaker: who speaks.
            speakers: everybody who speaks in this line.
            ids: text of the piece to be spoken.
            begun: its codes [K, T] so far.
            room: positions to keep free for what is still to come.
        """
        n_begun = 0 if begun is None else begun.shape[1]
        needed = min(self.limit, len(ids) + n_begun + room)
        by_path = {clip.path: clip for clip in clips}
        own = [Span(piece, speaker, piece.n_positions, pinned=False, turn="this turn") for piece in spoken]
        plan = plan_context(
            [*self._references(clips), *conversation.spans(), *own],
            needed=needed,
            speakers=speakers,
            limit=self.limit,
            left_out=self._left_out,
        )
        self._left_out = plan.left_out
        gone = {span.key for span, _ in plan.dropped}
        conversation.drop(gone)
        spoken[:] = [piece for piece in spoken if piece not in gone]
        context = []
        for span in plan.kept:
            if span.pinned:
                clip = by_path[span.key]  # type: ignore[index]
                assert clip.codes is not None
                context.append((self._ids_of(clip), clip.codes))
            else:
                assert isinstance(span.key, Piece)
                context.append((span.key.text_ids, span.key.codes))
        rows = build_prompt(context, ids, self._n_codebooks, begun=begun)
        self.n_positions = len(rows)
        return rows, describe(plan, names)

    def _references(self, clips: Sequence[Clip]) -> list[Span]:
        return [Span(clip.path, clip.speaker, self.n_clip_positions(clip), pinned=True) for clip in clips]

    def _ids_of(self, clip: Clip) -> tuple[int, ...]:
        key = (clip.speaker, clip.text)
        if key not in self._clip_ids:
            self._clip_ids[key] = self.ids(*key)
        return self._clip_ids[key]
