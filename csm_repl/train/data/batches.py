"""From items to batches of tokens: what is said where, which positions are learnt, what goes together."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch.nn import functional as F

from csm_repl.engine.prompt import segment_positions, spoken_text
from csm_repl.files.config import ModelConfig
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.data.items import Item
from csm_repl.train.events import LeftOut

__all__ = ["Batch", "BatchPlan", "Position", "Sequences", "lay_out"]

_POOL = 64
"""Batches whose items are sorted by length together: sorting everything would make the same neighbours in
every epoch, sorting fewer would pad more."""


@dataclass(frozen=True)
class Batch:
    tokens: torch.Tensor
    """int64 [B, S, K + 1]: of each position its K codes and its text id; -1 where one of them does not count,
    and after a sequence's end."""
    targets: torch.Tensor
    """bool [B, S]: the positions to be predicted, each from the one before it."""
    returns: torch.Tensor
    """int64 [B, S]: the number of the turn at the frames of a speaker who spoke before, 0 elsewhere."""
    speaker_ids: torch.Tensor
    """int64 [B, S]: at the frames the text id that tells who speaks, -1 elsewhere."""

    @property
    def n_items(self) -> int:
        return len(self.tokens)

    @property
    def n_targets(self) -> int:
        return int(self.targets.sum())

    def to(self, device: torch.device) -> Batch:
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


class Sequences:
    """Items laid out as tokens, which are made on demand."""

    def __init__(
        self,
        items: Sequence[Item],
        ids: Sequence[tuple[tuple[int, ...], ...]],
        learnt: Learnt,
        *,
        speaker_at: int,
    ) -> None:
        """
        Args:
            items: what is learnt.
            ids: of the text of each item's turns.
            learnt: which turns are targets.
            speaker_at: where in a turn's ids the speaker's number is.
        """
        self._items = items
        self._ids = ids
        self._learnt = learnt
        self._speaker_at = speaker_at
        self.lengths = [
            sum(len(turn_ids) + turn.n_frames + 1 for turn_ids, turn in zip(turns, item.turns, strict=True))
            for turns, item in zip(ids, items, strict=True)
        ]
        """Positions of each."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def n_frames(self) -> int:
        return sum(item.n_frames for item in self._items)

    def fingerprint(self) -> int:
        """Changes with the items' order, names or lengths: a run only goes on with the data it began with."""
        import zlib

        text = "\n".join(f"{item.name} {n}" for item, n in zip(self._items, self.lengths, strict=True))
        return zlib.crc32(text.encode("utf-8", "replace"))

    def sequence(self, index: int) -> Batch:
        """A batch of one sequence."""
        tokens: list[torch.Tensor] = []
        targets: list[torch.Tensor] = []
        returns: list[torch.Tensor] = []
        speaker_ids: list[torch.Tensor] = []
        spoke: set[int] = set()
        for number, (ids, turn) in enumerate(zip(self._ids[index], self._items[index].turns, strict=True)):
            tokens.append(segment_positions(ids, turn.codes.to(torch.int64)))
            n_positions = len(tokens[-1])
            targets.append(torch.zeros(n_positions, dtype=torch.bool))
            targets[-1][len(ids) :] = self._learnt.covers(turn.in_loss, turn.speaker)
            returns.append(torch.zeros(n_positions, dtype=torch.int64))
            if turn.speaker in spoke:
                returns[-1][len(ids) : -1] = number
            spoke.add(turn.speaker)
            speaker_ids.append(torch.full((n_positions,), -1))
            speaker_ids[-1][len(ids) : -1] = ids[self._speaker_at]
        return Batch(*(torch.cat(parts)[None] for parts in (tokens, targets, returns, speaker_ids)))

    def batch(self, indices: Sequence[int]) -> Batch:
        sequences = [self.sequence(index) for index in indices]
        longest = max(sequence.tokens.shape[1] for sequence in sequences)

        def padded(x: torch.Tensor, filling: int) -> torch.Tensor:
            return F.pad(x, [0, 0] * (x.dim() - 2) + [0, longest - x.shape[1]], value=filling)

        fillings = {"tokens": -1, "targets": 0, "returns": 0, "speaker_ids": -1}
        return Batch(
            **{
                name: torch.cat([padded(getattr(sequence, name), filling) for sequence in sequences])
                for name, filling in fillings.items()
            }
        )


@dataclass(frozen=True)
class Learnt:
    """Which turns are learnt."""

    speakers: frozenset[int] | None

    def covers(self, in_loss: bool, speaker: int) -> bool:
        return in_loss and (self.speakers is None or speaker in self.speakers)


def lay_out(
    items: Iterable[Item],
    tokenizer: Tokenizer,
    config: ModelConfig,
    *,
    speakers: Iterable[int] | None = None,
) -> tuple[Sequences, list[LeftOut]]:
    """Finds the text's ids and leaves out what the model cannot learn from; nothing is cut.

    Args:
        items: what is to be learnt.
        tokenizer: the model's.
        config: the model's sizes.
        speakers: only these speakers' turns are learnt; None: every turn that its item marks.

    Returns:
        The sequences that can be used, and what was left out with the reason.
    """
    learnt = Learnt(None if speakers is None else frozenset(speakers))
    kept: list[Item] = []
    ids: list[tuple[tuple[int, ...], ...]] = []
    left_out: list[LeftOut] = []
    for item in items:
        turns = tuple(tokenizer.encode(spoken_text(turn.speaker, turn.text)) for turn in item.turns)
        n_positions = sum(map(len, turns)) + item.n_frames + len(turns)
        problem = _problem(item, n_positions, config, learnt)
        if problem is None:
            kept.append(item)
            ids.append(turns)
        else:
            left_out.append(LeftOut(item.name, *problem))
    return Sequences(kept, ids, learnt, speaker_at=_speaker_at(tokenizer)), left_out


def _speaker_at(tokenizer: Tokenizer) -> int:
    """Where in a turn's ids the speaker's number begins; 0 if the tokenizer knows no digits."""
    zero, one = (tokenizer.encode(spoken_text(speaker, "")) for speaker in (0, 1))
    return next((place for place, (a, b) in enumerate(zip(zero, one, strict=False)) if a != b), 0)


def _problem(item: Item, n_positions: int, config: ModelConfig, learnt: Learnt) -> tuple[str, str] | None:
    """Cause and remedy if the model cannot learn from `item`."""
    if not any(learnt.covers(turn.in_loss, turn.speaker) for turn in item.turns):
        return "None of its turns is to be learnt.", "Mark a turn, or check the chosen speakers."
    if n_positions > config.max_positions:
        return (
            f"It takes {n_positions} positions and the model has {config.max_positions}.",
            "Split it into shorter clips or conversations of fewer turns.",
        )
    for turn in item.turns:
        if turn.n_frames == 0:
            return "A turn has no sound.", "Check the clip."
        n_codebooks = int(turn.codes.shape[0])
        if n_codebooks != config.n_codebooks:
            return (
                f"Its sound has {n_codebooks} codebooks and the model speaks {config.n_codebooks}.",
                "Encode it with the model's own codec.",
            )
        if int(turn.codes.min()) < 0 or int(turn.codes.max()) >= config.audio_vocab_size:
            return "It has codes that the model does not have.", "Encode it with the model's own codec."
    return None


@dataclass(frozen=True, order=True)
class Position:
    """Where a run stands in its data: the next batch is number `index` of `epoch`."""

    epoch: int = 0
    index: int = 0


class BatchPlan:
    """Which items go together, in which order: a function of the seed and the epoch alone."""

    def __init__(self, lengths: Sequence[int], *, batch_frames: int, seed: int) -> None:
        """
        Args:
            lengths: positions of each item.
            batch_frames: positions of a batch at most, padding included. An item that is longer by itself
                has a batch to itself.
            seed: of the order.
        """
        if not lengths:
            raise ValueError("there are no items")
        self._lengths = lengths
        self._batch_frames = batch_frames
        self._seed = seed
        self._epoch: tuple[int, list[list[int]]] | None = None

    def epoch(self, number: int) -> list[list[int]]:
        """The batches of an epoch, each a list of items' indices; every item is in exactly one."""
        if self._epoch is None or self._epoch[0] != number:
            self._epoch = (number, self._make(number))
        return self._epoch[1]

    def walk(self, position: Position) -> Iterator[tuple[list[int], Position]]:
        """Batches from `position` on, without end, each with the position after it."""
        epoch, index = position.epoch, position.index
        while True:
            batches = self.epoch(epoch)
            while index < len(batches):
                batch = batches[index]
                index += 1
                after = Position(epoch, index) if index < len(batches) else Position(epoch + 1, 0)
                yield batch, after
            epoch, index = epoch + 1, 0

    def epochs_done(self, position: Position) -> float:
        """Passes over the data before `position`."""
        return position.epoch + position.index / len(self.epoch(position.epoch))

    def _make(self, number: int) -> list[list[int]]:
        chance = random.Random(f"{self._seed} {number}")
        order = list(range(len(self._lengths)))
        chance.shuffle(order)
        batches: list[list[int]] = []
        for pool in self._pools(order):
            pool.sort(key=lambda index: self._lengths[index])
            batches += self._pack(pool)
        chance.shuffle(batches)
        return batches

    def _pools(self, order: list[int]) -> Iterator[list[int]]:
        """Runs of `order` with about `_POOL` batches of positions each."""
        pool: list[int] = []
        room = _POOL * self._batch_frames
        for index in order:
            pool.append(index)
            room -= self._lengths[index]
            if room <= 0:
                yield pool
                pool, room = [], _POOL * self._batch_frames
        if pool:
            yield pool

    def _pack(self, ascending: list[int]) -> Iterator[list[int]]:
        """Fills batches from the longest item down, so that the first item of each gives its width."""
        batch: list[int] = []
        width = 0
        for index in reversed(ascending):
            if batch and (len(batch) + 1) * width > self._batch_frames:
                yield batch
                batch = []
            if not batch:
                width = self._lengths[index]
            batch.append(index)
        if batch:
            yield batch
