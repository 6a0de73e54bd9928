"""Quantised layers against plain formulas, for few and many rows and for sizes that fit no kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from csm_repl.model.layers import cpu_linear, linear
from csm_repl.model.layers.cpu_linear import (
    ALIGNMENT,
    GROUP,
    Int4Linear,
    Int4NativeLinear,
    Int8Linear,
    QuantizedLinear,
)
from tests.support.linear import BF16, CPU_KINDS, layer, random_rows, random_weight, relative, stored
from tests.support.paths import ROOT

SIZES = [(64, 64), (16, 48), (32, 16), (100, 37), (192, 130), (1, 1), (640, 65)]
ROWS = [1, 2, 5, 15, 16, 31, 32, 70]
ERROR = {Int8Linear: 0.012, Int4Linear: 0.12, Int4NativeLinear: 0.12}
"""Of a whole product of normal numbers, relative: 0.8 % and 9 % are expected."""


@pytest.fixture(params=[False, True], ids=["float32 products", "bf16 products"])
def each_product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides of what the CPU decides."""
    monkeypatch.setattr(linear, "bf16_is_fast", lambda: request.param)


@pytest.mark.usefixtures("each_product")
@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
@pytest.mark.parametrize("kind", CPU_KINDS)
def test_a_product_is_that_of_the_stored_weight(
    kind: type[QuantizedLinear], n_in: int, n_out: int, n_rows: int
) -> None:
    weight = random_weight(n_in, n_out)
    x = random_rows(n_rows, n_in).bfloat16()
    out = layer(weight, kind)(x)
    assert (out.shape, out.dtype) == ((n_rows, n_out), torch.bfloat16)
    assert relative(out, x.double() @ stored(weight, kind).T) < BF16


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_the_stored_weight_is_close_to_the_original(kind: type[QuantizedLinear]) -> None:
    weight, x = random_weight(512, 128), random_rows(4, 512).bfloat16()
    assert relative(layer(weight, kind)(x), x.double() @ weight.double().T) < ERROR[kind]


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_no_weight_is_off_by_more_than_half_a_step(kind: type[QuantizedLinear]) -> None:
    weight = random_weight(128, 64)
    left = layer(weight, kind)(torch.eye(128)).T
    is_int4 = kind is not Int8Linear
    groups = weight.view(64, -1, GROUP if is_int4 else 128)
    steps = groups.amax(-1) - groups.amin(-1) if is_int4 else 2 * groups.abs().amax(-1)
    step = steps / (15 if is_int4 else 254)
    # Scales and zeros are bf16: their rounding moves the ends of the range by a little.
    allowed = 0.5 * step + BF16 * groups.abs().amax(-1)
    assert ((left - weight).view(groups.shape).abs().amax(-1) <= allowed).all()


@pytest.mark.usefixtures("each_product")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", CPU_KINDS)
def test_few_and_many_rows_agree_in_every_dtype(kind: type[QuantizedLinear], dtype: torch.dtype) -> None:
    made = layer(random_weight(192, 100), kind)
    x = random_rows(40, 192).to(dtype)
    together, alone = made(x), torch.cat([made(row[None]) for row in x])
    assert together.dtype == alone.dtype == dtype
    assert relative(alone, together) < BF16


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_many_rows_of_float32_are_multiplied_in_float32(kind: type[QuantizedLinear]) -> None:
    weight, x = random_weight(192, 100), random_rows(40, 192)
    # int4's zeros and scales meet in float32 before they meet the integers.
    assert relative(layer(weight, kind)(x), x.double() @ stored(weight, kind).T) < 1e-5


@pytest.mark.parametrize("kind", [Int4Linear, Int4NativeLinear])
def test_products_in_bf16_are_by_the_stored_weight_rounded_once(
    kind: type[QuantizedLinear], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "bf16_is_fast", lambda: True)
    weight = random_weight(128, 64)
    found = layer(weight, kind)._multiply_many(torch.eye(128).bfloat16()).T
    # Zero and scale come together in float32, which may turn a tie.
    torch.testing.assert_close(found.double(), stored(weight, kind), rtol=BF16 + 1e-5, atol=1e-6)


@pytest.mark.parametrize("block", [1, 5_000, 20_000])
@pytest.mark.parametrize("kind", CPU_KINDS)
def test_blocks_of_any_size_give_the_same(
    kind: type[QuantizedLinear], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, x = layer(random_weight(128, 300), kind), random_rows(40, 128)
    whole = made(x)
    monkeypatch.setattr(cpu_linear, "BLOCK", block)
    torch.testing.assert_close(made(x), whole, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_quantising_in_pieces_gives_the_same(
    kind: type[QuantizedLinear], monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = random_weight(100, 300)
    whole = kind.quantize(weight)
    monkeypatch.setattr(cpu_linear, "QUANTIZED_AT_A_TIME", 1)
    for name, tensor in kind.quantize(weight).items():
        assert torch.equal(tensor, whole[name])


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_quantising_leaves_the_weight_as_it_is(kind: type[QuantizedLinear]) -> None:
    weight = random_weight(64, 64)
    before = weight.clone()
    kind.quantize(weight)
    assert torch.equal(weight, before)


@pytest.mark.usefixtures("each_product")
@pytest.mark.parametrize("n_rows", [1, 40])
@pytest.mark.parametrize("kind", CPU_KINDS)
def test_rows_of_zeros_and_of_one_number_are_kept(kind: type[QuantizedLinear], n_rows: int) -> None:
    weight = random_weight(128, 4)
    weight[1], weight[2] = 0.0, 0.5
    out = layer(weight, kind)(torch.ones(n_rows, 128))
    assert (out[:, 1] == 0).all()
    torch.testing.assert_close(out[:, 2], torch.full((n_rows,), 64.0), atol=0.3, rtol=0)


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_leading_dimensions_are_kept(kind: type[QuantizedLinear]) -> None:
    made, x = layer(random_weight(32, 20), kind), random_rows(2, 3, 32)
    assert torch.equal(made(x), made(x.view(6, 32)).view(2, 3, 20))
    assert made(x[0, 0]).shape == (20,)


@pytest.mark.usefixtures("each_product")
@pytest.mark.parametrize("n_rows", [1, 5, 40])
@pytest.mark.parametrize("kind", CPU_KINDS)
def test_rows_that_do_not_lie_side_by_side(kind: type[QuantizedLinear], n_rows: int) -> None:
    made, wide = layer(random_weight(64, 20), kind), random_rows(n_rows, 3, 64).bfloat16()
    assert torch.equal(made(wide[:, 1]), made(wide[:, 1].clone()))


@pytest.mark.usefixtures("each_product")
@pytest.mark.parametrize("n_rows", [1, 3, 40])
@pytest.mark.parametrize("kind", CPU_KINDS)
def test_rows_at_an_odd_address(kind: type[QuantizedLinear], n_rows: int) -> None:
    made, memory = layer(random_weight(64, 20), kind), random_rows(n_rows * 64 + 1).bfloat16()
    odd = memory[1:].view(n_rows, 64)
    assert odd.data_ptr() % 32
    assert torch.equal(made(odd), made(odd.clone()))


@pytest.mark.parametrize("kind", CPU_KINDS)
def test_a_weight_at_an_odd_address_is_moved(kind: type[QuantizedLinear]) -> None:
    weight = random_weight(64, 64)
    state = kind.quantize(weight)
    memory = torch.empty(state["weight"].numel() + 1, dtype=state["weight"].dtype)
    odd = memory[1:].view(state["weight"].shape).copy_(state["weight"])
    made = kind(64, 64)
    made.load_state_dict({**state, "weight": odd}, assign=True)
    made.prepare()
    assert made.weight.data_ptr() % ALIGNMENT == 0
    x = random_rows(1, 64).bfloat16()
    assert torch.equal(made(x), layer(weight, kind)(x))


def test_an_unknown_packing_is_left_to_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = random_weight(192, 100), random_rows(40, 192).bfloat16()
    monkeypatch.setattr(cpu_linear, "int4_packing", lambda: None)
    assert relative(layer(weight, Int4Linear)(x), x.double() @ stored(weight, Int4Linear).T) < BF16


_OTHER_CPU = """
import torch
import torch
from csm_repl.model.layers import cpu_linear, linear
from tests.support.linear import *
print(torch.backends.cpu.get_cpu_capability(), cpu_linear.int4_packing() is not None)
for is_fast in (False, True):
    linear.bf16_is_fast = lambda: is_fast
    for kind in CPU_KINDS:
        for n_rows in (1, 40):
            weight, x = random_weight(192, 100), random_rows(n_rows, 192).bfloat16()
            print(relative(layer(weight, kind)(x), x.double() @ stored(weight, kind).T) < BF16)
"""


@pytest.mark.slow(reason="starts programs for other CPUs")
@pytest.mark.parametrize("capability", ["avx2", "default"])
def test_cpus_with_narrower_vectors_pack_in_another_way_that_is_known(capability: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OTHER_CPU],
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    if not done.stdout.lower().startswith(capability):
        pytest.skip(f"this build of PyTorch has nothing for {capability}")
    assert done.stdout.split()[1:] == ["True"] * 13, done.stderr
