"""Takes side by side: B rows share every pass, so the weights are read once for all of them.

Every take has its own prompt, noise, ceiling and end, and gets the codes that `Engine` would give it (in
float32; lower precisions round by the number of rows). A row that is free takes the next take; its prompt
starts from whatever any row holds already. Knows nothing about who waits for which take.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch

from csm_repl.engine.engine import (
    Ended,
    EngineStats,
    PromptTooLongError,
    check_prompt,
    first_frame_redraws,
    new_sampler,
)
from csm_repl.engine.sampling import Sampler, SamplingOptions
from csm_repl.engine.slot import Slot
from csm_repl.engine.step import EagerRunner, MakeRunner
from csm_repl.errors import OutOfMemoryError
from csm_repl.model.csm import CSM
from csm_repl.model.device import free_bytes
from csm_repl.model.transformer import KVCache

__all__ = ["BatchEngine", "BatchItem", "BatchRun", "RowEnded", "RowFrame", "RowGeneration", "row_bytes"]

SPARE_SHARE = 0.1
"""Of the free memory, for what the passes need beside keys and values."""


@dataclass(frozen=True)
class BatchItem:
    """One take of a batch."""

    rows: torch.Tensor
    """The prompt, int64 [S, K + 1] on the CPU."""
    options: SamplingOptions = field(default_factory=SamplingOptions)
    seed: int = 0
    max_frames: int | None = None


@dataclass(frozen=True)
class RowFrame:
    """The next frame of an item."""

    index: int
    """Which item, from 0."""
    codes: torch.Tensor
    """Int64 [K] on the CPU."""


@dataclass(frozen=True)
class RowEnded:
    """An item is over."""

    index: int
    ended: Ended


def row_bytes(model: CSM) -> int:
    """Bytes of keys and values of one row."""
    config, meta = model.config, torch.device("meta")
    sizes = ((config.backbone, config.max_positions), (config.decoder, config.n_codebooks))
    return sum(KVCache(size, n, device=meta, dtype=model.dtype).n_bytes for size, n in sizes)


class BatchEngine:
    """A model with the caches of `n_rows` rows.

    Args:
        model: loaded.
        n_rows: how many takes are made at a time.
        make_runner: runs the frame step.

    Raises:
        OutOfMemoryError: the device has no room for so many rows.
    """

    def __init__(self, model: CSM, n_rows: int, make_runner: MakeRunner = EagerRunner) -> None:
        if n_rows < 1:
            raise ValueError(f"a batch has at least one row, not {n_rows}")
        _check_memory(model, n_rows)
        self.model = model
        self.n_rows = n_rows
        self.n_codebooks = model.config.n_codebooks
        self.max_positions = model.config.max_positions
        self.stats = EngineStats()
        cache = model.new_backbone_cache(batch_size=n_rows)
        self._slots = [Slot(model, cache.rows(index)) for index in range(n_rows)]
        self._takes: list[RowGeneration | None] = [None] * n_rows
        self._prepared: list[RowGeneration | None] = [None] * n_rows
        """For whose options a row of the step's buffers is set."""
        self._runner = make_runner(model, cache)

    @property
    def n_open(self) -> int:
        """Rows that have a take."""
        return sum(take is not None for take in self._takes)

    def generate(
        self,
        rows: torch.Tensor,
        *,
        options: SamplingOptions | None = None,
        seed: int = 0,
        max_frames: int | None = None,
        sampler: Sampler | None = None,
    ) -> RowGeneration:
        """As `Engine.generate`, beside the takes that are being made; a row must be free.

        Whoever asks a take for its next frame makes one for every take; the others keep theirs until they
        are asked. So takes should be asked in turn, and `close`d when they are not wanted any more.

        Raises:
            PromptTooLongError: not even one frame fits behind the prompt.
            RuntimeError: all rows have takes.
        """
        check_prompt(rows, self.model)
        sampler = sampler or new_sampler(self.model, options, seed)
        take = RowGeneration(self, rows, sampler, max_frames)
        if take.over is None:
            free = [row for row, other in enumerate(self._takes) if other is None]
            if not free:
                raise RuntimeError(f"all {self.n_rows} rows have takes; close one first")
            self._takes[max(free, key=lambda row: self._slots[row].n_common(rows))] = take
        return take

    def generate_batch(self, items: Iterable[BatchItem]) -> BatchRun:
        """Makes the takes of all items, as many at a time as there are rows.

        Items are taken from the iterable when a row is free.
        """
        return BatchRun(self, items)

    def forget(self) -> None:
        """Empties the prefix cache of the rows without a take."""
        for slot, take in zip(self._slots, self._takes, strict=True):
            if take is None:
                slot.n_cached = 0

    def _release(self, take: RowGeneration) -> None:
        if take in self._takes:
            self._takes[self._takes.index(take)] = None

    def _step(self) -> None:
        """One more frame for every take. An exception leaves them as they were."""
        with torch.inference_mode():
            if not self._runner.fixed_rows:
                self._close_gaps()
            takes = {row: take for row, take in enumerate(self._takes) if take is not None}
            n_rows = self.n_rows if self._runner.fixed_rows else max(takes) + 1
            before = {row: take.sampler.state() for row, take in takes.items()}
            try:
                self._advance(takes, n_rows)
                frames = self._draw(takes, n_rows)
            except BaseException:
                for row, take in takes.items():
                    take.sampler.restore(before[row])
                raise
        for row, take in takes.items():
            if take.last is not None:
                self._slots[row].note_frame(take.position, take.last)
            is_end = bool(frames[row, -1])
            take.add(frames[row, :-1], is_end=is_end)
            self.stats.frames += not is_end
            if take.over is not None:
                self._release(take)

    def _advance(self, takes: dict[int, RowGeneration], n_rows: int) -> None:
        """Hidden states of all takes into the step's buffer."""
        step = self._runner.step
        for row, take in takes.items():
            if take.hidden is None:
                self._begin(row, take)
        going_on = {row: take for row, take in takes.items() if take.last is not None}
        if going_on:
            codes = torch.zeros(n_rows, self.n_codebooks, dtype=torch.int64)
            # A row without a frame of a take runs along, and writes where nobody reads.
            positions = [slot.free_position() for slot in self._slots[:n_rows]]
            for row, take in going_on.items():
                assert take.last is not None
                codes[row], positions[row] = take.last, take.position
            step.codes[:n_rows].copy_(codes)
            step.positions[:n_rows].copy_(torch.tensor(positions))
            self._runner.advance(max(positions) + 1, n_rows)
        for row, take in takes.items():
            if take.last is None:
                assert take.hidden is not None
                step.hidden[row].copy_(take.hidden)

    def _begin(self, row: int, take: RowGeneration) -> None:
        """Prefills a take's prompt into its row."""
        slot, rows = self._slots[row], take.rows
        started = time.perf_counter()
        donor = max(self._slots, key=lambda other: other.n_common(rows))
        n_common = donor.n_common(rows)
        if n_common > slot.n_common(rows):
            slot.take_over(donor, n_common)
        take.hidden, take.n_prefilled = slot.prefill(rows)
        take.prefill_s = time.perf_counter() - started
        self.stats.prefilled += take.n_prefilled
        self.stats.reused += len(rows) - take.n_prefilled

    def _draw(self, takes: dict[int, RowGeneration], n_rows: int) -> torch.Tensor:
        """A frame per row, int64 [n_rows, K + 1] on the CPU as in `FrameStep.out`."""
        step = self._runner.step
        self._runner.fit(max(take.sampler.k for take in takes.values()))
        for row, take in takes.items():
            if self._prepared[row] is not take:
                self._prepared[row] = None
                step.set_row(row, take.sampler.options)
                self._prepared[row] = take
            self._set_noise(row, take)
        self._runner.draw(n_rows)
        frames = step.out[:n_rows].to("cpu", copy=True)
        redraws = {
            row: first_frame_redraws(take.sampler.options) for row, take in takes.items() if take.last is None
        }
        while again := [row for row, left in redraws.items() if left and frames[row, -1]]:
            for row in again:
                redraws[row] -= 1
                self._set_noise(row, takes[row])
            # The other rows have their noise still, and would get the same frames.
            self._runner.draw(n_rows)
            frames[again] = step.out[:n_rows].cpu()[again]
        return frames

    def _set_noise(self, row: int, take: RowGeneration) -> None:
        if not take.sampler.options.greedy:
            self._runner.step.set_noise(row, take.sampler.next_exponential())

    def _close_gaps(self) -> None:
        """Moves the last takes into free rows before them: rows behind the last take cost nothing."""
        while True:
            used = [row for row, take in enumerate(self._takes) if take is not None]
            free = next(row for row, take in enumerate([*self._takes, None]) if take is None)
            if free > used[-1]:
                return
            last = used[-1]
            self._slots[free].take_over(self._slots[last], self._slots[last].n_cached)
            self._takes[free], self._takes[last] = self._takes[last], None


class RowGeneration(Iterator[torch.Tensor]):
    """The frames of one take of a batch; reads like `Generation`."""

    def __init__(
        self, engine: BatchEngine, rows: torch.Tensor, sampler: Sampler, max_frames: int | None
    ) -> None:
        self._engine = engine
        self._max_frames = max_frames
        self._queue: deque[torch.Tensor] = deque()
        self._n_made = 0
        self.rows = rows
        self.sampler = sampler
        self.ended: Ended | None = None
        self.n_frames = 0
        self.n_prompt = len(rows)
        self.n_prefilled = 0
        self.prefill_s = 0.0
        self.hidden: torch.Tensor | None = None
        """After the prompt, [D]; None: it is not prefilled yet."""
        self.last: torch.Tensor | None = None
        """The newest frame made, int64 [K]; its keys and values are made with the next one."""
        self.over: Ended | None = self._end_after_last()
        """Why no more frames are made; `ended` says it when the last one is handed out."""

    def __iter__(self) -> RowGeneration:
        return self

    def __next__(self) -> torch.Tensor:
        while not self._queue and self.over is None:
            self._engine._step()
        if not self._queue:
            self.ended = self.over
            raise StopIteration
        self.n_frames += 1
        return self._queue.popleft()

    @property
    def position(self) -> int:
        """Of `last`."""
        return self.n_prompt + self._n_made - 1

    def close(self) -> None:
        """Frees the row; what was made and not handed out is dropped."""
        self._queue.clear()
        self.over = self.over or "cut"
        self._engine._release(self)

    def add(self, frame: torch.Tensor, *, is_end: bool) -> None:
        """The next frame of this take, int64 [K]."""
        if is_end:
            self.over = "end"
            return
        self.last = frame
        self._queue.append(frame)
        self._n_made += 1
        self.over = self._end_after_last()

    def _end_after_last(self) -> Ended | None:
        if self._max_frames is not None and self._n_made >= self._max_frames:
            return "cut"
        return "context" if self.n_prompt + self._n_made >= self._engine.max_positions else None


class BatchRun(Iterator["RowFrame | RowEnded"]):
    """What happens to the items of a batch, in the order in which it happens.

    An item that cannot begin raises its error from `next`; the others go on with the next call.
    """

    def __init__(self, engine: BatchEngine, items: Iterable[BatchItem]) -> None:
        self._engine = engine
        self._items = enumerate(items)
        self._open: dict[int, RowGeneration] = {}
        self._turn: deque[int] = deque()
        self._cancelled: set[int] = set()

    def __iter__(self) -> BatchRun:
        return self

    def __next__(self) -> RowFrame | RowEnded:
        if not self._turn:
            self._fill()
            self._turn.extend(self._open)
        while self._turn:
            index = self._turn.popleft()
            take = self._open.get(index)
            if take is None:
                continue
            frame = next(take, None)
            if frame is not None:
                return RowFrame(index, frame)
            del self._open[index]
            assert take.ended is not None
            return RowEnded(index, take.ended)
        raise StopIteration

    def cancel(self, index: int) -> None:
        """Drops an item, begun or not; no more events come of it."""
        take = self._open.pop(index, None)
        if take is not None:
            take.close()
        else:
            self._cancelled.add(index)

    def close(self) -> None:
        """Drops all items."""
        for take in self._open.values():
            take.close()
        self._open.clear()
        self._items = enumerate(())

    def _fill(self) -> None:
        while max(self._engine.n_open, len(self._open)) < self._engine.n_rows:
            index, item = next(self._items, (-1, None))
            if item is None:
                return
            if index in self._cancelled:
                continue
            try:
                self._open[index] = self._engine.generate(
                    item.rows, options=item.options, seed=item.seed, max_frames=item.max_frames
                )
            except PromptTooLongError as error:
                raise PromptTooLongError(f"item {index}: {error}") from error


def _check_memory(model: CSM, n_rows: int) -> None:
    free = free_bytes(model.device)
    if free is None:
        return
    each = row_bytes(model)
    n_fit = int(free * (1 - SPARE_SHARE)) // each
    if n_rows > n_fit:
        remedy = f"Use at most {n_fit} rows (--batch {n_fit})" if n_fit else "Close other programs"
        raise OutOfMemoryError(
            f"{n_rows} rows side by side need {n_rows * each / 1e9:.1f} GB for keys and values; "
            f"{free / 1e9:.1f} GB are free on {model.device}.",
            f"{remedy}.",
        )
