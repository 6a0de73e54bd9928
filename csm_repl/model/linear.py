"""A linear layer that picks the fastest exact kernel for the number of rows.

Knows nothing about what it is a layer of.
"""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Linear"]

# Below this many rows, casting the weight to float32 costs more than the slow product it avoids
# (2 cores without bf16 instructions: break-even between 8 and 16 rows, `bench/kernels.py`).
UPCAST_ROWS = 12


@functools.cache
def _has_half_gemm(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies matrices of `dtype` in hardware."""
    if dtype == torch.bfloat16:
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False


class Linear(nn.Module):
    """`x @ weight.T` without bias; weight [n_out, n_in].

    On a CPU two things differ from `nn.Linear`, both measured by `bench/kernels.py`: a single row goes
    through `torch.mv`, which reads bf16 weights about 1.5 times as fast as `F.linear` does, and many rows
    are multiplied in float32 where the CPU has no bf16 instructions (3.5 times as fast; the result is
    rounded once, so it is at least as exact).
    """

    weight: torch.Tensor

    def __init__(self, n_in: int, n_out: int, *, device: torch.device | str = "meta") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in, device=device), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., n_in] -> [..., n_out]."""
        weight = self.weight
        if weight.device.type != "cpu":
            return F.linear(x, weight)
        n_rows = x.numel() // x.shape[-1]
        if n_rows == 1:
            return torch.mv(weight, x.reshape(-1)).view(*x.shape[:-1], -1)
        if n_rows >= UPCAST_ROWS and weight.dtype != torch.float32 and not _has_half_gemm(weight.dtype):
            return F.linear(x.float(), weight.float()).to(x.dtype)
        return F.linear(x, weight)
