"""Plain layers: the same product whichever way the CPU makes them take, and which way that is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from csm_repl.model.layers import linear
from csm_repl.model.layers.linear import Linear, bf16_is_fast, multiplies_slowly

ONE_ROUNDING = {torch.float32: 1e-6, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""At its worst, relative; products are summed in float32 in any case."""
SIZES = [(64, 48), (1024, 8192), (2048, 300)]


@pytest.fixture(autouse=True)
def _fresh_answer() -> Iterator[None]:
    bf16_is_fast.cache_clear()
    yield
    bf16_is_fast.cache_clear()


@pytest.mark.parametrize("is_fast", [False, True])
@pytest.mark.parametrize("dtype", ONE_ROUNDING)
@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_a_product_is_rounded_once(
    n_in: int, n_out: int, dtype: torch.dtype, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "bf16_is_fast", lambda: is_fast)
    generator = torch.Generator().manual_seed(0)
    made = Linear(n_in, n_out)
    made.weight = nn.Parameter(torch.randn(n_out, n_in, generator=generator).to(dtype), requires_grad=False)
    made.prepare()
    for shape in ((1, 1), (2,), (3,), (2, 20), (65,)):
        x = torch.randn(*shape, n_in, generator=generator).to(dtype)
        out, right = made(x), x.double() @ made.weight.double().T
        assert (out.shape, out.dtype) == ((*shape, n_out), dtype)
        assert (out.double() - right).norm() / right.norm() < ONE_ROUNDING[dtype]


@pytest.mark.parametrize(
    ("flags", "vendor", "allowed", "is_fast"),
    [
        ("", "AuthenticAMD", "", False),
        ("bf16", "AuthenticAMD", "", True),
        ("bf16", "GenuineIntel", "", False),
        ("bf16", "", "", False),
        ("bf16 amx", "GenuineIntel", "", True),
        ("bf16", "AuthenticAMD", "AVX512_CORE", False),
        ("bf16", "AuthenticAMD", "avx512_core_bf16", True),
        ("bf16 amx", "GenuineIntel", "AVX2", False),
        ("bf16 amx", "GenuineIntel", "AVX512_CORE_BF16", False),
        ("bf16 amx", "GenuineIntel", "ALL", True),
    ],
)
def test_bf16_is_fast_where_it_was_measured_to_be(
    flags: str, vendor: str, allowed: str, is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: "bf16" in flags)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: "amx" in flags)
    monkeypatch.setattr(linear, "_cpu_vendor", lambda: vendor)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert bf16_is_fast() is is_fast
    assert multiplies_slowly(torch.bfloat16, "cpu") is not is_fast


def test_only_bf16_depends_on_the_cpu() -> None:
    assert multiplies_slowly(torch.float16, "cpu")
    assert not multiplies_slowly(torch.float32, "cpu")
    assert not multiplies_slowly(torch.bfloat16, "cuda")
