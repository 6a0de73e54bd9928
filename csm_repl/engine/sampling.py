"""Choosing codes from logits, on the device, with noise that comes from a take's seed alone.

`argmax(p / e)` with exponential noise `e` draws from `p`; in logarithms that is `argmax(logits + g)` with
Gumbel noise `g = -log(e)`, which needs no softmax. Only the top k logits get noise, and the noise of a whole
frame is drawn at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["SamplingOptions", "TakeNoise", "gumbel", "pick_codes"]


@dataclass(frozen=True)
class SamplingOptions:
    """How codes are drawn. The defaults are those of the original release."""

    temperature: float = 0.9
    """Divides the logits; 0 takes the likeliest code."""
    top_k: int = 50
    """Codes that may be drawn; 1 takes the likeliest."""

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must not be negative, and is {self.temperature}")
        if self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, and is {self.top_k}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1


class TakeNoise:
    """The noise of one take, frame by frame; it neither uses nor changes the global random state.

    Args:
        options: how codes are drawn; greedy ones use no noise.
        seed: of the take.
        n_codebooks: K.
        vocab_size: codes of a codebook.
        device: where the noise is drawn. Devices draw different noise from one seed.
    """

    def __init__(
        self, options: SamplingOptions, *, seed: int, n_codebooks: int, vocab_size: int, device: torch.device
    ) -> None:
        self.options = options
        self.k = min(options.top_k, vocab_size)
        """Codes of a codebook that get noise."""
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._noise = torch.empty(n_codebooks, self.k, dtype=torch.float32, device=device)

    def next_exponential(self) -> torch.Tensor:
        """Exponential noise [K, k] of a new frame. The next call replaces it."""
        return self._noise.exponential_(generator=self._generator)

    def state(self) -> torch.Tensor:
        """How far the noise is drawn, for `restore`."""
        return self._generator.get_state()

    def restore(self, state: torch.Tensor) -> None:
        """Puts back what was drawn since: the next frame gets that noise."""
        self._generator.set_state(state)


def gumbel(exponential: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
    """Exponential noise [B, K, k] -> what is added to the logits, for temperatures [B].

    Noise times temperature orders the codes as logits divided by temperature do.
    """
    return exponential.log() * -temperature[:, None, None]


def pick_codes(logits: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Logits [B, V] and noise [B, k] for the k largest of each -> codes int64 [B]; reads nothing back."""
    top, codes = torch.topk(logits, noise.shape[1])
    choice = (top + noise).argmax(1, keepdim=True)
    return codes.gather(1, choice)[:, 0]
