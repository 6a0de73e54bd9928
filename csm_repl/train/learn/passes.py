"""Passes over batches: the gradients of a step, and the held-out losses.

Everything random is drawn from the seed and the step.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from csm_repl.errors import OutOfMemoryError
from csm_repl.model.device import out_of_memory
from csm_repl.train.data.batches import Batch, BatchPlan, Sequences
from csm_repl.train.learn.loss import choose_frames, frame_losses, hide_frames, hide_voices
from csm_repl.train.learn.network import TrainableCSM
from csm_repl.train.options import TrainOptions

__all__ = ["LossMetrics", "Passes"]

_EVAL_DEPTH_CHUNK = 256


@dataclass
class LossMetrics:
    """Means over the frames of some batches; losses in nats."""

    loss: float = 0.0
    """The weighted sum of the two below."""
    backbone: float = 0.0
    depth: float = 0.0
    accuracy: float = 0.0
    n_frames: int = 0

    def weigh(self, options: TrainOptions) -> None:
        self.loss = options.backbone_weight * self.backbone + options.depth_weight * self.depth


class Passes:
    def __init__(self, network: TrainableCSM, options: TrainOptions) -> None:
        self._network = network
        self._options = options
        network.gradient_checkpointing = options.gradient_checkpointing

    def gradients(self, batches: Sequence[Batch], step: int) -> LossMetrics:
        """Adds the gradients of the batches' common mean loss.

        Args:
            batches: of one step.
            step: the depth decoder's frames and the noise of all dropouts are drawn from its number.

        Raises:
            OutOfMemoryError: the device's memory is too small; no gradient is left.
        """
        options, network = self._options, self._network
        network.train()
        total = LossMetrics(n_frames=sum(batch.n_targets for batch in batches))
        with self.guarded(), _seeded(options.seed, step, network.device) as generator:
            chosen = [choose_frames(batch.n_targets, options.depth_fraction, generator) for batch in batches]
            n_chosen = sum(map(len, chosen))
            for batch, part in zip(batches, chosen, strict=True):
                batch = batch.to(network.device)
                heard = hide_voices(batch, options.voice_dropout, generator)
                heard = hide_frames(heard, options.frame_dropout, generator)
                with self._autocast():
                    losses = frame_losses(
                        network, batch, part, heard=heard, with_speaker=options.speaker_weight > 0
                    )
                backbone = losses.backbone * (losses.n_frames / total.n_frames)
                depth = losses.depth * (losses.n_chosen / n_chosen)
                speaker = losses.speaker / len(batches)
                (
                    options.backbone_weight * backbone
                    + options.depth_weight * depth
                    + options.speaker_weight * speaker
                ).backward()
                total.backbone += float(backbone.detach())
                total.depth += float(depth.detach())
                total.accuracy += int(losses.n_right) / total.n_frames
        total.weigh(options)
        return total

    @torch.no_grad()
    def evaluate(self, sequences: Sequences) -> LossMetrics:
        """The losses of every frame and every codebook, with nothing random."""
        plan = BatchPlan(sequences.lengths, batch_frames=self._options.batch_frames, seed=0)
        total = LossMetrics()
        self._network.eval()
        with self.guarded():
            for indices in plan.epoch(0):
                batch = sequences.batch(indices).to(self._network.device)
                n_frames = batch.n_targets
                with self._autocast():
                    losses = frame_losses(
                        self._network, batch, torch.arange(n_frames), depth_chunk=_EVAL_DEPTH_CHUNK
                    )
                total.n_frames += n_frames
                total.backbone += float(losses.backbone) * n_frames
                total.depth += float(losses.depth) * n_frames
                total.accuracy += int(losses.n_right)
        total.backbone /= total.n_frames
        total.depth /= total.n_frames
        total.accuracy /= total.n_frames
        total.weigh(self._options)
        return total

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Turns a device's out-of-memory errors into ours."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            self._network.zero_grad(set_to_none=True)
            raise OutOfMemoryError(
                f"A step with --batch-frames {self._options.batch_frames} does not fit into the memory of "
                f"{self._network.device}.",
                "Use a smaller --batch-frames (with a larger --accumulate), --gradient-checkpointing, or a "
                "smaller --depth-fraction.",
            ) from error

    def _autocast(self) -> torch.autocast:
        kind = self._network.device.type
        chosen = self._options.dtype
        if chosen == "auto":
            chosen = "bfloat16" if kind == "cuda" and torch.cuda.is_bf16_supported() else "float32"
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=chosen == "bfloat16")


@contextlib.contextmanager
def _seeded(seed: int, step: int, device: torch.device) -> Iterator[torch.Generator]:
    """A generator for a step's choices; dropout's noise is seeded too. The global random state is restored at
    the end of the block."""
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    seed = int.from_bytes(digest[:7], "big")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield torch.Generator().manual_seed(seed)
