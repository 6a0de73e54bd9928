"""A frame of B rows at once in static shapes: what a CUDA graph records, and what a batch runs.

`FrameStep` works in place on buffers that are allocated once. Nothing in it reads a value back to the host,
and every shape follows from the number of rows, the noise's width and how many positions are looked at. A
frame is two halves: `advance` makes the rows' hidden states from their last frames, `draw` makes the next
frames from hidden states. A prompt's first frame is a `draw` alone.

Knows nothing about prompts, seeds or when a take is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from csm_repl.engine.sampling import SamplingOptions
from csm_repl.model.csm import CSM
from csm_repl.model.transformer import KVCache, StepLayer, step_layer

__all__ = ["EagerRunner", "FrameStep", "MakeRunner", "Runner"]

NOISE_WIDTH = 64
"""Codes of a codebook that can get noise before the buffer grows: the default top-k of 50 fits."""


class FrameStep:
    """The buffers of B rows and the two halves of a frame.

    Args:
        model: prepared, on any device.
        cache: the backbone's keys and values, of B rows.
        run: runs a block; given, all passes have the same shapes, as a compiler wants it.
    """

    def __init__(self, model: CSM, cache: KVCache, *, run: StepLayer | None = None) -> None:
        self.model = model
        self.cache = cache
        self.n_rows: int = cache.data.shape[2]
        self._run = run
        self._decoder_cache = model.new_decoder_cache(batch_size=self.n_rows)
        config, device = model.config, model.device
        n_rows, n_codebooks = self.n_rows, config.n_codebooks
        self.out = torch.zeros(n_rows, n_codebooks + 1, dtype=torch.int64, device=device)
        """Each row's last frame, and 1 behind it if all its codes are 0."""
        self.positions = torch.zeros(n_rows, dtype=torch.int64, device=device)
        """Where `advance` puts each row's last frame."""
        self.hidden = torch.zeros(n_rows, config.backbone.dim, dtype=model.dtype, device=device)
        self.temperature = torch.zeros(n_rows, dtype=torch.float32, device=device)
        self.noise = torch.ones(n_rows, n_codebooks, NOISE_WIDTH, dtype=torch.float32, device=device)
        """Exponential noise of the next frame; infinity where a row's top-k ends, 1 in a greedy row."""

    @property
    def codes(self) -> torch.Tensor:
        """The frames' codes, int64 [B, K]: a view."""
        return self.out[:, :-1]

    def fit(self, k: int) -> bool:
        """Makes room for the noise of `k` codes; whether the buffer is another one now."""
        width = self.noise.shape[2]
        if k <= width:
            return False
        while width < k:
            width *= 2
        width = min(width, self.model.config.audio_vocab_size)
        # As `set_row` fills them: infinity times a temperature of 0 would be no number.
        beyond = torch.where(self.temperature == 0, 1.0, torch.inf)
        wider = beyond[:, None, None].expand(-1, self.noise.shape[1], width).contiguous()
        wider[:, :, : self.noise.shape[2]] = self.noise
        self.noise = wider
        return True

    def set_row(self, row: int, options: SamplingOptions) -> None:
        """Prepares a row's noise and temperature for a take; `fit` comes first."""
        # Without noise the likeliest code wins, whatever the width.
        self.noise[row].fill_(1.0 if options.greedy else torch.inf)
        self.temperature[row].fill_(0.0 if options.greedy else options.temperature)

    def set_noise(self, row: int, exponential: torch.Tensor) -> None:
        """Exponential noise [K, k] of a row's next frame."""
        self.noise[row, :, : exponential.shape[1]].copy_(exponential)

    def advance(self, n_seen: int, n_rows: int) -> None:
        """`codes` at `positions` -> `hidden`, for the first `n_rows` rows; also fills the cache there.

        Every position must be below `n_seen`.
        """
        embeddings = self.model.embed_frames(self.codes[:n_rows]).unsqueeze(1)
        cache = self.cache.rows(0, n_rows)
        run = self._run or step_layer
        hidden = self.model.backbone.step(embeddings, cache, self.positions[:n_rows], n_seen, run)
        self.hidden[:n_rows].copy_(hidden[:, 0])

    def draw(self, n_rows: int) -> None:
        """`hidden` and `noise` -> `out`, for the first `n_rows` rows."""
        # Noise times temperature orders the codes as logits divided by temperature do.
        noise = self.noise[:n_rows].log() * -self.temperature[:n_rows, None, None]

        def pick(logits: torch.Tensor, codebook: int) -> torch.Tensor:
            top, codes = torch.topk(logits, noise.shape[2])
            choice = (top + noise[:, codebook]).argmax(1, keepdim=True)
            return codes.gather(1, choice)[:, 0]

        hidden, cache = self.hidden[:n_rows], self._decoder_cache.rows(0, n_rows)
        if self._run is None:
            codes = self.model.make_frames(hidden, cache, pick)
        else:
            codes = self.model.make_frames_evenly(hidden, cache, pick, self._run)
        ended = (codes == 0).all(1, keepdim=True)
        self.out[:n_rows].copy_(torch.cat([codes, ended], dim=1))


class Runner(Protocol):
    """Runs a step's halves: at once, or as recorded graphs."""

    @property
    def step(self) -> FrameStep: ...

    @property
    def fixed_rows(self) -> bool:
        """Whether all rows are run whatever `n_rows` says."""
        ...

    def fit(self, k: int) -> None:
        """As `FrameStep.fit`."""
        ...

    def advance(self, n_seen: int, n_rows: int) -> None: ...

    def draw(self, n_rows: int) -> None: ...


class EagerRunner:
    """Runs the step as it stands."""

    fixed_rows = False

    def __init__(self, model: CSM, cache: KVCache) -> None:
        self.step = FrameStep(model, cache)

    def fit(self, k: int) -> None:
        self.step.fit(k)

    def advance(self, n_seen: int, n_rows: int) -> None:
        self.step.advance(n_seen, n_rows)

    def draw(self, n_rows: int) -> None:
        self.step.draw(n_rows)


MakeRunner = Callable[[CSM, KVCache], Runner]
"""Makes a runner for the rows of a backbone cache."""
