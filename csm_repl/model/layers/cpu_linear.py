"""Linear layers whose weights are integers of 8 or 4 bits with scales, and how a CPU multiplies by them.

`gpu_linear.py` has a GPU's. PyTorch's kernels for such weights take bfloat16 rows, and convert the weight
anew for every four of them. That is right for the one row of a step and wrong for the hundreds of a prefill,
where a block of the weight at a time becomes floating point and is multiplied as `linear.py` does it.
`python -m bench.kernels --only quant` measures both.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from csm_repl.model.layers.linear import multiplies_slowly

__all__ = [
    "GROUP",
    "Int4Linear",
    "Int4NativeLinear",
    "Int4RowsLinear",
    "Int8Linear",
    "QuantizedLinear",
    "empty_parameter",
    "int4_numbers",
    "int4_packing",
    "row_blocks",
]

GROUP = 64
"""Neighbours in a row that share an int4 scale and zero; they cost half a bit per weight."""
INT8_COLUMNS = 16
"""The int8 kernel reads so many columns at once and looks at no bounds."""
INT4_ROWS = 64
"""Rows in the largest block that PyTorch packs together; the smaller ones divide it."""
ALIGNMENT = 64
"""Bytes: a cache line, which the allocator gives. The int8 kernel reads aligned vectors of its rows, and says
nothing about its weights, which may come from a mapped file."""
BLOCK = 2**19
"""Weights made floating point at a time. In float32 they are half of a core's 4 MB of L2 cache here."""
QUANTIZED_AT_A_TIME = 2**22


class QuantizedLinear(nn.Module):
    """`x @ weight.T` without bias, for x of any floating dtype; the subclasses say how the weight is stored.

    Args:
        n_in: columns of the weight.
        n_out: rows of the weight.
    """

    many_rows: ClassVar[int]
    """From so many rows on, multiplying floating point blocks is faster than the kernel."""
    weight: torch.Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.n_padding = 0
        """Columns of zeros that a kernel wants; only models far smaller than CSM-1B need any."""

    @staticmethod
    def quantize(weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """A floating point weight [n_out, n_in] as the parameters of a layer, by name."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Moves a weight that does not start at a multiple of ALIGNMENT."""
        if self.weight.data_ptr() % ALIGNMENT:
            self.weight = _frozen(self.weight.clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x [..., n_in] -> [..., n_out], in x's dtype."""
        # The kernels want rows that lie side by side.
        rows = x.reshape(-1, self.n_in).contiguous()
        if self.n_padding:
            rows = F.pad(rows, (0, self.n_padding))
        if len(rows) < self.many_rows:
            out = self._multiply_few(rows)
        else:
            out = self._multiply_many(rows)
        return out.view(*x.shape[:-1], self.n_out)

    def _multiply_few(self, rows: torch.Tensor) -> torch.Tensor:
        """[R, n_in + n_padding] -> [R, n_out], in rows' dtype."""
        raise NotImplementedError

    def _multiply_many(self, rows: torch.Tensor) -> torch.Tensor:
        """[R, n_in + n_padding] -> [R, n_out], in rows' dtype."""
        raise NotImplementedError


class Int8Linear(QuantizedLinear):
    """Eight bits per weight: `weight[o, i] = q[o, i] * scale[o]`, q from -127 to 127."""

    many_rows = 16
    scales: torch.Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out)
        self.n_padding = -n_in % INT8_COLUMNS
        self.weight = empty_parameter(n_out, n_in + self.n_padding, dtype=torch.int8)
        self.scales = empty_parameter(n_out, dtype=torch.bfloat16)

    @staticmethod
    def quantize(weight: torch.Tensor) -> dict[str, torch.Tensor]:
        n_out, n_in = weight.shape
        out = weight.new_zeros(n_out, n_in + -n_in % INT8_COLUMNS, dtype=torch.int8)
        scales = weight.new_empty(n_out, dtype=torch.bfloat16)
        for rows in row_blocks(n_out, n_in):
            wide = weight[rows].float()
            scale = wide.abs().amax(1) / 127
            # Rounded before it divides, so the integers make up for what the scale lost.
            scales[rows] = scale.masked_fill_(scale == 0, 1.0)
            steps = wide / scales[rows, None].float()
            out[rows, :n_in] = steps.round_().clamp_(-127, 127).to(torch.int8)
        return {"weight": out, "scales": scales}

    def _multiply_few(self, rows: torch.Tensor) -> torch.Tensor:
        narrow = rows.to(torch.bfloat16)
        if narrow.data_ptr() % ALIGNMENT:
            # A piece of a longer row. At an odd address the kernel ends the process.
            narrow = narrow.clone()
        return torch._weight_int8pack_mm(narrow, self.weight, self.scales).to(rows.dtype)

    def _multiply_many(self, rows: torch.Tensor) -> torch.Tensor:
        dtype = _dtype_of_products(rows.dtype)
        wide, scales = rows.to(dtype), self.scales.to(dtype)
        out = rows.new_empty(len(rows), self.n_out)
        step = max(1, BLOCK // rows.shape[1])
        for first in range(0, self.n_out, step):
            part = slice(first, first + step)
            out[:, part] = F.linear(wide, self.weight[part].to(dtype)).mul_(scales[part])
        return out


class Int4Linear(QuantizedLinear):
    """Four bits per weight: `weight[o, i] = (q[o, i] - 8) * scale[i // GROUP, o] + zero[i // GROUP, o]`."""

    many_rows = 32
    scales_and_zeros: torch.Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out)
        self.n_padding = -n_in % GROUP
        n_columns, n_rows = n_in + self.n_padding, n_out + -n_out % INT4_ROWS
        self.weight = empty_parameter(n_rows, n_columns // 2, dtype=torch.uint8)
        self.scales_and_zeros = empty_parameter(n_columns // GROUP, n_rows, 2, dtype=torch.bfloat16)

    @staticmethod
    def quantize(weight: torch.Tensor) -> dict[str, torch.Tensor]:
        n_out, n_in = weight.shape
        n_rows, n_columns = n_out + -n_out % INT4_ROWS, n_in + -n_in % GROUP
        packed = torch.empty(n_rows, n_columns // 2, dtype=torch.uint8)
        scales_and_zeros = torch.empty(n_columns // GROUP, n_rows, 2, dtype=torch.bfloat16)
        for rows in row_blocks(n_rows, n_columns, multiple=INT4_ROWS):
            steps, scale, zero = int4_numbers(weight[rows], rows.stop - rows.start, n_columns)
            packed[rows] = torch._convert_weight_to_int4pack_for_cpu(steps.to(torch.int32), 1)
            # [rows, groups, 2] -> [groups, rows, 2]
            scales_and_zeros[:, rows] = torch.stack([scale, zero], dim=-1).transpose(0, 1)
        return {"weight": packed, "scales_and_zeros": scales_and_zeros}

    def _multiply_few(self, rows: torch.Tensor) -> torch.Tensor:
        narrow = rows.to(torch.bfloat16)
        out = torch._weight_int4pack_mm_for_cpu(narrow, self.weight, GROUP, self.scales_and_zeros)
        out = out.to(rows.dtype)
        return out if out.shape[1] == self.n_out else out[:, : self.n_out].contiguous()

    def _multiply_many(self, rows: torch.Tensor) -> torch.Tensor:
        packing = int4_packing()
        if packing is None:
            return self._multiply_few(rows)
        tall, in_pairs = packing
        n_rows, n_columns = len(rows), rows.shape[1]
        dtype = _dtype_of_products(rows.dtype)
        wide = rows.to(dtype)
        blocks = self.weight.view(-1, n_columns, tall // 2)
        step = max(1, BLOCK // (n_columns * tall))
        out = rows.new_empty(n_rows, len(blocks), tall)
        # In bf16 zeros and scales would be rounded before they cancel: three times a rounded weight's error.
        buffer = torch.empty(step, n_columns, tall)
        for first in range(0, len(blocks), step):
            packed = blocks[first : first + step]
            weight = buffer[: len(packed)]
            _unpack(packed, weight, in_pairs)
            scales, zeros = self._scales(first * tall, len(packed), tall)
            groups = weight.unflatten(1, (-1, GROUP))
            torch.addcmul(zeros, groups, scales, out=groups)
            products = torch.bmm(wide.expand(len(packed), -1, -1), weight.to(dtype))
            out[:, first : first + step] = products.transpose(0, 1)
        flat = out.flatten(1)
        return flat if flat.shape[1] == self.n_out else flat[:, : self.n_out].contiguous()

    def _scales(self, first: int, n_blocks: int, tall: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scales and zeros of some blocks' rows, float32 [blocks, groups, 1, tall]; `q * scale + zero`."""
        pairs = self.scales_and_zeros[:, first : first + n_blocks * tall].float()
        scales, zeros = pairs.unflatten(1, (n_blocks, tall)).permute(3, 1, 0, 2).unsqueeze(3).unbind(0)
        return scales, zeros - 8 * scales


class Int4RowsLinear(QuantizedLinear):
    """The numbers of `Int4Linear`, stored row by row: what our own kernels read, on a CPU and on a GPU.

    A byte holds a column of a row's first half below and one of its second half above, so both halves meet
    neighbours of x. Scales and zeros are [n_out, n_columns / GROUP].
    """

    scales: torch.Tensor
    zeros: torch.Tensor

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out)
        # Each half has whole groups.
        self.n_padding = -n_in % (2 * GROUP)
        n_columns = n_in + self.n_padding
        self.weight = empty_parameter(n_out, n_columns // 2, dtype=torch.uint8)
        self.scales = empty_parameter(n_out, n_columns // GROUP, dtype=torch.bfloat16)
        self.zeros = empty_parameter(n_out, n_columns // GROUP, dtype=torch.bfloat16)

    @staticmethod
    def quantize(weight: torch.Tensor) -> dict[str, torch.Tensor]:
        n_out, n_in = weight.shape
        n_columns = n_in + -n_in % (2 * GROUP)
        packed = weight.new_empty(n_out, n_columns // 2, dtype=torch.uint8)
        scales = weight.new_empty(n_out, n_columns // GROUP, dtype=torch.bfloat16)
        zeros = torch.empty_like(scales)
        for rows in row_blocks(n_out, n_columns):
            steps, scales[rows], zeros[rows] = int4_numbers(weight[rows], rows.stop - rows.start, n_columns)
            first, second = steps.to(torch.uint8).chunk(2, dim=1)
            packed[rows] = first | (second << 4)
        return {"weight": packed, "scales": scales, "zeros": zeros}

    def dequantized(self, dtype: torch.dtype, rows: slice = slice(None)) -> torch.Tensor:
        """Rows of the weight that is multiplied by, rounded to `dtype`: [n, n_in + n_padding]."""
        packed = self.weight[rows]
        steps = torch.cat([packed & 15, packed >> 4], dim=1).unflatten(1, (-1, GROUP))
        # In float32, as the kernels do it, and rounded once.
        scales, zeros = (part[rows].float().unsqueeze(-1) for part in (self.scales, self.zeros))
        return torch.addcmul(zeros - 8 * scales, steps.float(), scales).to(dtype).flatten(1)


class Int4NativeLinear(Int4RowsLinear):
    """For the native kernels. Without them every product makes the weight floating point."""

    many_rows = 1

    def _multiply_many(self, rows: torch.Tensor) -> torch.Tensor:
        dtype = _dtype_of_products(rows.dtype)
        wide = rows.to(dtype)
        out = rows.new_empty(len(rows), self.n_out)
        for part in row_blocks(self.n_out, rows.shape[1], size=BLOCK):
            out[:, part] = F.linear(wide, self.dequantized(dtype, part))
        return out


@functools.cache
def int4_packing() -> tuple[int, bool] | None:
    """How PyTorch packs 4 bits here: rows in a block, and whether the rows of a byte are neighbours.

    Otherwise the second one is half a block below the first. It depends on the CPU's vectors and is
    promised nowhere, so it is looked at; None: packed in a way that is not known.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(16, (2 * INT4_ROWS, GROUP), generator=generator, dtype=torch.int32)
    packed = torch._convert_weight_to_int4pack_for_cpu(weight, 1)
    if packed.dtype != torch.uint8 or packed.numel() * 2 != weight.numel():
        return None
    for tall in (64, 32, 16):
        for in_pairs in (False, True):
            blocks = torch.empty(2 * INT4_ROWS // tall, GROUP, tall)
            _unpack(packed.view(-1, GROUP, tall // 2), blocks, in_pairs)
            if torch.equal(blocks.transpose(1, 2).reshape(weight.shape).to(torch.int32), weight):
                return tall, in_pairs
    return None


def _unpack(packed: torch.Tensor, out: torch.Tensor, in_pairs: bool) -> None:
    """Bytes [blocks, n_in, tall / 2] -> integers from 0 to 15 in out, floating point [blocks, n_in, tall]."""
    if in_pairs:
        first, second = out.unflatten(2, (-1, 2)).unbind(3)
    else:
        first, second = out.unflatten(2, (2, -1)).unbind(2)
    first.copy_(packed & 15)
    second.copy_(packed >> 4)


def _dtype_of_products(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if multiplies_slowly(dtype, "cpu") else dtype


def int4_numbers(
    weight: torch.Tensor, n_rows: int, n_columns: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What int4 makes of a piece of a weight, `(step - 8) * scale + zero`, filled up with zeros.

    Args:
        weight: floating point [at most n_rows, at most n_columns].
        n_rows: rows of the result.
        n_columns: columns of the result, a multiple of GROUP.

    Returns:
        Steps [n_rows, n_columns], from 0 to 15 in float32; scales and zeros [n_rows, n_columns / GROUP],
        bfloat16.
    """
    wide = weight.float()
    wide = F.pad(wide, (0, n_columns - wide.shape[1], 0, n_rows - len(wide)))
    groups = wide.unflatten(1, (-1, GROUP))
    low, high = groups.aminmax(dim=-1)
    # Both are rounded before the integers are chosen, which make up for what was lost.
    scale = ((high - low) / 15).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    divisor = scale.masked_fill(scale == 0, 1.0).float().unsqueeze(-1)
    steps = ((groups - zero.float().unsqueeze(-1)) / divisor).round_().add_(8).clamp_(0, 15)
    return steps.flatten(1), scale, zero


def row_blocks(
    n_rows: int, n_columns: int, *, multiple: int = 1, size: int = QUANTIZED_AT_A_TIME
) -> Iterator[slice]:
    """Slices of rows with some `size` weights, which bound the memory that is needed beside them."""
    step = max(1, size // (n_columns * multiple)) * multiple
    for first in range(0, n_rows, step):
        yield slice(first, min(first + step, n_rows))


def empty_parameter(*shape: int, dtype: torch.dtype) -> nn.Parameter:
    """A frozen parameter on the meta device, which loading replaces."""
    return _frozen(torch.empty(*shape, dtype=dtype, device="meta"))


def _frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
