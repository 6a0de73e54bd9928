"""Which device, dtype and quantisation a model runs with, and why. An explicit choice never falls back."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

import torch

from csm_repl.errors import DeviceError, UsageError

__all__ = [
    "QUANTIZATIONS",
    "Placement",
    "choose_placement",
    "free_bytes",
    "less_memory",
    "numbers_text",
    "out_of_memory",
]

QUANTIZATIONS = ("int8", "fp8", "int4")
OLDEST_GPU, OLDEST_FP8_GPU = (8, 0), (8, 9)
"""Compute capabilities: Ampere's, the oldest that tests compile the kernels for, and Ada's, the first with
fp8."""

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Placement:
    device: torch.device
    dtype: torch.dtype
    quantize: str
    """How the layers' weights are stored: none, int8, fp8 or int4; never auto."""
    reason: str
    """Sentences for the user; empty when everything was chosen explicitly."""

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def numbers(self) -> str:
        """What the model is made of, as users see it: `bfloat16`, or `bfloat16 with int8 weights`."""
        return numbers_text(self.dtype_name, self.quantize)


def numbers_text(dtype: str, quantize: str) -> str:
    return dtype if quantize == "none" else f"{dtype} with {quantize} weights"


def choose_placement(device: str, dtype: str, quantize: str = "none") -> Placement:
    """Resolves `auto|cuda[:n]|mps|cpu`, `auto|bfloat16|float16|float32` and `none|int8|fp8|int4|auto`.

    Raises:
        DeviceError: the named device is unknown or not there.
        UsageError: the named dtype or quantisation is unknown, or the device has no kernels for it.
    """
    if dtype != "auto" and dtype not in _DTYPES:
        raise UsageError(f"There is no dtype {dtype!r} here.", f"Use one of auto, {', '.join(_DTYPES)}.")
    if quantize not in {"auto", "none", *QUANTIZATIONS}:
        raise UsageError(
            f"There is no quantisation {quantize!r} here.",
            f"Use one of auto, none, {', '.join(QUANTIZATIONS)}.",
        )
    chosen, why_device = _choose_device(device)
    kind, why_dtype = (_DTYPES[dtype], "") if dtype != "auto" else _choose_dtype(chosen)
    mode, why_mode = _choose_quantization(quantize, chosen)
    reasons = (why_device, why_dtype, why_mode)
    return Placement(chosen, kind, mode, " ".join(reason for reason in reasons if reason))


def _choose_device(name: str) -> tuple[torch.device, str]:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"Device cuda: {torch.cuda.get_device_name()} is the fastest here."
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Device mps: no CUDA device, but Apple's GPU is here."
        return torch.device("cpu"), "Device cpu: neither a CUDA device nor Apple's GPU is available."
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,2})?", name):
        raise DeviceError(f"There is no device {name!r}.", "Use one of auto, cuda, cuda:n, mps, cpu.")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            why = "this PyTorch was built without CUDA" if torch.version.cuda is None else "no GPU was found"
            raise DeviceError(
                f"Device {name} is not available: {why}.",
                "Use --device cpu, or check the driver with nvidia-smi.",
            )
        if device.index is not None and device.index >= count:
            raise DeviceError(
                f"Device {name} does not exist: there are {count}, counted from 0.",
                f"Use --device cuda:{count - 1} or --device auto.",
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("Device mps is not available: this is not a Mac with Metal.", "Use --device cpu.")
    return device, ""


def _choose_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16, "Dtype float16: this GPU has no bfloat16."
    return torch.bfloat16, "Dtype bfloat16: a frame reads every weight, and this halves the bytes."


def _choose_quantization(name: str, device: torch.device) -> tuple[str, str]:
    if name == "none":
        return name, ""
    if name == "auto":
        if device.type == "cpu":
            return "int8", "Weights int8: a CPU waits for memory, and this halves the bytes of bfloat16."
        if device.type == "cuda":
            return "none", "Weights not quantised: on a GPU that gains little."
        return "none", f"Weights not quantised: {device.type} has no kernels for that here."
    if device.type == "cuda":
        _check_gpu(name, device)
    elif device.type != "cpu":
        raise UsageError(
            f"{name} weights run on a CPU or an NVIDIA GPU, and the device is {device}.",
            "Use --quantize none (or auto, which quantises where it can), or --device cpu.",
        )
    elif name == "fp8":
        raise UsageError(
            "fp8 weights need a GPU of Ada or Hopper or a newer one, and the device is cpu.",
            "Use --quantize int8, which takes as many bytes, or --device cuda.",
        )
    return name, ""


def _check_gpu(name: str, device: torch.device) -> None:
    """UsageError where the kernels of `gpu_linear` cannot run."""
    remedy = "Use --quantize none, or --device cpu for int8 and int4 weights."
    if torch.version.hip is not None:
        raise UsageError(f"{name} weights run on NVIDIA's GPUs only, and {device} is AMD's.", remedy)
    capability = torch.cuda.get_device_capability(device)
    found = f"{device} has compute capability {capability[0]}.{capability[1]}"
    if capability < OLDEST_GPU:
        raise UsageError(f"{name} weights need a GPU of Ampere (8.0) or a newer one, and {found}.", remedy)
    if name == "fp8" and capability < OLDEST_FP8_GPU:
        raise UsageError(
            f"fp8 weights need a GPU of Ada (8.9) or Hopper or a newer one, and {found}.",
            "Use --quantize int8, which takes as many bytes.",
        )
    if importlib.util.find_spec("triton") is None:
        raise UsageError(
            f"{name} weights on a GPU need Triton, which is not installed.",
            "Install it (PyTorch for Linux brings it; on Windows: pip install triton-windows), or use "
            "--quantize none.",
        )


def free_bytes(device: torch.device) -> int | None:
    """Memory that new tensors on `device` may take; None where nobody knows."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What torch keeps for itself and does not use is free as well.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return None if available is None else int(available.split()[1]) * 1024


def less_memory(device: torch.device | str) -> str:
    """What a user can do when a device's memory is exhausted."""
    if torch.device(device).type == "cpu":
        return "Close other programs, or start again with --quantize int8 or int4, or with --dtype bfloat16."
    return "Close other programs, or start again with --dtype bfloat16, a smaller --batch or --device cpu."


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device's memory is exhausted."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The CPU allocator and MPS raise RuntimeErrors that only their texts tell apart.
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "out of memory" in text or "can't allocate memory" in text
    )
