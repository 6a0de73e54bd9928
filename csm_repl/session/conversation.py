"""The transcript of a run: what was said, by whom, and which of it the model still hears."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csm_repl.session.context import ContextSpan
from csm_repl.session.numbers import TakeNumber

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

    line: int
    """Number of the line that it belongs to, from 1."""
    position: int
    """Place in the line, from 0; empty turns count."""
    speaker: int
    voice: str
    text: str
    pieces: tuple[Piece, ...]
    seconds: float
    seed: int
    ended: str
    """How generation ended: 'end', 'cut', 'interrupted', ..."""
    file: Path | None = None
    n_turns: int = 1
    """Of its line; a turn that is the only one has its line's number."""
    in_context: bool = True
    n_pieces_out: int = 0
    """How many of its first pieces have left the context before the rest."""

    @property
    def number(self) -> TakeNumber:
        return TakeNumber(self.line, self.position + 1 if self.n_turns > 1 else 0)

    @property
    def context_pieces(self) -> tuple[Piece, ...]:
        """The pieces that are still in the context, in order."""
        return self.pieces[self.n_pieces_out :] if self.in_context else ()


class Conversation:
    """The turns of a run in the order in which they were spoken."""

    def __init__(self) -> None:
        self._turns: list[ConversationTurn] = []
        self._lines: set[int] = set()
        self._last: TakeNumber | None = None

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
    def last_line(self) -> int:
        """The largest number of a line so far; 0 before the first. `undo` and `clear` give none back."""
        return max(self._lines, default=0)

    def append(self, turn: ConversationTurn) -> None:
        """Adds the newest turn.

        Raises:
            ValueError: its number was given before, or its line is over.
        """
        place = TakeNumber(turn.line, turn.position + 1)
        if self._last is not None and self._last.line == turn.line:
            if place <= self._last:
                raise ValueError(f"turn {place} is there already")
        elif turn.line in self._lines:
            raise ValueError(f"line {turn.line} is over")
        self._turns.append(turn)
        self._lines.add(turn.line)
        self._last = place

    def clear(self) -> None:
        """Forgets all turns; numbers go on."""
        self._turns.clear()

    def find(self, number: TakeNumber) -> list[ConversationTurn]:
        """The turns of a line, or the one turn; empty when there is none."""
        return [
            turn
            for turn in self._turns
            if turn.line == number.line
            and (number.turn in (0, turn.position + 1) or (turn.n_turns == 1 and number.turn == 1))
        ]

    def last_turns(self) -> list[ConversationTurn]:
        """The turns of the last line, in order; empty when there is none."""
        n_keep = len(self._turns)
        while n_keep and self._turns[n_keep - 1].line == self._turns[-1].line:
            n_keep -= 1
        return self._turns[n_keep:]

    def undo(self) -> list[ConversationTurn]:
        """Removes all turns of the last line and returns them in order; empty when there is none.

        What left the context before stays out: it would have to be prefilled in front of all that is kept.
        """
        removed = self.last_turns()
        del self._turns[len(self._turns) - len(removed) :]
        return removed

    def put_back(self, turns: Iterable[ConversationTurn]) -> None:
        """Takes `undo` back, when nothing was added since."""
        self._turns.extend(turns)

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
