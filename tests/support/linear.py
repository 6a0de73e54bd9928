"""Quantised layers of random weights, and what is left of the weights."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from csm_repl.model.layers.cpu_linear import GROUP, Int4Linear, Int4NativeLinear, Int8Linear, QuantizedLinear
from csm_repl.model.layers.gpu_linear import Fp8GpuLinear, GpuLinear, Int4GpuLinear, Int8GpuLinear

CPU_KINDS = [Int8Linear, Int4Linear, Int4NativeLinear]
GPU_KINDS: list[type[GpuLinear]] = [Int8GpuLinear, Fp8GpuLinear, Int4GpuLinear]
GPU_MODES = ["int8", "fp8", "int4"]
BF16 = 2.0**-8
"""A rounding at its worst. Over a whole product one is 0.0017 and two are 0.0024: where products are bf16 the
result is rounded, and before it an int4 weight or an int8 product."""


def stored(weight: torch.Tensor, kind: type[QuantizedLinear]) -> torch.Tensor:
    """The weight that is left of `weight`, computed anew in float64: [n_out, n_in]."""
    n_out, n_in = weight.shape
    if kind is Int8Linear:
        scale = (weight.abs().amax(1, keepdim=True) / 127).bfloat16().double()
        return (weight.double() / scale).round().clamp(-127, 127) * scale
    groups = F.pad(weight, (0, -n_in % GROUP)).view(n_out, -1, GROUP)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((high - low) / 15).bfloat16().float()
    zero = (low + 8 * scale).bfloat16().double()
    steps = ((groups.double() - zero) / scale.double()).round().clamp(-8, 7)
    return (steps * scale.double() + zero).view(n_out, -1)[:, :n_in]


def layer(weight: torch.Tensor, kind: type[QuantizedLinear]) -> QuantizedLinear:
    n_out, n_in = weight.shape
    made = kind(n_in, n_out)
    made.load_state_dict(kind.quantize(weight), assign=True)
    made.prepare()
    return made


def random_weight(n_in: int, n_out: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n_out, n_in, generator=torch.Generator().manual_seed(seed))


def random_rows(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())
