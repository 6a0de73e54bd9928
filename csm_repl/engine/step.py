"""A frame of several slots at once in static shapes: what a CUDA graph records, and what a CPU runs as it is.

`FrameStep` works in place on buffers that are allocated once. Nothing in it reads a value back to the host,
and every shape follows from the number of slots, the noise's width and how many positions are looked at. A
frame is two halves: `advance` makes hidden states from the slots' last frames, `draw` makes the next frames
from hidden states. A prompt's first frame is a `draw` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from csm_repl.engine.sampling import SamplingOptions, gumbel, pick_codes
from csm_repl.model.csm import CSM
from csm_repl.model.kv_cache import KVCache
from csm_repl.model.transformer import StepLayer, step_layer

__all__ = ["BROKEN", "ENDED", "EagerRunner", "FrameStep", "MakeRunner", "Runner"]

ENDED = 1
BROKEN = 2
"""What is behind a frame's codes if all of them are 0, and if the model gave NaN or infinity for it."""

NOISE_WIDTH = 64
"""Codes of a codebook that can get noise before the buffer grows: the default top-k of 50 fits."""


class FrameStep:
    """The buffers of all slots and the two halves of a frame.

    Args:
        model: prepared, on any device.
        cache: the backbone's keys and values, of all slots.
        run: runs a block; given, all passes have the same shapes, as a compiler wants it.
    """

    def __init__(self, model: CSM, cache: KVCache, *, run: StepLayer | None = None) -> None:
        self.model = model
        self.cache = cache
        self.n_slots: int = cache.data.shape[2]
        self._run = run
        self._decoder_cache = model.new_decoder_cache(batch_size=self.n_slots)
        config, device = model.config, model.device
        n_slots, n_codebooks = self.n_slots, config.n_codebooks
        self.out = torch.zeros(n_slots, n_codebooks + 1, dtype=torch.int64, device=device)
        """Each slot's last frame, and behind it 0, `ENDED` or `BROKEN`."""
        self.positions = torch.zeros(n_slots, dtype=torch.int64, device=device)
        """Where `advance` puts each slot's last frame."""
        self.hidden = torch.zeros(n_slots, config.backbone.dim, dtype=model.dtype, device=device)
        self.temperature = torch.zeros(n_slots, dtype=torch.float32, device=device)
        self.noise = torch.ones(n_slots, n_codebooks, NOISE_WIDTH, dtype=torch.float32, device=device)
        """Exponential noise of the next frame; infinity where a slot's top-k ends, 1 in a greedy slot."""

    @property
    def codes(self) -> torch.Tensor:
        """The frames' codes, int64 [n_slots, K]: a view."""
        return self.out[:, :-1]

    def fit(self, k: int) -> bool:
        """Makes room for the noise of `k` codes; whether the buffer is another one now."""
        width = self.noise.shape[2]
        if k <= width:
            return False
        while width < k:
            width *= 2
        width = min(width, self.model.config.audio_vocab_size)
        # As `set_options` fills them: infinity times a temperature of 0 would be no number.
        beyond = torch.where(self.temperature == 0, 1.0, torch.inf)
        wider = beyond[:, None, None].expand(-1, self.noise.shape[1], width).contiguous()
        wider[:, :, : self.noise.shape[2]] = self.noise
        self.noise = wider
        return True

    def set_options(self, slot: int, options: SamplingOptions) -> None:
        """Prepares a slot's noise and temperature for a take; `fit` comes first."""
        # Without noise the likeliest code wins, whatever the width.
        self.noise[slot].fill_(1.0 if options.greedy else torch.inf)
        self.temperature[slot].fill_(0.0 if options.greedy else options.temperature)

    def set_noise(self, slot: int, exponential: torch.Tensor) -> None:
        """Exponential noise [K, k] of a slot's next frame."""
        self.noise[slot, :, : exponential.shape[1]].copy_(exponential)

    def advance(self, slots: Sequence[int], n_seen: int) -> None:
        """`codes` at `positions` -> `hidden`, for these slots in rising order; also fills the cache there.

        Every position that counts must be below `n_seen`.
        """
        chosen, index = self._choose(slots)
        embeddings = self.model.embed_frames(self.codes[chosen]).unsqueeze(1)
        run = self._run or step_layer
        cache = self.cache if index is not None else self.cache.slots(0, len(slots))
        hidden = self.model.backbone.step(embeddings, cache, self.positions[chosen], n_seen, run, index)
        self.hidden[chosen] = hidden[:, 0]

    def draw(self, slots: Sequence[int]) -> None:
        """`hidden` and `noise` -> `out`, for these slots in rising order."""
        chosen, _ = self._choose(slots)
        noise = gumbel(self.noise[chosen], self.temperature[chosen])
        hidden, cache = self.hidden[chosen], self._decoder_cache.slots(0, len(slots))
        last = hidden

        def pick(logits: torch.Tensor, codebook: int) -> torch.Tensor:
            nonlocal last
            last = logits
            return pick_codes(logits, noise[:, codebook])

        if self._run is None:
            codes = self.model.make_frames(hidden, cache, pick)
        else:
            codes = self.model.make_frames_evenly(hidden, cache, pick, self._run)
        # The last logits come after all keys and values of the depth decoder, so what is wrong in one of its
        # passes is in them too. A sum is not finite if one of its terms is not.
        total = hidden.sum(1, keepdim=True, dtype=torch.float32)
        total = total + last.sum(1, keepdim=True, dtype=torch.float32)
        ended = (codes == 0).all(1, keepdim=True).long()
        self.out[chosen] = torch.cat([codes, torch.where(total.isfinite(), ended, BROKEN)], dim=1)

    def _choose(self, slots: Sequence[int]) -> tuple[slice | torch.Tensor, torch.Tensor | None]:
        """What picks these slots from a buffer: a slice if they are the first ones, else their numbers."""
        if slots[-1] == len(slots) - 1:
            return slice(0, len(slots)), None
        index = torch.tensor(slots, device=self.out.device)
        return index, index


class Runner(Protocol):
    """Runs a step's halves: at once, or as recorded graphs."""

    @property
    def step(self) -> FrameStep: ...

    @property
    def runs_ahead(self) -> bool:
        """Whether the next frame should be under way before the last one is read, so that a device need not
        wait for the host. The end of a take is then seen one frame late."""
        ...

    @property
    def runs_all(self) -> bool:
        """Whether all slots are run, whichever are asked for; the others must have a position to spare."""
        ...

    def fit(self, k: int) -> None:
        """As `FrameStep.fit`."""
        ...

    def advance(self, slots: Sequence[int], n_seen: int) -> None: ...

    def draw(self, slots: Sequence[int]) -> None: ...


class EagerRunner:
    """Runs the step as it stands."""

    runs_ahead = False
    runs_all = False

    def __init__(self, model: CSM, cache: KVCache) -> None:
        self.step = FrameStep(model, cache)

    def fit(self, k: int) -> None:
        self.step.fit(k)

    def advance(self, slots: Sequence[int], n_seen: int) -> None:
        self.step.advance(slots, n_seen)

    def draw(self, slots: Sequence[int]) -> None:
        self.step.draw(slots)


MakeRunner = Callable[[CSM, KVCache], Runner]
"""Makes a runner for the slots of a backbone cache."""
