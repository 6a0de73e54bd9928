"""Whatever callers have at hand is taken as what it is, or refused by name."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from csm_repl.api.checks import checked_integer, checked_number, mono_samples

WAVE = torch.tensor([0.0, 0.5, -0.5, 0.25])


@pytest.mark.parametrize(
    "audio",
    [
        WAVE,
        WAVE[None],
        WAVE[:, None],
        WAVE.half(),
        WAVE.bfloat16(),
        WAVE.double(),
        WAVE.clone().requires_grad_(),
        torch.stack([WAVE, WAVE], 1)[:, 0],
        (WAVE * 2**15).to(torch.int16),
        (WAVE.double() * 2**31).to(torch.int32),
        (WAVE * 2**7).to(torch.int8),
        (WAVE * 128 + 128).to(torch.uint8),
        WAVE.numpy(),
        WAVE.numpy()[None],
        WAVE.numpy().astype(">f4"),
        WAVE.numpy().astype(np.float64)[::-1][::-1],
        (WAVE.numpy() * 2**15).astype("<i2"),
        (WAVE.numpy() * 2**15).astype(">i2"),
    ],
)
def test_sound_of_every_kind_is_the_same_sound(audio: Any) -> None:
    samples = mono_samples(audio, "audio")
    assert samples.dtype == torch.float32
    assert not samples.requires_grad
    assert samples.is_contiguous()
    assert torch.equal(samples, WAVE)


def test_a_little_over_full_scale_is_sound() -> None:
    assert torch.equal(mono_samples(WAVE * 3, "audio"), WAVE * 3)


@pytest.mark.parametrize(
    ("audio", "why"),
    [
        (torch.zeros(0), "empty"),
        (np.zeros((1, 0), np.float32), "empty"),
        (torch.tensor(0.5), r"\[\]"),
        (torch.zeros(2, 5), r"\.mean\(0\)"),
        (torch.zeros(1, 1, 5), r"\[1, 1, 5\]"),
        (torch.tensor([0.0, math.nan]), "NaN or infinity"),
        (torch.tensor([0.0, math.inf]), "NaN or infinity"),
        (np.array([0.0, -math.inf]), "NaN or infinity"),
        (torch.tensor([1e300], dtype=torch.float64), "NaN or infinity"),
        (WAVE * 2**15, "32768"),
        (torch.tensor([0, 1000]), "int64"),
        (np.array([0, 1000]), "int64"),
        (torch.tensor([True, False]), "bool"),
        (torch.tensor([1j]), "complex64"),
        (np.array(["a"]), "<U1"),
        (np.array([None]), "object"),
        ([0.0, 0.5], "list"),
        ("reference.wav", "str"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_sound_is_refused_by_name(audio: Any, why: str) -> None:
    with pytest.raises(ValueError, match=rf"^context\[3\]\.audio.*{why}"):
        mono_samples(audio, "context[3].audio")


@pytest.mark.parametrize("value", [5, np.int64(5), torch.tensor(5)])
def test_whole_numbers_of_every_type_are_taken(value: Any) -> None:
    assert checked_integer(value, "topk", 1, 9) == 5


@pytest.mark.parametrize("value", [0, 10, 2.5, 5.0, "5", None, True, math.nan])
def test_other_whole_numbers_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^topk"):
        checked_integer(value, "topk", 1, 9)


@pytest.mark.parametrize("value", [5, 5.0, np.float32(5), torch.tensor(5.0)])
def test_numbers_of_every_type_are_taken(value: Any) -> None:
    assert checked_number(value, "temperature") == 5


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "5", None, True, 10**400, [1, 2]])
def test_other_numbers_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^temperature"):
        checked_number(value, "temperature")
    if value == 0:
        assert checked_number(value, "temperature", zero=True) == 0
