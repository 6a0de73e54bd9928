"""A linear layer that picks the fastest exact kernel for the number of rows.

The choices are for PyTorch 2.9; where no CPU is named, the figures are those of one without bf16
instructions. `python -m bench.kernels` measures every one of them.
"""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["Linear", "bf16_is_fast", "multiplies_slowly"]

UPCAST_ROWS = 3
"""From this many rows on, multiplying in float32 pays for casting the weight."""
MANY_ROWS = 64
FEW_ROWS_BLOCK, MANY_ROWS_BLOCK = 2**18, 2**21
"""Weights cast at a time. For a few rows the cast block should stay in a core's L2 cache; many rows want
large products. Larger ones still would gain 3 % and at times lose 20 %: glibc returns blocks of 16 MB and
more to the system, and the page faults of getting them again cost more than the cast."""
SHORT_ROW, TALL = 1024, 8192
"""`torch.mv` sets up a sum for every row of the weight: with short rows and many of them that shows."""
_WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}
_WITHOUT_AMX = _WITHOUT_BF16 | {"AVX512_CORE_BF16", "AVX512_CORE_FP16"}
"""Values of ONEDNN_MAX_CPU_ISA (oneDNN's developer guide, "CPU Dispatcher Control")."""


@functools.cache
def bf16_is_fast() -> bool:
    """Whether this CPU multiplies matrices of bf16 faster than those of float32.

    With AMX it does. AVX-512's bf16 instruction alone does not decide it: 500 rows of gate/up (16384x2048) on
    two cores take 77 ms in bf16 and 183 in float32 on AMD's Zen 4, whose 512-bit float32 runs at half rate,
    and 203 and 119 on a CPU whose float32 runs at full rate, as Intel's does. A rule and not a trial: a
    seed's bytes must not depend on how busy the machine is. Within the instructions that
    ONEDNN_MAX_CPU_ISA leaves to oneDNN, which does these products.
    """
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    if torch.cpu._is_amx_tile_supported() and allowed not in _WITHOUT_AMX:
        return True
    has_bf16 = torch.cpu._is_avx512_bf16_supported() and allowed not in _WITHOUT_BF16
    return has_bf16 and _cpu_vendor() == "AuthenticAMD"


def _cpu_vendor() -> str:
    """The vendor's name as CPUID gives it; empty where it is not known."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor().rpartition(", ")[2]
    return next((line.rpartition(": ")[2] for line in lines if line.startswith("vendor_id")), "")


def multiplies_slowly(dtype: torch.dtype, device: str) -> bool:
    """Whether products of matrices of `dtype` are slower than those of float32."""
    if device != "cpu" or dtype == torch.float32:
        return False
    return dtype != torch.bfloat16 or not bf16_is_fast()


class Linear(nn.Module):
    """`x @ weight.T` without bias; weight [n_out, n_in].

    On a CPU it differs from `nn.Linear` in three ways, unless it is fast in bf16 and the weights are bf16. A
    single row goes through `torch.mv`, which reads bf16 weights 1.6 times as fast as `F.linear` (on a fast
    one, Zen 4, half as fast). Where products of the dtype are slow, more rows are multiplied in float32,
    block by block of the weight: twice as fast for 8 rows, 4.8 times for 500, and rounded once, so at
    least as exact. And `prepare` turns the layout of some weights.
    """

    weight: torch.Tensor

    def __init__(self, n_in: int, n_out: int, *, device: torch.device | str = "meta") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in, device=device), requires_grad=False)

    def prepare(self) -> None:
        """Stores a weight with many short rows column by column, which `torch.mv` reads 1.2 times as fast."""
        n_out, n_in = self.weight.shape
        has_short_rows = n_in <= SHORT_ROW and n_out >= TALL
        if has_short_rows and multiplies_slowly(self.weight.dtype, self.weight.device.type):
            self.weight = nn.Parameter(self.weight.t().contiguous().t(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., n_in] -> [..., n_out]."""
        weight = self.weight
        is_slow = multiplies_slowly(weight.dtype, weight.device.type)
        if weight.device.type != "cpu" or (weight.dtype != torch.float32 and not is_slow):
            return F.linear(x, weight)
        n_rows = x.numel() // x.shape[-1]
        if n_rows == 1:
            return torch.mv(weight, x.reshape(-1)).view(*x.shape[:-1], -1)
        if is_slow and n_rows >= UPCAST_ROWS:
            return _upcast_linear(x, weight, FEW_ROWS_BLOCK if n_rows < MANY_ROWS else MANY_ROWS_BLOCK)
        return F.linear(x, weight)


def _upcast_linear(x: torch.Tensor, weight: torch.Tensor, block_size: int) -> torch.Tensor:
    """`F.linear` in float32, rounded to x's dtype; casts `block_size` weights at a time."""
    n_out, n_in = weight.shape
    step = max(1, block_size // n_in)
    wide = x.float()
    out = x.new_empty(*x.shape[:-1], n_out)
    for row in range(0, n_out, step):
        out[..., row : row + step] = F.linear(wide, weight[row : row + step].float())
    return out
