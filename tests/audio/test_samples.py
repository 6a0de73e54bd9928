"""Arithmetic on samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.audio import normalise_level, resample, to_mono, to_pcm16
from tests.support.speech import dbfs, tone


def test_downmix_averages() -> None:
    assert torch.equal(to_mono(torch.tensor([[0.0, 1.0], [1.0, 0.0]])), torch.tensor([0.5, 0.5]))


def test_downmix_of_opposite_channels_is_not_silence() -> None:
    x = tone(0.1)
    assert torch.equal(to_mono(torch.stack([0.5 * x, -0.5 * x])), 0.5 * x)


@pytest.mark.parametrize("from_rate", [8_000, 11_127, 22_050, 24_000, 44_100, 44_101, 48_000, 96_000])
@pytest.mark.parametrize("n", [0, 1, 2, 1_000])
def test_resample_of_any_length(from_rate: int, n: int) -> None:
    y = resample(torch.ones(2, n), from_rate, 24_000)
    assert y.shape == (2, math.ceil(n * 24_000 / from_rate))
    assert y.dtype == torch.float32


@pytest.mark.parametrize("from_rate", [16_000, 44_100, 44_101])
def test_resample_keeps_pitch_and_level(from_rate: int) -> None:
    y = resample(tone(1.0, from_rate), from_rate, 24_000)
    expected = tone(1.0)
    middle = slice(1_000, 20_000)
    assert torch.allclose(y[middle], expected[middle], atol=5e-3)


def test_level_is_that_of_the_speech_and_not_of_the_pauses() -> None:
    x = torch.cat([tone(1, amplitude=0.01), torch.zeros(24_000 * 20)])
    y = normalise_level(x)
    assert dbfs(y[:24_000]) == pytest.approx(-23.0, abs=0.2)
    assert float(y[24_000:].abs().max()) == 0.0


def test_level_respects_the_peak() -> None:
    x = tone(1, amplitude=0.02)
    x[12_000] = 1.0
    assert float(normalise_level(x).abs().max()) == pytest.approx(10 ** (-1 / 20), rel=1e-3)


def test_level_of_faint_noise_is_raised_by_40_db_at_most() -> None:
    assert float(normalise_level(torch.full((100,), 1e-5)).abs().max()) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("n", [0, 1, 100])
def test_level_of_silence_stays(n: int) -> None:
    assert torch.equal(normalise_level(torch.zeros(n)), torch.zeros(n))


def test_level_survives_huge_samples() -> None:
    assert bool(torch.isfinite(normalise_level(torch.tensor([1e38, -3e38]))).all())


@given(st.lists(st.floats(width=32), max_size=50))
def test_pcm16_of_anything(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    got = np.frombuffer(to_pcm16(x), "<i2")
    wanted = [0 if math.isnan(v) else max(-32768, min(32767, round(32768 * v))) if math.isfinite(v) else
              math.copysign(32767.5, v) - 0.5 for v in values]  # fmt: skip
    assert got.tolist() == wanted
