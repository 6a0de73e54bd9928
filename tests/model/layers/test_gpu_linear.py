"""A GPU's quantised layers: what they store and how they fit into a model; the kernels have other tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from csm_repl.errors import DeviceError, OutOfMemoryError
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.layers import cpu_linear
from csm_repl.model.layers.cpu_linear import GROUP, Int4Linear, Int8Linear
from csm_repl.model.layers.gpu_linear import (
    MANY_ROWS,
    Fp8GpuLinear,
    GpuLinear,
    Int4GpuLinear,
    Int8GpuLinear,
    compile_kernels,
)
from csm_repl.model.layers.native.build import compilers
from csm_repl.model.quantize import empty_csm, is_quantized, quantize_parameter, storage_id, storage_name
from csm_repl.model.weights import weight_cache
from csm_repl.model.weights.convert import load_csm
from csm_repl.model.weights.weight_cache import WeightCache
from tests.support.linear import (
    BF16,
    GPU_KINDS,
    GPU_MODES,
    layer,
    random_rows,
    random_weight,
    relative,
    stored,
)
from tests.support.paths import ROOT
from tests.support.weight_files import Conversions, assert_equal, files

SIZES = [(64, 64), (16, 48), (100, 37), (200, 130), (1, 1), (640, 65)]
ERROR = {Int8GpuLinear: 0.012, Fp8GpuLinear: 0.04, Int4GpuLinear: 0.12}
"""Of a whole product of normal numbers, relative: 0.8, 2.6 and 9 % are expected."""


# What is stored


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_int8_is_stored_as_on_a_cpu(n_in: int, n_out: int) -> None:
    weight = random_weight(n_in, n_out)
    here, there = Int8Linear.quantize(weight), Int8GpuLinear.quantize(weight)
    assert here.keys() == there.keys()
    assert all(torch.equal(here[name], there[name]) for name in here)
    made = Int8GpuLinear(n_in, n_out)
    assert {name: p.shape for name, p in made.named_parameters()} == {n: t.shape for n, t in here.items()}


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_int4_has_the_numbers_that_a_cpu_has(n_in: int, n_out: int) -> None:
    weight = random_weight(n_in, n_out)
    found = layer(weight, Int4GpuLinear).dequantized(torch.float32)
    # What stands in the columns behind n_in meets zeros.
    torch.testing.assert_close(found[:, :n_in].double(), stored(weight, Int4Linear), atol=1e-6, rtol=1e-6)


def test_a_byte_holds_a_column_of_each_half() -> None:
    made = layer(random_weight(256, 3), Int4GpuLinear)
    steps = torch.cat([made.weight & 15, made.weight >> 4], dim=1)
    numbers, _, _ = cpu_linear.int4_numbers(random_weight(256, 3), 3, 256)
    assert torch.equal(steps, numbers.to(torch.uint8))
    assert made.weight.shape == (3, 128)
    assert made.scales.shape == made.zeros.shape == (3, 256 // GROUP)


@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_fp8_is_the_nearest_number_under_a_scale_for_each_row(n_in: int, n_out: int) -> None:
    weight = random_weight(n_in, n_out)
    scale = (weight.abs().amax(1, keepdim=True) / 448).bfloat16().double()
    expected = (weight.double() / scale).clamp(-448, 448).to(torch.float8_e4m3fn).double() * scale
    found = layer(weight, Fp8GpuLinear).dequantized(torch.float32)
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-6)


def test_no_fp8_weight_becomes_no_number() -> None:
    """A scale that was rounded down makes the largest weight larger than fp8 can hold."""
    weight = torch.linspace(0.5, 4.0, 1000).unsqueeze(1) * torch.ones(1, 3)
    found = layer(weight, Fp8GpuLinear).dequantized(torch.float32)
    assert found.isfinite().all()
    torch.testing.assert_close(found, weight, atol=0, rtol=0.004)


@pytest.mark.parametrize("kind", GPU_KINDS)
def test_the_stored_weight_is_close_to_the_original(kind: type[GpuLinear]) -> None:
    weight, x = random_weight(512, 128), random_rows(MANY_ROWS, 512)
    assert relative(layer(weight, kind)(x), x.double() @ weight.double().T) < ERROR[kind]


@pytest.mark.parametrize("kind", GPU_KINDS)
def test_quantising_in_pieces_gives_the_same(kind: type[GpuLinear], monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random_weight(100, 300)
    before, whole = weight.clone(), kind.quantize(weight)
    monkeypatch.setattr(cpu_linear, "QUANTIZED_AT_A_TIME", 1)
    for name, tensor in kind.quantize(weight).items():
        assert torch.equal(tensor, whole[name])
    assert torch.equal(weight, before)


# Many rows need no kernel


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", GPU_KINDS)
def test_many_rows_are_multiplied_by_the_stored_weight(kind: type[GpuLinear], dtype: torch.dtype) -> None:
    made, x = layer(random_weight(200, 37), kind), random_rows(3, MANY_ROWS, 200).to(dtype)
    out = made(x)
    assert (out.shape, out.dtype) == ((3, MANY_ROWS, 37), dtype)
    expected = F.linear(x.double(), made.dequantized(torch.float32)[:, :200].double())
    assert relative(out, expected) < (1e-6 if dtype == torch.float32 else BF16)


@pytest.mark.parametrize("kind", GPU_KINDS)
def test_small_weights_keep_their_bits_in_float16(kind: type[GpuLinear]) -> None:
    made = layer(random_weight(256, 20) * 1e-3, kind)
    assert relative(made.dequantized(torch.float16), made.dequantized(torch.float32)) < 2.0**-11


# In a model


@pytest.mark.parametrize("quantize", GPU_MODES)
def test_a_gpus_model_has_a_gpus_layers(micro_checkpoint: Path, quantize: str) -> None:
    config = find_checkpoint(micro_checkpoint).config
    model = empty_csm(config, dtype=torch.bfloat16, quantize=quantize, kernels="cuda")
    assert sum(isinstance(module, GpuLinear) for module in model.modules()) == 4 * (2 + 1)
    state = {}
    for name, parameter in empty_csm(config, dtype=torch.bfloat16, quantize="none").named_parameters():
        tensor = torch.zeros(parameter.shape, dtype=torch.bfloat16)
        if is_quantized(name, quantize):
            state |= quantize_parameter(name, tensor, quantize, "cuda")
        else:
            state[name] = tensor
    assert weight_cache._kinds(state) == weight_cache._kinds(model.state_dict())


def test_full_size_takes_the_bytes_that_were_planned() -> None:
    from bench.frame import bytes_per_frame

    read = {
        mode: round(bytes_per_frame(torch.bfloat16, mode, "cuda") / 1e9, 2) for mode in ("none", *GPU_MODES)
    }
    assert read == {"none": 9.11, "int8": 4.69, "fp8": 4.69, "int4": 2.75}


_IMPORTS = """
import sys
import csm_repl
from csm_repl import load_csm_1b
from csm_repl.model.layers import gpu_linear
from csm_repl.model.weights import convert as checkpoint
assert "triton" not in sys.modules
gpu_linear.Int4GpuLinear(64, 64)
assert "triton" not in sys.modules
"""


def test_nothing_imports_triton_before_a_layer_runs() -> None:
    done = subprocess.run([sys.executable, "-c", _IMPORTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class NeedsCompiler(GpuLinear):
    """As a layer on a CUDA device."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__(8, 4)
        self.weight = SimpleNamespace(is_cuda=True, device=torch.device("cpu"))
        self.error = error
        self.seen: list[tuple[int, torch.dtype]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.error is not None:
            raise self.error
        self.seen.append((len(x), x.dtype))
        return x


def test_every_way_to_multiply_is_compiled_once_for_each_shape() -> None:
    first, second = NeedsCompiler(), NeedsCompiler()
    compile_kernels(nn.ModuleList([first, second]), torch.bfloat16)
    assert sorted(first.seen + second.seen) == [(n, torch.bfloat16) for n in (1, 2, 32, 64, 65)]


def test_a_missing_c_compiler_is_an_error_with_a_remedy() -> None:
    layers = nn.ModuleList([NeedsCompiler(RuntimeError("Failed to find C compiler.\nPlease specify CC"))])
    with pytest.raises(DeviceError, match=r"do not run here: Failed to find C compiler\.") as caught:
        compile_kernels(layers, torch.bfloat16)
    assert not isinstance(caught.value, OutOfMemoryError)
    assert "gcc" in caught.value.remedy
    assert "--quantize none" in caught.value.remedy


def test_want_of_memory_is_not_taken_for_a_missing_compiler() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(torch.OutOfMemoryError):
        compile_kernels(nn.ModuleList([NeedsCompiler(error)]), torch.bfloat16)


def test_nothing_is_compiled_for_a_cpu() -> None:
    compile_kernels(nn.ModuleList([layer(random_weight(64, 8), Int8GpuLinear)]), torch.bfloat16)


# Stored weights


def cache_of(folder: Path, root: Path, quantize: str, kernels: str) -> WeightCache:
    checkpoint = find_checkpoint(folder)
    model = empty_csm(checkpoint.config, dtype=torch.bfloat16, quantize=quantize, kernels=kernels)
    return WeightCache(
        root, checkpoint, model.state_dict(), dtype=torch.bfloat16, quantize=quantize, kernels=kernels
    )


def test_cpu_and_gpu_share_int8_files_and_no_int4_files(micro_checkpoint: Path, tmp_path: Path) -> None:
    paths = {
        (mode, device): cache_of(micro_checkpoint, tmp_path, mode, device).path
        for mode, device in [("int8", "cpu"), ("int8", "cuda"), ("int4", "cpu"), ("int4", "cuda")]
    }
    assert paths["int8", "cpu"] == paths["int8", "cuda"]
    assert paths["int4", "cpu"] != paths["int4", "cuda"]
    assert storage_id("int4", "cpu") != storage_id("int4", "cuda")
    assert storage_name("int8", "cpu") == storage_name("int8", "cuda")


@pytest.fixture
def small_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_cache, "_MIN_BYTES", 0)
    monkeypatch.setattr(weight_cache, "_SPARE_BYTES", 0)


@pytest.mark.usefixtures("small_caches")
@pytest.mark.parametrize("quantize", GPU_MODES)
def test_a_gpus_weights_are_read_back_as_they_were(
    micro_checkpoint: Path, tmp_path: Path, quantize: str
) -> None:
    cache = cache_of(micro_checkpoint, tmp_path, quantize, "cuda")
    shapes = cache._expected.items()
    bits = {name: torch.randint(127, shape, dtype=torch.uint8) for name, (shape, _) in shapes}
    state = {name: bits[name].to(dtype) for name, (_, dtype) in shapes}
    cache.store(state)
    found = cache.load(torch.device("cpu"))
    assert found is not None
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.usefixtures("small_caches")
def test_a_gpus_int4_file_neither_serves_nor_replaces_that_of_pytorchs_kernels(
    micro_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> nn.Module:
        return load_csm(
            find_checkpoint(micro_checkpoint), device=torch.device("cpu"), dtype=torch.bfloat16,
            quantize="int4", cache_dir=tmp_path, native=False,
        )  # fmt: skip

    conversions = Conversions(monkeypatch)
    first = load()
    cache = cache_of(micro_checkpoint, tmp_path, "int4", "cuda")
    cache.store({name: torch.zeros(shape).to(dtype) for name, (shape, dtype) in cache._expected.items()})
    assert len(files(tmp_path)) == 2
    assert_equal(first, load())
    assert conversions.n == 1


@pytest.mark.skipif(not compilers(), reason="there is no C compiler")
@pytest.mark.usefixtures("small_caches")
def test_a_gpu_reads_the_int4_file_of_the_native_kernels(micro_checkpoint: Path, tmp_path: Path) -> None:
    model = load_csm(
        find_checkpoint(micro_checkpoint), device=torch.device("cpu"), dtype=torch.bfloat16, quantize="int4",
        cache_dir=tmp_path, native=True,
    )  # fmt: skip
    found = cache_of(micro_checkpoint, tmp_path, "int4", "cuda").load(torch.device("cpu"))
    assert found is not None
    parameters = dict(model.named_parameters())
    assert found.keys() == parameters.keys()
    assert all(torch.equal(tensor, parameters[name]) for name, tensor in found.items())


# On a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", GPU_KINDS)
def test_a_gpu_multiplies_by_the_stored_weight(kind: type[GpuLinear], dtype: torch.dtype) -> None:
    if kind is Fp8GpuLinear and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("this GPU has no fp8")
    for n_in, n_out in [(64, 64), (100, 37), (1024, 1536), (8192, 2048), (1024, 16384)]:
        made = layer(random_weight(n_in, n_out).cuda() / n_in**0.5, kind)
        for n_rows in (1, 2, 16, 32, 64, 300):
            x = random_rows(n_rows, n_in).cuda().to(dtype)
            expected = x.double() @ made.dequantized(torch.float32)[:, :n_in].double().T
            assert relative(made(x), expected) < (1e-5 if dtype == torch.float32 else BF16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_integers_as_a_cpu() -> None:
    weight = random_weight(2048, 300)
    for name, tensor in Int8GpuLinear.quantize(weight.cuda()).items():
        assert torch.equal(tensor.cpu(), Int8Linear.quantize(weight)[name])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", [Int8GpuLinear, Int4GpuLinear])
@pytest.mark.parametrize("n_rows", [1, 8])
def test_a_graph_records_and_repeats_a_layer(kind: type[GpuLinear], n_rows: int) -> None:
    made, x = layer(random_weight(1024, 1536).cuda(), kind), random_rows(n_rows, 1024).cuda().bfloat16()
    compile_kernels(nn.ModuleList([made]), torch.bfloat16)
    graph, other = torch.cuda.CUDAGraph(), random_rows(n_rows, 1024, seed=5).cuda().bfloat16()
    with torch.cuda.graph(graph):
        out = made(x)
    x.copy_(other)
    graph.replay()
    assert torch.equal(out, made(other))
