"""The transcript of a run: what was said, by whom, and which of it the model still hears."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csm_repl.session.context import ContextSpan

if TYPE_CHECKING:
    import torch

__all__ = ["Conversation", "ConversationTurn", "Piece"]


# Compared by identity: a tensor has no truth value, and the prefix cache knows a segment as this very object.
@dataclass(frozen=True, eq=False)
class Piece:
    """What enters the context in one go: a turn, or a part of one that was too long for one go."""

    text: str
    text_ids: tuple[int, ...]
    codes: torch.Tensor
    """Int64 [K, T] on the CPU, exactly as generated: K codebooks, T frames."""

    @property
    def n_frames(self) -> int:
        return self.codes.shape[1]

    @property
    def n_positions(self) -> int:
        """Text, frames, and the closing frame of zeros."""
        return len(self.text_ids) + self.n_frames + 1


@dataclass
class ConversationTurn:
    """One turn as it was spoken."""

    number: int
    """Running, from 1; never given twice in a run, so that what a notice said stays true."""
    line: int
    """The line it belongs to; the same for all turns of a line, larger for later lines."""
    position: int
    """Place in the line, as the caller counts."""
    speaker: int
    voice: str
    text: str
    pieces: tuple[Piece, ...]
    seconds: float
    seed: int
    ended: str
    """How generation ended: 'end', 'cut', 'interrupted', ..."""
    file: Path | None = None
    in_context: bool = True
    n_pieces_out: int = 0
    """How many of its first pieces have left the context before the rest."""

    @property
    def context_pieces(self) -> tuple[Piece, ...]:
        """The pieces that are still in the context, in order."""
        return self.pieces[self.n_pieces_out :] if self.in_context else ()


class Conversation:
    """The turns of a run in the order in which they were spoken."""

    def __init__(self) -> None:
        self._turns: list[ConversationTurn] = []
        self._next_number = 1
        self._next_line = 1

    def __len__(self) -> int:
        return len(self._turns)

    @property
    def turns(self) -> tuple[ConversationTurn, ...]:
        """All turns, those that the model no longer hears included."""
        return tuple(self._turns)

    @property
    def kept(self) -> tuple[ConversationTurn, ...]:
        """The turns that are in the context, with all or the last of their pieces."""
        return tuple(turn for turn in self._turns if turn.in_context)

    @property
    def next_number(self) -> int:
        """Number for the next turn. Neither `undo` nor `clear` gives a number back."""
        return self._next_number

    @property
    def next_line(self) -> int:
        """Index for the next line, from 1; larger than that of every turn so far."""
        return self._next_line

    def append(self, turn: ConversationTurn) -> None:
        """Adds the newest turn.

        Raises:
            ValueError: its number was given before, or its line is older than the last turn's.
        """
        if turn.number < self._next_number:
            raise ValueError(f"turn number {turn.number} is taken; the next one is {self._next_number}")
        if turn.line < self._next_line - 1:
            raise ValueError(f"line {turn.line} is over; the last one is {self._next_line - 1}")
        self._turns.append(turn)
        self._next_number = turn.number + 1
        self._next_line = turn.line + 1

    def clear(self) -> None:
        """Forgets all turns; numbers go on."""
        self._turns.clear()

    def undo(self) -> list[ConversationTurn]:
        """Removes all turns of the last line and returns them in order; empty when there is none.

        What left the context before stays out: it would have to be prefilled in front of all that is kept.
        """
        n_keep = len(self._turns)
        while n_keep and self._turns[n_keep - 1].line == self._turns[-1].line:
            n_keep -= 1
        removed = self._turns[n_keep:]
        del self._turns[n_keep:]
        return removed

    def spans(self) -> list[ContextSpan]:
        """What is in the context, for `plan_context`: a span per piece, the `Piece` itself its key."""
        return [
            ContextSpan(
                key=piece, speaker=turn.speaker, n_positions=piece.n_positions, pinned=False, turn=turn.number
            )
            for turn in self._turns
            for piece in turn.context_pieces
        ]

    def drop(self, keys: Iterable[Hashable]) -> None:
        """Marks what left the context, for good, so that the context stays a stable prefix.

        Args:
            keys: keys of `spans()`; others, as those of references, are passed over. Within a turn everything
                before a dropped piece is dropped with it.
        """
        gone = set(keys)
        for turn in self._turns:
            if turn.in_context:
                _drop_from(turn, gone)


def _drop_from(turn: ConversationTurn, gone: Collection[Hashable]) -> None:
    for i in range(len(turn.pieces) - 1, turn.n_pieces_out - 1, -1):
        if turn.pieces[i] in gone:
            turn.n_pieces_out = i + 1
            turn.in_context = turn.n_pieces_out < len(turn.pieces)
            return
