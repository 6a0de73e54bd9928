"""What a peer is asked for and what it answers, and the random weights that all of them get."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from csm_repl.files.config import ModelConfig, parse_config
from tools.random_checkpoint import FULL_FLAVORS, TINY_FLAVORS

__all__ = [
    "FULL_SIZE",
    "SIZES",
    "Job",
    "Peer",
    "Take",
    "clock",
    "fill_random",
    "fill_tensor",
    "random_noise",
    "random_prompt",
]

FULL_SIZE: ModelConfig = parse_config(FULL_FLAVORS, source="full size")
SIZES = {"full": FULL_SIZE, "tiny": parse_config(TINY_FLAVORS, source="tiny size")}
"""`tiny` shows that a benchmark runs; its figures mean nothing."""
_N_TEXT = 40
_BLOCK = 2**24 + 43
"""Elements that are drawn; larger tensors repeat them. Odd, so that no two rows of a matrix are equal."""


@dataclass(frozen=True)
class Job:
    """One take to be timed; sampling as in the original release."""

    dtype: torch.dtype
    n_context: int
    n_frames: int
    device: str = "cpu"
    quantize: str = "none"
    temperature: float = 0.9
    top_k: int = 50
    seed: int = 0
    size: str = "full"
    native: bool = True
    """Whether csm_repl uses its native kernels."""

    @property
    def config(self) -> ModelConfig:
        return SIZES[self.size]


@dataclass
class Take:
    """What a take took, in seconds."""

    build_s: float
    prefill_s: float
    """The backbone's pass over the prompt."""
    frames_s: list[float]
    """Of each frame; the first one contains the prefill."""


Peer = Callable[[Job], Take]


def clock(device: str) -> float:
    """Seconds, after everything queued on the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter()


def fill_random(module: nn.Module, *, seed: int = 0) -> None:
    """Norms one, everything else normal with the fan-in's scale; buffers keep their values."""
    parameters = list(module.parameters())
    noise = random_noise(parameters[0].device, parameters[0].dtype, seed=seed)
    for parameter in parameters:
        parameter.requires_grad_(False)
        fill_tensor(parameter, noise)


def random_noise(device: torch.device | str, dtype: torch.dtype, *, seed: int = 0) -> torch.Tensor:
    """A block of normal numbers for `fill_tensor`.

    The cost of a product does not depend on its values as long as they are normal numbers, so a block of
    noise is repeated: drawing 1.6 billion numbers would take longer than the measurement.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    return torch.empty(_BLOCK, device=device, dtype=dtype).normal_(generator=generator)


@torch.no_grad()
def fill_tensor(tensor: torch.Tensor, noise: torch.Tensor) -> None:
    if tensor.ndim < 2:
        tensor.fill_(1.0)
        return
    flat = tensor.view(-1)
    for start in range(0, len(flat), _BLOCK):
        piece = flat[start : start + _BLOCK]
        piece.copy_(noise[: len(piece)])
    flat.mul_(1.0 / math.sqrt(tensor.shape[1]))


def random_prompt(job: Job) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [n_audio, K] and text ids [n_text] that make up `job.n_context` positions together."""
    generator = torch.Generator().manual_seed(job.seed)
    n_text = min(_N_TEXT, job.n_context)
    shape = (job.n_context - n_text, job.config.n_codebooks)
    codes = torch.randint(job.config.audio_vocab_size, shape, generator=generator)
    return codes, torch.randint(job.config.text_vocab_size, (n_text,), generator=generator)
