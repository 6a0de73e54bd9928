"""Keys and values of a transformer, for one sequence or for several slots."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch

from csm_repl.files.config import TransformerConfig

__all__ = ["KVCache", "LayerCache"]

LayerCache = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Views of one layer: new keys and values [2, B, Hkv, S, Dh], all keys and all values [B, Hkv, end, Dh]."""


class KVCache:
    """Keys and values of all layers, [n_layers, 2, B, n_kv_heads, n_positions, Dh], allocated once."""

    def __init__(
        self,
        config: TransformerConfig,
        n_positions: int,
        *,
        batch_size: int = 1,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (config.n_layers, 2, batch_size, config.n_kv_heads, n_positions, config.head_dim)
        self.data = torch.zeros(shape, device=device, dtype=dtype)
        self.n_positions = n_positions

    @property
    def n_bytes(self) -> int:
        return self.data.numel() * self.data.element_size()

    def slots(self, first: int, n: int = 1) -> KVCache:
        """The part of `n` slots of the batch; it shares their memory."""
        part = copy.copy(self)
        part.data = self.data.narrow(2, first, n)
        return part

    def layers(self, start: int, end: int) -> Iterator[LayerCache]:
        """For each layer: where positions start ... end - 1 go, and keys and values of 0 ... end - 1.

        All views are made in two calls: indexing the big tensor in every layer costs more than attention.
        """
        written = self.data.narrow(-2, start, end - start).unbind(0)
        seen = self.data.narrow(-2, 0, end).flatten(0, 1).unbind(0)
        return zip(written, seen[::2], seen[1::2], strict=True)
