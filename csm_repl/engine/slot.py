"""One slot of a key/value cache, and what its positions hold.

Positions from `n_cached` on may hold anything, so an exception or a Ctrl-C at any point leaves a valid slot:
the count is raised only after a pass is complete.
"""

from __future__ import annotations

import torch

from csm_repl.model.csm import CSM
from csm_repl.model.kv_cache import KVCache

__all__ = ["Slot"]


class Slot:
    """Compares prompts with what it holds, so that a prompt costs only what is new in it.

    Args:
        model: runs the passes.
        cache: of one slot.
    """

    def __init__(self, model: CSM, cache: KVCache) -> None:
        self._model = model
        self.cache = cache
        self.held = torch.empty(cache.n_positions, model.config.n_codebooks + 1, dtype=torch.int64)
        """What the positions hold, int64 [n_positions, K + 1]; valid before `n_cached`."""
        self.n_cached = 0
        """Positions whose keys and values are valid."""

    def n_common(self, prompt: torch.Tensor) -> int:
        """How many positions at the beginning of `prompt` [S, K + 1] are here already."""
        n_common = min(self.n_cached, len(prompt))
        differs = (prompt[:n_common] != self.held[:n_common]).any(1).nonzero()
        return int(differs[0]) if len(differs) else n_common

    def keep_common(self, prompt: torch.Tensor) -> int:
        """Forgets what is not the beginning of `prompt`; how many positions of it have to be run.

        The last one always has to: nobody keeps its hidden state.
        """
        self.n_cached = min(self.n_common(prompt), len(prompt) - 1)
        return len(prompt) - self.n_cached

    def prefill(self, prompt: torch.Tensor, n: int) -> torch.Tensor | None:
        """Runs the next `n` positions of a prompt of which the slot holds the beginning.

        Returns:
            The hidden state [D] after the prompt, or None while positions are missing.
        """
        start = self.n_cached
        new = prompt[start : start + n]
        embeddings = self._model.embed(new.to(self._model.device))
        hidden = self._model.run_backbone(embeddings, self.cache, start)
        self.held[start : start + len(new)] = new
        self.n_cached = start + len(new)
        return hidden if self.n_cached == len(prompt) else None

    def note_frame(self, position: int, codes: torch.Tensor) -> None:
        """Counts `position`, where a step has put the keys and values of a frame int64 [K]."""
        self.held[position, :-1] = codes
        self.held[position, -1] = -1
        self.n_cached = position + 1

    def take_over(self, donor: Slot, n: int) -> None:
        """Makes the first `n` positions those of `donor`, which has them."""
        self.n_cached = 0
        self.cache.data[..., :n, :].copy_(donor.cache.data[..., :n, :])
        self.held[:n] = donor.held[:n]
        self.n_cached = n

    def free_position(self) -> int:
        """A position that a step may write to although nobody will read it; it is not cached any more."""
        self.n_cached = min(self.n_cached, self.cache.n_positions - 1)
        return self.n_cached
