"""Which device and dtype a model runs on, and why. An explicit choice never falls back."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from csm_repl.errors import DeviceError, UsageError

__all__ = ["Placement", "choose_placement", "out_of_memory"]

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Placement:
    device: torch.device
    dtype: torch.dtype
    reason: str
    """One sentence for the user; empty when both were chosen explicitly."""

    @property
    def dtype_name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def choose_placement(device: str, dtype: str) -> Placement:
    """Resolves `auto|cuda[:n]|mps|cpu` and `auto|bfloat16|float16|float32`.

    Raises:
        DeviceError: the named device is unknown or not there.
        UsageError: the named dtype is unknown.
    """
    if dtype != "auto" and dtype not in _DTYPES:
        raise UsageError(f"There is no dtype {dtype!r} here.", f"Use one of auto, {', '.join(_DTYPES)}.")
    chosen, why_device = _choose_device(device)
    if dtype != "auto":
        return Placement(chosen, _DTYPES[dtype], why_device)
    kind, why_dtype = _choose_dtype(chosen)
    return Placement(chosen, kind, f"{why_device} {why_dtype}".strip())


def _choose_device(name: str) -> tuple[torch.device, str]:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), f"Device cuda: {torch.cuda.get_device_name()} is the fastest here."
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Device mps: no CUDA device, but Apple's GPU is here."
        return torch.device("cpu"), "Device cpu: neither a CUDA device nor Apple's GPU is here."
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
        raise DeviceError("Device mps is not available: this is no Mac with Metal.", "Use --device cpu.")
    return device, ""


def _choose_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16, "Dtype float16: this GPU has no bfloat16."
    return torch.bfloat16, "Dtype bfloat16: a frame reads every weight, and this halves the bytes."


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that a device's memory is exhausted."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    # The CPU allocator and MPS raise RuntimeErrors that only their texts tell apart.
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "not enough memory" in text or "out of memory" in text or "can't allocate memory" in text
    )
