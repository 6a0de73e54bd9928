"""Turns what callers pass into what the engine takes, or says which argument is wrong."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import torch

__all__ = ["checked_integer", "checked_number", "checked_text", "mono_samples"]

_LOUDEST = 16.0
"""Float samples beyond this were never scaled: the quietest speech of int16 peaks higher, no mix of
normalised sound does."""
_SCALES = {torch.int16: 2**15, torch.int32: 2**31, torch.int8: 2**7}


def mono_samples(audio: object, name: str) -> torch.Tensor:
    """Sound as the codec takes it: float32 [n_samples] on the CPU.

    Args:
        audio: torch tensor or numpy array, [n_samples], [1, n_samples] or [n_samples, 1], of any device and
            float type; integers of 8 (signed or not), 16 and 32 bits are scaled by their full range.
        name: what to call it in the error.

    Raises:
        ValueError: no such array, several channels, no samples, NaN or infinity, or floats that were not
            scaled.
    """
    samples = _as_tensor(audio, name)
    if samples.ndim == 2 and 1 in samples.shape:
        samples = samples.reshape(-1)
    if samples.ndim != 1:
        raise ValueError(
            f"{name} must be [n_samples] or [1, n_samples], and is {list(samples.shape)}: "
            "mix channels down with .mean(0)."
        )
    if samples.numel() == 0:
        raise ValueError(f"{name} is empty.")
    samples = _as_float(samples.detach().to("cpu"), name)
    peak = float(samples.abs().max())
    if not math.isfinite(peak):
        raise ValueError(f"{name} holds NaN or infinity.")
    if peak > _LOUDEST:
        raise ValueError(
            f"{name} reaches {peak:g}, and floats must lie between -1 and 1: "
            "divide by the integers' full range, 32768 for 16 bits."
        )
    return samples


def _as_tensor(audio: object, name: str) -> torch.Tensor:
    if isinstance(audio, torch.Tensor):
        return audio
    if isinstance(audio, np.ndarray):
        try:
            return torch.from_numpy(np.ascontiguousarray(audio, audio.dtype.newbyteorder("=")))
        except TypeError:
            raise ValueError(f"{name} holds {audio.dtype}, not samples.") from None
    raise ValueError(f"{name} must be a torch tensor or a numpy array, not {type(audio).__name__}.")


def _as_float(samples: torch.Tensor, name: str) -> torch.Tensor:
    if samples.is_floating_point():
        return samples.to(torch.float32).contiguous()
    if samples.dtype == torch.uint8:  # silence is 128, as in WAV
        return (samples.to(torch.float32) - 128) / 128
    if samples.dtype in _SCALES:
        return (samples.to(torch.float64) / _SCALES[samples.dtype]).to(torch.float32)
    raise ValueError(
        f"{name} holds {str(samples.dtype).removeprefix('torch.')}, whose full range nobody knows: "
        "give floats between -1 and 1, or int16."
    )


def checked_text(text: object, name: str) -> str:
    """Raises ValueError, by `name`, for what is no string."""
    if not isinstance(text, str):
        raise ValueError(f"{name} must be a string, not {type(text).__name__}.")
    return text


def checked_integer(value: Any, name: str, low: int, high: int) -> int:
    """A whole number of any type that is one (numpy's and one-element tensors too), from `low` to `high`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, and is {value!r}.") from None
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, and is {number}.")
    return number


def checked_number(value: Any, name: str, *, zero: bool = False) -> float:
    """A finite number above zero, or from zero on."""
    try:
        if isinstance(value, bool | str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a number, and is {value!r}.") from None
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(f"{name} must be a finite number {'from' if zero else 'above'} 0, and is {value!r}.")
    return number
