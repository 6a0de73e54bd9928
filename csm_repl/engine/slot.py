"""One row of a key/value cache, and the prompt rows that its positions hold.

Positions from `n_cached` on may hold anything, so an exception or a Ctrl-C at any point leaves a valid slot:
the count is raised only after a pass is complete.
"""

from __future__ import annotations

import torch

from csm_repl.model.csm import CSM
from csm_repl.model.transformer import KVCache

__all__ = ["PREFILL_CHUNK", "Slot"]

PREFILL_CHUNK = 256
"""Positions a prefill pass runs at most: bounds its memory, and Ctrl-C is heard between passes."""


class Slot:
    """Compares prompts with what it holds, so that a prompt costs only what is new in it.

    Args:
        model: runs the passes.
        cache: of one row.
    """

    def __init__(self, model: CSM, cache: KVCache) -> None:
        self._model = model
        self.cache = cache
        self.rows = torch.empty(cache.n_positions, model.config.n_codebooks + 1, dtype=torch.int64)
        self.n_cached = 0
        """Positions whose keys and values are valid."""

    def n_common(self, rows: torch.Tensor) -> int:
        """How many rows at the beginning of `rows` [S, K + 1] are here already."""
        n_common = min(self.n_cached, len(rows))
        differs = (rows[:n_common] != self.rows[:n_common]).any(1).nonzero()
        return int(differs[0]) if len(differs) else n_common

    def prefill(self, rows: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Hidden state [D] after `rows`, and how many positions had to be run for it."""
        # The last row is run again when all are cached: its hidden state is not kept.
        n_common = min(self.n_common(rows), len(rows) - 1)
        self.n_cached = n_common
        hidden = torch.empty(0)
        for start in range(n_common, len(rows), PREFILL_CHUNK):
            hidden = self._run(rows[start : start + PREFILL_CHUNK])
        return hidden, len(rows) - n_common

    def _run(self, rows: torch.Tensor) -> torch.Tensor:
        """Appends rows [S, K + 1]; hidden state of the last one, [D]."""
        start = self.n_cached
        embeddings = self._model.embed(rows.to(self._model.device))
        hidden = self._model.run_backbone(embeddings, self.cache, start)
        self.rows[start : start + len(rows)] = rows
        self.n_cached = start + len(rows)
        return hidden

    def append(self, codes: torch.Tensor, codes_host: torch.Tensor) -> torch.Tensor:
        """Appends a frame, int64 [K] on the device and on the host; its hidden state [D]."""
        position = self.n_cached
        hidden = self._model.run_backbone(self._model.embed_frame(codes), self.cache, position)
        self.note_frame(position, codes_host)
        return hidden

    def note_frame(self, position: int, codes_host: torch.Tensor) -> None:
        """Counts `position`, where a step has put the keys and values of a frame int64 [K]."""
        self.rows[position, :-1] = codes_host
        self.rows[position, -1] = -1
        self.n_cached = position + 1

    def take_over(self, donor: Slot, n: int) -> None:
        """Makes the first `n` positions those of `donor`, which has them."""
        self.n_cached = 0
        self.cache.data[..., :n, :].copy_(donor.cache.data[..., :n, :])
        self.rows[:n] = donor.rows[:n]
        self.n_cached = n

    def free_position(self) -> int:
        """A position that a step may write to although nobody will read it; it is not cached any more."""
        self.n_cached = min(self.n_cached, self.cache.n_positions - 1)
        return self.n_cached
