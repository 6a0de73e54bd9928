"""Triton kernels that multiply a few rows by a weight of 8 or 4 bits; `gpu_linear.py` runs them.

Few rows read each weight once and compute next to nothing, so reading is the work: a program takes some rows
of the weight, reads them in long pieces, and adds up in float32. One row is multiplied element by element,
several by `tl.dot`, whose operands hold the integers and fp8 numbers exactly; scales come afterwards. Block
sizes follow from the shapes: trying them out (`triton.autotune`) would take seconds at a start and must not
happen while a CUDA graph is recorded. Measured on one GPU so far, see docs/performance.md.

The only module that imports triton, which does not exist for macOS; `gpu_linear.py` imports it when a layer
first runs. With TRITON_INTERPRET=1 the kernels run on a CPU, slowly, for tests.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
import triton
import triton.language as tl

from csm_repl.model.layers import cpu_linear

__all__ = ["multiply_4_bits", "multiply_8_bits"]

GROUP = tl.constexpr(cpu_linear.GROUP)
MANY_OUTPUTS = 2048
"""A weight with fewer rows is cut into flatter blocks, or most processors of a large GPU would have none."""
BYTES_AT_ONCE = 1024
"""Of a row of the weight, where x is one row."""
STAGES = 3
"""Blocks that are on their way from memory at a time."""
FEWEST_ROWS = 16
"""What `tl.dot` multiplies; rows that are missing are zeros."""
INTERPRETED = bool(triton.knobs.runtime.interpret)
"""The interpreter keeps bfloat16 as integers and multiplies those, so there the operands are float32."""

_OPERANDS = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}


@triton.jit
def _one_row(
    x: tl.tensor, weight: tl.tensor, scales: tl.tensor, out: tl.tensor, n_out: tl.tensor, n_in: tl.tensor,
    block_out: tl.constexpr, block_in: tl.constexpr, n_stages: tl.constexpr,
) -> None:  # fmt: skip
    """x [n_in], weight [n_out, n_in], scales [n_out] -> out [n_out]."""
    outputs = tl.program_id(0) * block_out + tl.arange(0, block_out)
    # Instead of a mask: a row too many is read again and not stored.
    rows = tl.minimum(outputs, n_out - 1)
    columns = tl.arange(0, block_in)
    starts = rows.to(tl.int64)[:, None] * n_in
    sums = tl.zeros((block_out, block_in), tl.float32)
    for start in tl.range(0, n_in, block_in, num_stages=n_stages):
        here = start + columns
        w = tl.load(weight + starts + here[None, :], mask=(here < n_in)[None, :], other=0.0)
        v = tl.load(x + here, mask=here < n_in, other=0.0)
        sums += w.to(tl.float32) * v.to(tl.float32)[None, :]
    total = tl.sum(sums, 1) * tl.load(scales + rows).to(tl.float32)
    tl.store(out + outputs, total.to(out.dtype.element_ty), mask=outputs < n_out)


@triton.jit(do_not_specialize=["n_rows"])
def _some_rows(
    x: tl.tensor, weight: tl.tensor, scales: tl.tensor, out: tl.tensor,
    n_rows: tl.tensor, n_out: tl.tensor, n_in: tl.tensor,
    operand: tl.constexpr, block_rows: tl.constexpr, block_out: tl.constexpr, block_in: tl.constexpr,
) -> None:  # fmt: skip
    """x [n_rows, n_in], weight [n_out, n_in], scales [n_out] -> out [n_rows, n_out]."""
    outputs = tl.program_id(0) * block_out + tl.arange(0, block_out)
    rows = tl.minimum(outputs, n_out - 1)
    takes = tl.arange(0, block_rows)
    columns = tl.arange(0, block_in)
    starts = rows.to(tl.int64)[:, None] * n_in
    sums = tl.zeros((block_out, block_rows), tl.float32)
    for start in range(0, n_in, block_in):
        here = start + columns
        w = tl.load(weight + starts + here[None, :], mask=(here < n_in)[None, :], other=0.0)
        seen = (here < n_in)[:, None] & (takes < n_rows)[None, :]
        v = tl.load(x + takes[None, :] * n_in + here[:, None], mask=seen, other=0.0)
        sums = tl.dot(w.to(operand), v.to(operand), sums, input_precision="ieee")
    total = sums * tl.load(scales + rows).to(tl.float32)[:, None]
    stored = (outputs < n_out)[:, None] & (takes < n_rows)[None, :]
    places = out + takes[None, :] * n_out + outputs[:, None]
    tl.store(places, total.to(out.dtype.element_ty), mask=stored)


@triton.jit(do_not_specialize=["n_groups"])
def _one_row_int4(
    x: tl.tensor, weight: tl.tensor, scales: tl.tensor, zeros: tl.tensor, out: tl.tensor,
    n_out: tl.tensor, n_groups: tl.tensor,
    block_out: tl.constexpr, block_groups: tl.constexpr, n_stages: tl.constexpr,
) -> None:  # fmt: skip
    """x [2 * n_groups * GROUP], weight [n_out, n_groups * GROUP], scales and zeros [n_out, 2 * n_groups]."""
    outputs = tl.program_id(0) * block_out + tl.arange(0, block_out)
    rows = tl.minimum(outputs, n_out - 1).to(tl.int64)
    n_bytes = n_groups * GROUP
    inner = tl.arange(0, GROUP)
    groups = tl.arange(0, block_groups)
    sums = tl.zeros((block_out, block_groups), tl.float32)
    for start in tl.range(0, n_groups, block_groups, num_stages=n_stages):
        here = start + groups
        seen = here < n_groups
        columns = here[:, None] * GROUP + inner[None, :]
        w = tl.load(
            weight + rows[:, None, None] * n_bytes + columns[None, :, :], mask=seen[None, :, None], other=0
        )
        first = tl.load(x + columns, mask=seen[:, None], other=0.0).to(tl.float32)
        second = tl.load(x + n_bytes + columns, mask=seen[:, None], other=0.0).to(tl.float32)
        where = rows[:, None] * (2 * n_groups) + here[None, :]
        s_first = tl.load(scales + where, mask=seen[None, :], other=0.0).to(tl.float32)
        s_second = tl.load(scales + where + n_groups, mask=seen[None, :], other=0.0).to(tl.float32)
        z_first = tl.load(zeros + where, mask=seen[None, :], other=0.0).to(tl.float32)
        z_second = tl.load(zeros + where + n_groups, mask=seen[None, :], other=0.0).to(tl.float32)
        low = (w & 15).to(tl.float32) - 8.0
        high = (w >> 4).to(tl.float32) - 8.0
        sums += tl.sum(low * first[None, :, :], 2) * s_first + tl.sum(first, 1)[None, :] * z_first
        sums += tl.sum(high * second[None, :, :], 2) * s_second + tl.sum(second, 1)[None, :] * z_second
    tl.store(out + outputs, tl.sum(sums, 1).to(out.dtype.element_ty), mask=outputs < n_out)


@triton.jit(do_not_specialize=["n_rows", "n_groups"])
def _some_rows_int4(
    x: tl.tensor, weight: tl.tensor, scales: tl.tensor, zeros: tl.tensor, out: tl.tensor,
    n_rows: tl.tensor, n_out: tl.tensor, n_groups: tl.tensor,
    operand: tl.constexpr, block_rows: tl.constexpr, block_out: tl.constexpr,
) -> None:  # fmt: skip
    """As `_one_row_int4` for x [n_rows, 2 * n_groups * GROUP] -> out [n_rows, n_out]."""
    outputs = tl.program_id(0) * block_out + tl.arange(0, block_out)
    rows = tl.minimum(outputs, n_out - 1).to(tl.int64)
    takes = tl.arange(0, block_rows)
    inner = tl.arange(0, GROUP)
    n_bytes = n_groups * GROUP
    seen = (takes < n_rows)[None, :]
    sums = tl.zeros((block_out, block_rows), tl.float32)
    for group in range(0, n_groups):
        columns = group * GROUP + inner
        w = tl.load(weight + rows[:, None] * n_bytes + columns[None, :])
        places = x + takes[None, :] * (2 * n_bytes) + columns[:, None]
        first = tl.load(places, mask=seen, other=0.0).to(operand)
        second = tl.load(places + n_bytes, mask=seen, other=0.0).to(operand)
        where = rows * (2 * n_groups) + group
        s_first = tl.load(scales + where).to(tl.float32)
        s_second = tl.load(scales + where + n_groups).to(tl.float32)
        z_first = tl.load(zeros + where).to(tl.float32)
        z_second = tl.load(zeros + where + n_groups).to(tl.float32)
        low = ((w & 15).to(tl.int8) - 8).to(operand)
        high = ((w >> 4).to(tl.int8) - 8).to(operand)
        sums += tl.dot(low, first, input_precision="ieee") * s_first[:, None]
        sums += tl.dot(high, second, input_precision="ieee") * s_second[:, None]
        sums += tl.sum(first.to(tl.float32), 0)[None, :] * z_first[:, None]
        sums += tl.sum(second.to(tl.float32), 0)[None, :] * z_second[:, None]
    stored = (outputs < n_out)[:, None] & seen
    tl.store(out + takes[None, :] * n_out + outputs[:, None], sums.to(out.dtype.element_ty), mask=stored)


def multiply_8_bits(rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """`rows @ (weight * scales[:, None]).T`.

    Args:
        rows: floating point [R, n_in], side by side; R is small, though any number works.
        weight: int8 or float8_e4m3fn [n_out, n_in].
        scales: floating point [n_out].

    Returns:
        [R, n_out] in rows' dtype; summed in float32, scaled and rounded once.
    """
    if torch.compiler.is_compiling():
        return _compiled_8_bits(rows, weight, scales)
    (n_rows, n_in), n_out = rows.shape, len(weight)
    out = rows.new_empty(n_rows, n_out)
    with _on_device_of(rows):
        if n_rows == 1:
            block = 4 if n_out < MANY_OUTPUTS else 8
            _one_row[(triton.cdiv(n_out, block),)](
                rows, weight, scales, out, n_out, n_in,
                block_out=block, block_in=BYTES_AT_ONCE, n_stages=_stages(n_in), num_warps=4,
            )  # fmt: skip
        else:
            tall, width = _dot_blocks(n_out), _padded(n_rows)
            _some_rows[(triton.cdiv(n_out, tall),)](
                rows, weight, scales, out, n_rows, n_out, n_in,
                operand=_operand(rows), block_rows=width, block_out=tall,
                block_in=256 if width == FEWEST_ROWS else 128,
                num_warps=4, num_stages=_dot_stages(rows, width),
            )  # fmt: skip
    return out


def multiply_4_bits(
    rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor
) -> torch.Tensor:
    """`rows @ ((q - 8) * scales + zeros).T`, scales and zeros each for GROUP columns.

    Args:
        rows: floating point [R, n_in], side by side; n_in is a multiple of 2 * GROUP.
        weight: uint8 [n_out, n_in / 2]; byte j holds q of column j below and of column n_in / 2 + j above.
        scales: floating point [n_out, n_in / GROUP].
        zeros: likewise.

    Returns:
        [R, n_out] in rows' dtype; summed in float32, group by group, and rounded once.
    """
    if torch.compiler.is_compiling():
        return _compiled_4_bits(rows, weight, scales, zeros)
    n_rows, n_out, n_groups = len(rows), len(weight), scales.shape[1] // 2
    out = rows.new_empty(n_rows, n_out)
    with _on_device_of(rows):
        if n_rows == 1:
            block = 4 if n_out < MANY_OUTPUTS else 8
            _one_row_int4[(triton.cdiv(n_out, block),)](
                rows, weight, scales, zeros, out, n_out, n_groups,
                block_out=block, block_groups=BYTES_AT_ONCE // GROUP.value,
                n_stages=_stages(weight.shape[1]), num_warps=4,
            )  # fmt: skip
        else:
            tall, width = _dot_blocks(n_out), _padded(n_rows)
            _some_rows_int4[(triton.cdiv(n_out, tall),)](
                rows, weight, scales, zeros, out, n_rows, n_out, n_groups,
                operand=_operand(rows), block_rows=width, block_out=tall,
                num_warps=4, num_stages=_dot_stages(rows, width),
            )  # fmt: skip
    return out


# What torch.compile sees: operations it knows nothing about but their shapes.


@torch.library.custom_op(
    "csm_repl::multiply_8_bits",
    mutates_args=(),
    schema="(Tensor rows, Tensor weight, Tensor scales) -> Tensor",
)
def _compiled_8_bits(rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return multiply_8_bits(rows, weight, scales)


@torch.library.custom_op(
    "csm_repl::multiply_4_bits",
    mutates_args=(),
    schema="(Tensor rows, Tensor weight, Tensor scales, Tensor zeros) -> Tensor",
)
def _compiled_4_bits(
    rows: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor
) -> torch.Tensor:
    return multiply_4_bits(rows, weight, scales, zeros)


@_compiled_8_bits.register_fake
@_compiled_4_bits.register_fake
def _empty_product(rows: torch.Tensor, weight: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    return rows.new_empty(len(rows), len(weight))


def _stages(n_bytes: int) -> int:
    return min(STAGES, triton.cdiv(n_bytes, BYTES_AT_ONCE))


def _dot_blocks(n_out: int) -> int:
    """Rows of the weight that one program takes."""
    return 16 if n_out < 2 * MANY_OUTPUTS else 32


def _padded(n_rows: int) -> int:
    return max(FEWEST_ROWS, triton.next_power_of_2(n_rows))


def _dot_stages(rows: torch.Tensor, width: int) -> int:
    """As many as the shared memory of a smaller GPU has room for (99 KB)."""
    return STAGES if rows.itemsize * width <= 128 else 2


def _operand(rows: torch.Tensor) -> tl.dtype:
    return tl.float32 if INTERPRETED else _OPERANDS[rows.dtype]


def _on_device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
