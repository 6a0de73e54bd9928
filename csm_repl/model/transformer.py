"""A Llama-3 transformer made for generating one position at a time.

Fused query/key/value and gate/up projections, grouped-query attention, key/value caches that are
allocated once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from csm_repl.files.config import RopeConfig, TransformerConfig
from csm_repl.model.kv_cache import KVCache, LayerCache
from csm_repl.model.layers.cpu_linear import QuantizedLinear
from csm_repl.model.layers.linear import Linear
from csm_repl.model.layers.native import NativeTransformer

__all__ = ["Layer", "Transformer", "apply_rope", "rope_frequencies", "rope_table", "step_layer"]

StepLayer = Callable[
    ["Layer", torch.Tensor, torch.Tensor, torch.Tensor, "tuple[torch.Tensor, torch.Tensor]", torch.Tensor],
    torch.Tensor,
]
"""`step_layer` or what was compiled of it."""
SMALL_TABLE = 64
"""So few positions have their rotations laid out for all heads once: the depth decoder's, which come anew
in every frame."""


def rope_frequencies(config: RopeConfig, head_dim: int) -> torch.Tensor:
    """Angular frequencies [head_dim / 2], float64, after Llama 3's scaling.

    Wavelengths beyond `original_context / low_freq_factor` are stretched by `factor`, those below
    `original_context / high_freq_factor` are left, those between are blended linearly in
    `original_context / wavelength` (Llama 3.1 release notes; the same in torchtune and transformers).
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    frequencies = config.base**-exponents
    turns = config.original_context * frequencies / (2 * math.pi)
    blend = (turns - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor)
    blend = blend.clamp(0.0, 1.0)
    return frequencies * (blend + (1.0 - blend) / config.factor)


def rope_table(config: RopeConfig, head_dim: int, n_positions: int, device: torch.device) -> torch.Tensor:
    """Cosines and sines [n_positions, head_dim / 2, 2], always float32.

    Rounded to bf16 every entry would be off by up to 2^-9; the rotation is therefore never computed in the
    model's dtype.
    """
    positions = torch.arange(n_positions, dtype=torch.float64)
    angles = torch.outer(positions, rope_frequencies(config, head_dim))
    return torch.stack([angles.cos(), angles.sin()], dim=-1).float().to(device)


def apply_rope(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Rotates the interleaved pairs of x [B, S, H, Dh]; keeps x's dtype.

    Args:
        x: heads.
        table: cosines and sines in float32, [S, Dh / 2, 2] for all heads alike or [S, H, Dh / 2, 2].
    """
    if table.ndim == 3:
        table = table.unsqueeze(1)
    # A pair is a complex number, and rotating is one multiplication instead of six operations.
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.view_as_complex(table)).flatten(-2).to(x.dtype)


def _apply_rope_compiled(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """As `apply_rope`, in real numbers: the compiler makes one kernel of them, and none of complex ones."""
    first, second = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table.unbind(-1)
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm; `F.rms_norm` computes in float32 and rounds once."""

    weight: torch.Tensor

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, device="meta"), requires_grad=False)
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Layer(nn.Module):
    """One block: attention and gated feed-forward, each behind a norm, each added to the stream."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = config.n_heads, config.n_kv_heads, config.head_dim
        self.group = config.n_heads // config.n_kv_heads
        n_q, n_kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
        self.attn_norm = RMSNorm(config.dim, config.norm_eps)
        self.wqkv = Linear(config.dim, n_q + 2 * n_kv)
        self.wo = Linear(n_q, config.dim)
        self.mlp_norm = RMSNorm(config.dim, config.norm_eps)
        self.w_gate_up = Linear(config.dim, 2 * config.intermediate_dim)
        self.w_down = Linear(config.intermediate_dim, config.dim)

    def forward(
        self, x: torch.Tensor, table: torch.Tensor, cache: LayerCache, mask: torch.Tensor | None
    ) -> torch.Tensor:
        x = x + self.wo(self._attend(self.attn_norm(x), table, cache, mask))
        gate, up = self.w_gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.w_down(F.silu(gate) * up)

    def _attend(
        self, x: torch.Tensor, table: torch.Tensor, cache: LayerCache, mask: torch.Tensor | None
    ) -> torch.Tensor:
        n_batch, n_new, _ = x.shape
        heads = apply_rope(self.wqkv(x).view(n_batch, n_new, -1, self.head_dim), table)
        q, kv = heads.split([self.n_heads, 2 * self.n_kv_heads], dim=2)
        written, keys, values = cache
        # [B, S, 2 * Hkv, Dh] -> [2, B, Hkv, S, Dh]
        written.copy_(kv.unflatten(2, (2, self.n_kv_heads)).permute(2, 0, 3, 1, 4))
        if n_new == 1:
            # The heads of a group share keys and see all of them: one small product does for them.
            grouped = q.reshape(n_batch, self.n_kv_heads, self.group, self.head_dim)
            y = F.scaled_dot_product_attention(grouped, keys, values)
            return y.reshape(n_batch, 1, -1)
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), keys, values, attn_mask=mask, enable_gqa=self.group > 1
        )
        return y.transpose(1, 2).reshape(n_batch, n_new, -1)

    def attend_step(
        self,
        x: torch.Tensor,
        table: torch.Tensor,
        data: torch.Tensor,
        where: tuple[torch.Tensor, torch.Tensor],
        mask: torch.Tensor,
    ) -> torch.Tensor:
        """Attention of one new position a slot; the arguments are those of `step_layer`."""
        n_batch = len(x)
        turn = _apply_rope_compiled if torch.compiler.is_compiling() else apply_rope
        heads = turn(self.wqkv(x).view(n_batch, 1, -1, self.head_dim), table)
        q, kv = heads.split([self.n_heads, 2 * self.n_kv_heads], dim=2)
        slots, positions = where
        # Both sides are [B, 2, Hkv, Dh]. The compiler does an indexed assignment in place, and would copy all
        # of `data` for a scatter.
        data[:, slots, :, positions] = kv[:, 0].unflatten(1, (2, self.n_kv_heads))
        seen = data.narrow(3, 0, mask.shape[-1])
        keys, values = (seen if data.shape[1] == n_batch else seen.index_select(1, slots)).unbind(0)
        grouped = q.reshape(n_batch, self.n_kv_heads, self.group, self.head_dim)
        y = F.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
        return y.reshape(n_batch, 1, -1)


def step_layer(
    layer: Layer,
    x: torch.Tensor,
    table: torch.Tensor,
    data: torch.Tensor,
    where: tuple[torch.Tensor, torch.Tensor],
    mask: torch.Tensor,
) -> torch.Tensor:
    """One block for one new position of each of B slots, in shapes that do not depend on the positions.

    Args:
        layer: the block. A function of it, because all blocks of a transformer are then compiled once.
        x: the stream [B, 1, D].
        table: the positions' rotations [B, 1, H + 2 * Hkv, Dh / 2, 2].
        data: the block's keys and values [2, n_slots, Hkv, n_positions, Dh], written in place.
        where: slots and positions, int64 [B] each; B = n_slots means all slots in order.
        mask: which of the first positions each sees, bool [B, 1, 1, n_seen].
    """
    x = x + layer.wo(layer.attend_step(layer.attn_norm(x), table, data, where, mask))
    gate, up = layer.w_gate_up(layer.mlp_norm(x)).chunk(2, dim=-1)
    out: torch.Tensor = x + layer.w_down(F.silu(gate) * up)
    return out


class Transformer(nn.Module):
    """Layers and final norm; maps embeddings to hidden states. Built on the meta device."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.table: torch.Tensor | None = None
        self._small_table: torch.Tensor | None = None
        self._native: NativeTransformer | None = None

    def prepare(self, n_positions: int, device: torch.device, *, native: bool = False) -> None:
        """Makes the rotary table for `n_positions`, which is no weight and never cast; lays out weights.

        Args:
            native: whether few positions are run by the native kernels, which must be there.
        """
        self.table = rope_table(self.config.rope, self.config.head_dim, n_positions, device)
        self._small_table = self._expand(self.table) if n_positions <= SMALL_TABLE else None
        for module in self.modules():
            # The native kernels read a floating point weight as it was published.
            if isinstance(module, QuantizedLinear) or (isinstance(module, Linear) and not native):
                module.prepare()
        self._native = NativeTransformer(self) if native else None

    def new_cache(self, n_positions: int, *, dtype: torch.dtype, batch_size: int = 1) -> KVCache:
        device = self.norm.weight.device
        return KVCache(self.config, n_positions, batch_size=batch_size, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor, cache: KVCache, start: int) -> torch.Tensor:
        """Runs positions start ... start + S - 1 and leaves their keys and values in `cache`.

        Args:
            x: embeddings [B, S, D].
            cache: holds valid entries for the positions before `start`.
            start: first position.

        Returns:
            Hidden states after the final norm, [B, S, D].
        """
        n_batch, n_new, _ = x.shape
        end = start + n_new
        if self._native is not None and n_batch * n_new <= self._native.max_rows:
            rows = torch.arange(n_batch).repeat_interleave(n_new)
            positions = torch.arange(start, end).repeat(n_batch)
            return self._native(x.flatten(0, 1), cache, rows, positions).view_as(x)
        mask = None
        if n_new > 1:
            new = torch.arange(start, end, device=x.device)
            mask = torch.arange(end, device=x.device)[None, :] <= new[:, None]
        table = self._table(start, end)
        for layer, layer_cache in zip(self.layers, cache.layers(start, end), strict=True):
            x = layer(x, table, layer_cache, mask)
        out: torch.Tensor = self.norm(x)
        return out

    def step(
        self,
        x: torch.Tensor,
        cache: KVCache,
        positions: torch.Tensor,
        n_seen: int,
        run: StepLayer = step_layer,
        slots: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Runs one position of each of B slots and leaves keys and values in `cache`.

        No value is read back to the host, and all shapes follow from B and `n_seen`.

        Args:
            x: embeddings [B, 1, D].
            cache: a slot holds valid entries for the positions before its own.
            positions: int64 [B]. From `n_seen` on, a slot's result means nothing.
            n_seen: positions that are looked at, those behind a slot's own being masked.
            run: runs a block.
            slots: int64 [B], which slots of the cache; None: all of them, in order.

        Returns:
            Hidden states after the final norm, [B, 1, D].
        """
        assert self.table is not None, "prepare() has not been called"
        if slots is None:
            slots = torch.arange(len(x), device=x.device)
        if self._native is not None and run is step_layer and len(x) <= self._native.max_rows:
            return self._native(x[:, 0], cache, slots, positions).unsqueeze(1)
        table = self._expand(self.table.index_select(0, positions)).unsqueeze(1)
        seen = torch.arange(n_seen, device=x.device) <= positions.unsqueeze(1)
        mask = seen.view(-1, 1, 1, n_seen)
        where = (slots, positions)
        for layer, data in zip(self.layers, cache.data.unbind(0), strict=True):
            assert isinstance(layer, Layer)
            x = run(layer, x, table, data, where, mask)
        out: torch.Tensor = self.norm(x)
        return out

    def _table(self, start: int, end: int) -> torch.Tensor:
        """The rotations of positions start ... end - 1, [S, H + 2 * Hkv, Dh / 2, 2]."""
        if self._small_table is not None:
            return self._small_table[start:end]
        assert self.table is not None, "prepare() has not been called"
        return self._expand(self.table[start:end])

    def _expand(self, table: torch.Tensor) -> torch.Tensor:
        """Rotations [S, Dh / 2, 2] for all heads, [S, H + 2 * Hkv, Dh / 2, 2].

        Values are turned as position 0 is, by nothing: so queries, keys and values stay one tensor until
        they are stored.
        """
        assert self.table is not None, "prepare() has not been called"
        config = self.config
        turned = table[:, None].expand(-1, config.n_heads + config.n_kv_heads, -1, -1)
        still = self.table[0].expand(len(table), config.n_kv_heads, -1, -1)
        return torch.cat([turned, still], dim=1)
