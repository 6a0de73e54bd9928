"""Linear layers on an NVIDIA GPU whose weights are int8, fp8 or int4 with scales; x stays as it is.

Up to `MANY_ROWS` rows go through Triton kernels that read the stored weight and nothing else. For the
hundreds of a prefill the weight becomes floating point, which costs little beside such a product. Nothing
reads a value back to the host, and shapes decide everything, so a CUDA graph can record it. `gpu_kernels.py`,
and with it triton, is imported when a layer first runs.
"""

from __future__ import annotations

import logging
import time

import torch
from torch import nn
from torch.nn import functional as F

from csm_repl.errors import DeviceError
from csm_repl.model.device import out_of_memory
from csm_repl.model.layers.cpu_linear import (
    Int4RowsLinear,
    Int8Linear,
    QuantizedLinear,
    empty_parameter,
    row_blocks,
)

__all__ = ["Fp8GpuLinear", "GpuLinear", "Int4GpuLinear", "Int8GpuLinear", "compile_kernels"]

MANY_ROWS = 65
"""From so many rows on the weight becomes floating point; batches stay below: 32 takes have at most 64."""
ROWS_OF_KERNELS = (1, 2, 32, 64, MANY_ROWS)
"""One number of rows for each way to multiply."""
LARGEST_FP8 = torch.finfo(torch.float8_e4m3fn).max

log = logging.getLogger(__name__)


class GpuLinear(QuantizedLinear):
    """`x @ weight.T` without bias, for x of any floating dtype; subclasses say how the weight is stored."""

    many_rows = MANY_ROWS

    def dequantized(self, dtype: torch.dtype, rows: slice = slice(None)) -> torch.Tensor:
        """Rows of the weight that is multiplied by, rounded to `dtype`: [n, n_in + n_padding]."""
        raise NotImplementedError

    def _multiply_many(self, rows: torch.Tensor) -> torch.Tensor:
        return F.linear(rows, self.dequantized(rows.dtype))


class _EightBitGpuLinear(GpuLinear):
    """`weight[o, i] = q[o, i] * scale[o]`."""

    scales: torch.Tensor

    def dequantized(self, dtype: torch.dtype, rows: slice = slice(None)) -> torch.Tensor:
        # Multiplied in float32: in float16 a small scale would lose bits.
        return self.weight[rows].to(dtype).mul_(self.scales[rows].float()[:, None])

    def _multiply_few(self, rows: torch.Tensor) -> torch.Tensor:
        from csm_repl.model.layers.gpu_kernels import multiply_8_bits

        return multiply_8_bits(rows, self.weight, self.scales)


class Int8GpuLinear(_EightBitGpuLinear, Int8Linear):
    """The integers and scales of `Int8Linear`, stored alike."""


class Fp8GpuLinear(_EightBitGpuLinear):
    """q is float8_e4m3fn, three bits and an exponent: finer than int8 for small weights only."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out)
        self.weight = empty_parameter(n_out, n_in, dtype=torch.float8_e4m3fn)
        self.scales = empty_parameter(n_out, dtype=torch.bfloat16)

    @staticmethod
    def quantize(weight: torch.Tensor) -> dict[str, torch.Tensor]:
        n_out, n_in = weight.shape
        out = torch.empty_like(weight, dtype=torch.float8_e4m3fn, memory_format=torch.contiguous_format)
        scales = weight.new_empty(n_out, dtype=torch.bfloat16)
        for rows in row_blocks(n_out, n_in):
            wide = weight[rows].float()
            scale = wide.abs().amax(1) / LARGEST_FP8
            scales[rows] = scale.masked_fill_(scale == 0, 1.0)
            # The scale was rounded, and what is too large becomes no number at all.
            numbers = (wide / scales[rows, None].float()).clamp_(-LARGEST_FP8, LARGEST_FP8)
            out[rows] = numbers.to(torch.float8_e4m3fn)
        return {"weight": out, "scales": scales}


class Int4GpuLinear(Int4RowsLinear, GpuLinear):
    """The numbers of `Int4Linear`, stored row by row."""

    def _multiply_few(self, rows: torch.Tensor) -> torch.Tensor:
        from csm_repl.model.layers.gpu_kernels import multiply_4_bits

        return multiply_4_bits(rows, self.weight, self.scales, self.zeros)


def compile_kernels(model: nn.Module, dtype: torch.dtype) -> None:
    """Has Triton compile every kernel that a model's layers will need, or find it in its cache on disk.

    Otherwise the first prompt and the first batch would wait for it, and a recording would have to compile.

    Args:
        model: its layers are on a CUDA device.
        dtype: what it multiplies.

    Raises:
        DeviceError: they cannot be compiled here: Triton needs a C compiler, and Python's headers.
    """
    layers = {
        (type(layer), layer.n_in, layer.n_out): layer
        for layer in model.modules()
        if isinstance(layer, GpuLinear) and layer.weight.is_cuda
    }
    started = time.perf_counter()
    try:
        for layer in layers.values():
            for n_rows in ROWS_OF_KERNELS:
                layer(torch.zeros(n_rows, layer.n_in, dtype=dtype, device=layer.weight.device))
    except Exception as error:  # of triton's compiler, of a C compiler, of the driver: no common base
        if out_of_memory(error):
            raise
        log.warning("the kernels of quantised weights failed", exc_info=True)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DeviceError(
            f"The kernels for quantised weights do not run here: {lines[0][:200]}",
            "Install a C compiler (gcc) and Python's headers, which Triton needs, or use --quantize none.",
        ) from error
    if layers:
        log.info("kernels of quantised weights were ready after %.2f s", time.perf_counter() - started)
