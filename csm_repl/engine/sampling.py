"""Choosing a code from logits, on the device and with a generator of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["Sampler", "SamplingOptions"]


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


class Sampler:
    """Draws the codes of one take; its noise comes from one seed and nothing else.

    `argmax(p / e)` with exponential noise `e` draws from `p`; in logarithms that is
    `argmax(logits + g)` with Gumbel noise `g = -log(e)`, which needs no softmax. Only the top k logits get
    noise, and the noise of a whole frame is drawn at once.
    """

    def __init__(
        self, options: SamplingOptions, *, seed: int, n_codebooks: int, vocab_size: int, device: torch.device
    ) -> None:
        self.options = options
        self._k = min(options.top_k, vocab_size)
        self._shape = (n_codebooks, self._k)
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._noise = torch.empty(self._shape, dtype=torch.float32, device=device)

    @property
    def k(self) -> int:
        """Codes of a codebook that get noise."""
        return self._k

    def next_frame(self) -> None:
        """Draws the noise of a new frame; must be called before its first `pick`."""
        if not self.options.greedy:
            # Noise times temperature orders the codes as logits divided by temperature do.
            self.next_exponential().log_().mul_(-self.options.temperature)

    def next_exponential(self) -> torch.Tensor:
        """Exponential noise [K, k] of a new frame, for a step that does the rest. The next draw replaces it.

        Greedy options draw nothing and must not ask.
        """
        return self._noise.exponential_(generator=self._generator)

    def state(self) -> torch.Tensor:
        """How far the noise is drawn, for `restore`."""
        return self._generator.get_state()

    def restore(self, state: torch.Tensor) -> None:
        """Takes back what was drawn since: the next frame gets that noise."""
        self._generator.set_state(state)

    def pick(self, logits: torch.Tensor, codebook: int) -> torch.Tensor:
        """Logits [V] of a codebook -> chosen code, int64 []; no host synchronisation."""
        if self.options.greedy:
            return logits.argmax()
        top, codes = torch.topk(logits, self._k)
        choice = (top + self._noise[codebook]).argmax()
        # Indexing with a tensor would read it back to the host.
        return codes.take(choice)
