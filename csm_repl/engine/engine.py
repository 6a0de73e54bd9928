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
from csm_repl.model.csm import CSM

__all__ = ["Engine", "EngineStats", "Generation", "PromptTooLongError"]

PREFILL_CHUNK = 256
"""Positions a prefill pass runs at most: bounds its memory, and Ctrl-C is heard between passes."""

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
    prefills the rest. Positions beyond `n_cached` may hold anything, so an exception or a Ctrl-C at any
    point leaves a valid cache: the count is raised only after a pass is complete.
    """

    def __init__(self, model: CSM) -> None:
        self.model = model
        self.n_codebooks = model.config.n_codebooks
        self.max_positions = model.config.max_positions
        self.stats = EngineStats()
        self._backbone_cache = model.new_backbone_cache()
        self._decoder_cache = model.new_decoder_cache()
        self._rows = torch.empty(self.max_positions, self.n_codebooks + 1, dtype=torch.int64)
        self._n_cached = 0
        self._current: Generation | None = None

    @property
    def n_cached(self) -> int:
        """Positions whose keys and values are valid."""
        return self._n_cached

    def forget(self) -> None:
        """Empties the prefix cache."""
        self._n_cached = 0

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
        if rows.ndim != 2 or rows.shape[1] != self.n_codebooks + 1 or len(rows) == 0:
            raise ValueError(f"rows must be [S > 0, {self.n_codebooks + 1}], not {list(rows.shape)}")
        if len(rows) >= self.max_positions:
            raise PromptTooLongError(f"{len(rows)} positions leave no room in {self.max_positions}")
        if sampler is None:
            sampler = Sampler(
                options or SamplingOptions(),
                seed=seed,
                n_codebooks=self.n_codebooks,
                vocab_size=self.model.config.audio_vocab_size,
                device=self.model.device,
            )
        self._current = Generation(self, rows, sampler, max_frames)
        return self._current

    def next_logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits of the next frame's first codebook after a prompt, float32 [V] on the CPU."""
        self._current = None
        with torch.inference_mode():
            return self.model.codebook0_head(self._prefill(rows)[0]).float().cpu()

    def _prefill(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Hidden state [D] after `rows`, and how many positions had to be run for it."""
        n_common = min(self._n_cached, len(rows))
        differs = (rows[:n_common] != self._rows[:n_common]).any(1).nonzero()
        if len(differs):
            n_common = int(differs[0])
        # The last row is run again when all are cached: its hidden state is not kept.
        n_common = min(n_common, len(rows) - 1)
        self._n_cached = n_common
        self.stats.reused += n_common
        hidden = torch.empty(0)
        for start in range(n_common, len(rows), PREFILL_CHUNK):
            hidden = self._run(rows[start : start + PREFILL_CHUNK])
        n_new = len(rows) - n_common
        self.stats.prefilled += n_new
        return hidden, n_new

    def _run(self, rows: torch.Tensor) -> torch.Tensor:
        """Appends rows [S, K + 1] to the cache; hidden state of the last one, [D]."""
        start = self._n_cached
        embeddings = self.model.embed(rows.to(self.model.device))
        hidden = self.model.run_backbone(embeddings, self._backbone_cache, start)
        self._rows[start : start + len(rows)] = rows
        self._n_cached = start + len(rows)
        return hidden

    def _append_frame(self, codes: torch.Tensor, codes_host: torch.Tensor) -> torch.Tensor:
        start = self._n_cached
        hidden = self.model.run_backbone(self.model.embed_frame(codes), self._backbone_cache, start)
        self._rows[start, :-1] = codes_host
        self._rows[start, -1] = -1
        self._n_cached = start + 1
        return hidden


class Generation(Iterator[torch.Tensor]):
    """The frames of one take, each int64 [K] on the CPU. Starting another take ends this one."""

    def __init__(self, engine: Engine, rows: torch.Tensor, sampler: Sampler, max_frames: int | None) -> None:
        self._engine = engine
        self._rows = rows
        self._max_frames = max_frames
        self._hidden: torch.Tensor | None = None
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None
        self.sampler = sampler
        self.ended: Literal["end", "cut", "context"] | None = None
        """Why it is over: the all-zero frame came, the ceiling was reached, or no position is left."""
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
        if self.ended is None and self._max_frames is not None and self.n_frames >= self._max_frames:
            self.ended = "cut"
        elif self.ended is None and self.n_prompt + self.n_frames >= engine.max_positions:
            self.ended = "context"
        if self.ended is not None:
            raise StopIteration
        with torch.inference_mode():
            codes = self._next_frame()
            host = codes.cpu()
            redraws = 0 if self.n_frames or self.sampler.options.greedy else FIRST_FRAME_REDRAWS
            while redraws and not host.any():
                codes = self._draw()
                host = codes.cpu()
                redraws -= 1
        if not host.any():
            self.ended = "end"
            raise StopIteration
        self._last = (codes, host)
        self.n_frames += 1
        engine.stats.frames += 1
        return host

    def _next_frame(self) -> torch.Tensor:
        engine = self._engine
        if self._hidden is None:
            started = time.perf_counter()
            self._hidden, self.n_prefilled = engine._prefill(self._rows)
            self.prefill_s = time.perf_counter() - started
        elif self._last is not None:
            # A frame's keys and values are made when its successor is asked for, so the frame itself
            # goes out without waiting for them.
            self._hidden = engine._append_frame(*self._last)
        self._last = None
        return self._draw()

    def _draw(self) -> torch.Tensor:
        assert self._hidden is not None
        self.sampler.next_frame()
        engine = self._engine
        return engine.model.make_frame(self._hidden, engine._decoder_cache, self.sampler.pick)
