"""Frames from a prompt: prefill with a prefix cache, then one frame after the other.

Knows nothing about text, audio or files: rows go in, codes come out. `Generation` is an iterator, so
streaming, cancelling, saving and playing are its consumers' business.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from csm_repl.engine.sampling import Sampler, SamplingOptions
from csm_repl.engine.slot import Slot
from csm_repl.model.csm import CSM

__all__ = [
    "Ended",
    "Engine",
    "EngineStats",
    "Generation",
    "PromptTooLongError",
    "check_prompt",
    "first_frame_redraws",
    "new_sampler",
]

FIRST_FRAME_REDRAWS = 8
"""A take that closes with its first frame says nothing, so that frame is drawn again this often."""


class PromptTooLongError(ValueError):
    """The prompt leaves no room for a frame. Planning the context is the caller's business."""


@dataclass
class EngineStats:
    """Counters over the engine's life."""

    prefilled: int = 0
    """Positions that went through prefill."""
    reused: int = 0
    """Positions of prompts that were found in the cache."""
    frames: int = 0


class Engine:
    """A model with its caches; one generation at a time.

    The cache remembers which rows its positions hold. A new prompt keeps the longest common prefix and
    prefills the rest.
    """

    n_rows = 1
    """Takes that can be made side by side."""

    def __init__(self, model: CSM) -> None:
        self.model = model
        self.n_codebooks = model.config.n_codebooks
        self.max_positions = model.config.max_positions
        self.stats = EngineStats()
        self._slot = Slot(model, model.new_backbone_cache())
        self._decoder_cache = model.new_decoder_cache()
        self._current: Generation | None = None

    @property
    def n_cached(self) -> int:
        """Positions whose keys and values are valid."""
        return self._slot.n_cached

    def cached_rows(self) -> torch.Tensor:
        """What the valid positions hold, int64 [n_cached, K + 1]."""
        return self._slot.rows[: self._slot.n_cached]

    def forget(self) -> None:
        """Empties the prefix cache."""
        self._slot.n_cached = 0

    def generate(
        self,
        rows: torch.Tensor,
        *,
        options: SamplingOptions | None = None,
        seed: int = 0,
        max_frames: int | None = None,
        sampler: Sampler | None = None,
    ) -> Generation:
        """Starts a take; nothing is computed before the first `next`.

        Args:
            rows: the prompt, int64 [S, K + 1] on the CPU (see `prompt`).
            options: how codes are drawn.
            seed: seed of the take; the same prompt, options and seed give the same codes on one machine.
            max_frames: ceiling after which the take is cut; None: only the model's positions end it.
            sampler: goes on with the noise of an earlier generation instead of `options` and `seed`.

        Raises:
            PromptTooLongError: not even one frame fits behind the prompt.
        """
        check_prompt(rows, self.model)
        sampler = sampler or new_sampler(self.model, options, seed)
        self._end_current()
        self._current = self._new_generation(rows, sampler, max_frames)
        return self._current

    def next_logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits of the next frame's first codebook after a prompt, float32 [V] on the CPU."""
        self._end_current()
        with torch.inference_mode():
            return self.model.codebook0_head(self._prefill(rows)[0]).float().cpu()

    def _new_generation(self, rows: torch.Tensor, sampler: Sampler, max_frames: int | None) -> Generation:
        return Generation(self, rows, sampler, max_frames)

    def _end_current(self) -> None:
        if self._current is not None:
            self._current.close()
        self._current = None

    def _prefill(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        hidden, n_new = self._slot.prefill(rows)
        self.stats.prefilled += n_new
        self.stats.reused += len(rows) - n_new
        return hidden, n_new


def check_prompt(rows: torch.Tensor, model: CSM) -> None:
    """Raises ValueError for rows that are no prompt, PromptTooLongError for one without room behind it."""
    n_columns, n_positions = model.config.n_codebooks + 1, model.config.max_positions
    if rows.ndim != 2 or rows.shape[1] != n_columns or len(rows) == 0:
        raise ValueError(f"rows must be [S > 0, {n_columns}], not {list(rows.shape)}")
    if len(rows) >= n_positions:
        raise PromptTooLongError(f"{len(rows)} positions leave no room in {n_positions}")


def new_sampler(model: CSM, options: SamplingOptions | None, seed: int) -> Sampler:
    return Sampler(
        options or SamplingOptions(),
        seed=seed,
        n_codebooks=model.config.n_codebooks,
        vocab_size=model.config.audio_vocab_size,
        device=model.device,
    )


Ended = Literal["end", "cut", "context"]
"""The all-zero frame came, the ceiling was reached, or no position is left."""


class Generation(Iterator[torch.Tensor]):
    """The frames of one take, each int64 [K] on the CPU. Starting another take ends this one."""

    def __init__(self, engine: Engine, rows: torch.Tensor, sampler: Sampler, max_frames: int | None) -> None:
        self._engine = engine
        self._rows = rows
        self._max_frames = max_frames
        self._hidden: torch.Tensor | None = None
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None
        self.sampler = sampler
        self.ended: Ended | None = None
        """Why it is over."""
        self.n_frames = 0
        self.n_prompt = len(rows)
        self.n_prefilled = 0
        self.prefill_s = 0.0

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> torch.Tensor:
        engine = self._engine
        if self.ended is None and engine._current is not self:
            raise RuntimeError("another take was started on this engine")
        self.ended = self.ended or self._end_at(self.n_frames)
        if self.ended is not None:
            raise StopIteration
        with torch.inference_mode():
            frame = self._next_frame()
        if not frame.any():
            self.ended = "end"
            raise StopIteration
        self.n_frames += 1
        engine.stats.frames += 1
        return frame

    def close(self) -> None:
        """Nothing more will be asked for. The cache keeps what is in it."""

    def _end_at(self, n_frames: int) -> Ended | None:
        """Why no frame may follow after so many."""
        if self._max_frames is not None and n_frames >= self._max_frames:
            return "cut"
        return "context" if self.n_prompt + n_frames >= self._engine.max_positions else None

    def _next_frame(self) -> torch.Tensor:
        """The next frame int64 [K] on the CPU; all zeros at the end."""
        codes = self._first_or_following()
        host = codes.cpu()
        redraws = 0 if self.n_frames else first_frame_redraws(self.sampler.options)
        while redraws and not host.any():
            codes = self._draw()
            host = codes.cpu()
            redraws -= 1
        if host.any():
            self._last = (codes, host)
        return host

    def _first_or_following(self) -> torch.Tensor:
        if self._hidden is None:
            self._hidden = self._prefill()
        elif self._last is not None:
            # A frame's keys and values are made when its successor is asked for, so the frame itself
            # goes out without waiting for them.
            self._hidden = self._engine._slot.append(*self._last)
        self._last = None
        return self._draw()

    def _prefill(self) -> torch.Tensor:
        started = time.perf_counter()
        hidden, self.n_prefilled = self._engine._prefill(self._rows)
        self.prefill_s = time.perf_counter() - started
        return hidden

    def _draw(self) -> torch.Tensor:
        assert self._hidden is not None
        self.sampler.next_frame()
        engine = self._engine
        return engine.model.make_frame(self._hidden, engine._decoder_cache, self.sampler.pick)


def first_frame_redraws(options: SamplingOptions) -> int:
    return 0 if options.greedy else FIRST_FRAME_REDRAWS
