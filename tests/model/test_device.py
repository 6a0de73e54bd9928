"""Where a model runs."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from csm_repl.errors import DeviceError, ExitCode, UsageError
from csm_repl.model.device import choose_placement, out_of_memory


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Fake GPU 9000")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3", "mps"])
def test_a_missing_device_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(DeviceError, match=f"Device {name} is not available") as caught:
        choose_placement(name, "auto")
    assert caught.value.exit_code == ExitCode.DEVICE


@pytest.mark.usefixtures("no_gpu")
def test_a_missing_cuda_names_a_remedy() -> None:
    with pytest.raises(DeviceError, match="--device cpu"):
        choose_placement("cuda", "float32")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_number_that_does_not_exist_is_an_error_that_names_it() -> None:
    with pytest.raises(DeviceError, match=r"cuda:2 does not exist: there are 2") as caught:
        choose_placement("cuda:2", "auto")
    assert "cuda:1" in caught.value.remedy


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "cuda:-1", "meta", "xpu", "cpu:1", "mps:1", "CPU "])
def test_an_unknown_device_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(DeviceError, match=f"'{name}'"):
        choose_placement(name, "auto")


@pytest.mark.usefixtures("no_gpu")
def test_an_unknown_dtype_is_an_error_that_names_it() -> None:
    with pytest.raises(UsageError, match="'float8'"):
        choose_placement("cpu", "float8")


@pytest.mark.usefixtures("no_gpu")
def test_auto_without_a_gpu_is_the_cpu_and_says_why() -> None:
    placement = choose_placement("auto", "auto")
    assert placement.device.type == "cpu"
    assert "neither a CUDA device nor Apple's GPU" in placement.reason


@pytest.mark.usefixtures("two_gpus")
def test_auto_with_a_gpu_is_cuda_and_says_which() -> None:
    placement = choose_placement("auto", "auto")
    assert placement.device.type == "cuda"
    assert "Fake GPU 9000" in placement.reason


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_auto_dtype_has_a_reason(device: str) -> None:
    placement = choose_placement(device, "auto")
    assert placement.dtype_name in placement.reason


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_without_bf16_gets_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    placement = choose_placement("cuda", "auto")
    assert placement.dtype == torch.float16
    assert "no bfloat16" in placement.reason


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_an_explicit_dtype_is_kept(device: str, dtype: str) -> None:
    placement = choose_placement(device, dtype)
    assert placement.dtype == getattr(torch, dtype)
    assert placement.dtype_name == dtype


def test_nothing_is_said_about_explicit_choices() -> None:
    assert choose_placement("cpu", "float32").reason == ""


def test_the_cpu_allocators_error_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB)"),
    ],
)
def test_other_allocators_errors_are_out_of_memory(error: BaseException) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory lane")]
)
def test_other_errors_are_not_out_of_memory(error: BaseException) -> None:
    assert not out_of_memory(error)


# Quantisation


def test_auto_quantises_on_a_cpu_and_says_so() -> None:
    placement = choose_placement("cpu", "bfloat16", "auto")
    assert placement.quantize == "int8"
    assert "int8" in placement.reason
    assert placement.numbers == "bfloat16 with int8 weights"


def gpu_of(monkeypatch: pytest.MonkeyPatch, *capability: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
def test_auto_does_not_quantise_on_a_gpu_and_says_why(device: str) -> None:
    placement = choose_placement(device, "bfloat16", "auto")
    assert placement.quantize == "none"
    assert "gains little" in placement.reason
    assert placement.numbers == "bfloat16"


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("quantize", "capability"),
    [("int8", (8, 0)), ("int4", (8, 6)), ("fp8", (8, 9)), ("fp8", (9, 0)), ("fp8", (12, 0))],
)
def test_a_gpu_quantises_where_it_is_asked_to(
    quantize: str, capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_of(monkeypatch, *capability)
    placement = choose_placement("cuda:1", "bfloat16", quantize)
    assert (placement.quantize, placement.reason) == (quantize, "")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("quantize", "capability", "wanted"),
    [
        ("int8", (7, 5), "Ampere"),
        ("int4", (7, 0), "Ampere"),
        ("fp8", (7, 5), "Ampere"),
        ("fp8", (8, 6), "Ada"),
    ],
)
def test_a_gpu_that_is_too_old_is_an_error_that_names_what_it_takes(
    quantize: str, capability: tuple[int, int], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_of(monkeypatch, *capability)
    with pytest.raises(UsageError, match=f"{quantize} weights need a GPU of {wanted}") as caught:
        choose_placement("cuda", "auto", quantize)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "capability {}.{}".format(*capability) in caught.value.cause
    assert "--quantize" in caught.value.remedy


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("quantize", ["int8", "fp8", "int4"])
def test_a_gpu_without_triton_is_an_error_that_names_it(
    quantize: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_of(monkeypatch, 9, 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="need Triton, which is not installed") as caught:
        choose_placement("cuda", "auto", quantize)
    assert "--quantize none" in caught.value.remedy


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_of_another_maker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_of(monkeypatch, 9, 4)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    with pytest.raises(UsageError, match="NVIDIA's GPUs only"):
        choose_placement("cuda", "auto", "fp8")


def test_a_cpu_has_no_fp8_and_says_who_has() -> None:
    with pytest.raises(UsageError, match="fp8 weights need a GPU of Ada or Hopper") as caught:
        choose_placement("cpu", "auto", "fp8")
    assert "--quantize int8" in caught.value.remedy


@pytest.mark.parametrize("quantize", ["int8", "fp8", "int4"])
def test_an_explicit_quantisation_never_falls_back(quantize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(UsageError, match=f"{quantize} weights run on a CPU or an NVIDIA GPU") as caught:
        choose_placement("mps", "auto", quantize)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "--quantize none" in caught.value.remedy
    assert "--device cpu" in caught.value.remedy


@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_an_explicit_quantisation_needs_no_reason(quantize: str) -> None:
    placement = choose_placement("cpu", "float32", quantize)
    assert (placement.quantize, placement.reason) == (quantize, "")


def test_an_unknown_quantisation_is_an_error_that_names_it() -> None:
    with pytest.raises(UsageError, match="'int2'"):
        choose_placement("cpu", "auto", "int2")
