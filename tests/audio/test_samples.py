"""Arithmetic on samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.audio import amplify, resample, speech_level, to_mono, to_pcm16
from csm_repl.audio.samples import Resampler
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


@pytest.mark.parametrize("n", [0, 1, 100])
def test_silence_has_no_level(n: int) -> None:
    assert speech_level(torch.zeros(n)) is None
    assert speech_level(torch.full((n,), 0.5)) is None  # an offset


def test_level_is_that_of_the_speech_and_not_of_the_pauses() -> None:
    for pause in (torch.zeros(24_000 * 20), 1e-4 * torch.randn(24_000 * 20)):
        x = torch.cat([pause, tone(1, amplitude=0.01), pause])
        assert speech_level(x) == pytest.approx(dbfs(tone(1, amplitude=0.01)), abs=0.5)


@pytest.mark.parametrize("seconds", [0.02, 0.08, 0.4, 5.0])
def test_level_of_any_length(seconds: float) -> None:
    x = tone(seconds, amplitude=0.1)
    assert speech_level(x) == pytest.approx(dbfs(x), abs=1.0)


def test_level_of_a_word_in_silence() -> None:
    x = torch.cat([torch.zeros(48_000), tone(0.2, amplitude=0.1), torch.zeros(48_000)])
    assert speech_level(x) == pytest.approx(dbfs(tone(0.2, amplitude=0.1)), abs=0.5)


def test_level_of_huge_samples() -> None:
    assert speech_level(torch.tensor([1e38, -3e38] * 1_000)) == pytest.approx(760, abs=10)


def test_amplifying_is_exact_below_the_limit() -> None:
    assert torch.allclose(amplify(tone(1, amplitude=0.01), 20.0), tone(1, amplitude=0.1))
    assert amplify(torch.zeros(0), 20.0).shape == (0,)


@pytest.mark.parametrize("at", [0, 100, 12_000, 23_999])
def test_a_peak_is_turned_down_and_nothing_else(at: int) -> None:
    x = tone(1, amplitude=0.02)
    x[at] = 1.0
    y = amplify(x, 20.0)
    assert float(y.abs().max()) == pytest.approx(10 ** (-1 / 20), rel=1e-3)
    far = torch.arange(24_000).sub(at).abs() > 500
    assert torch.allclose(y[far], 10 * x[far])
    assert float(y.diff().abs().max()) < 1.0


@given(
    st.integers(0, 3_000), st.integers(0, 9), st.floats(-60, 60), st.sampled_from([8_000, 24_000, 44_100])
)  # fmt: skip
def test_nothing_passes_the_limit(n: int, seed: int, gain_db: float, rate: int) -> None:
    x = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    y = amplify(x, gain_db, rate)
    assert y.shape == x.shape
    assert n == 0 or float(y.abs().max()) <= 10 ** (-1 / 20) + 1e-6


@pytest.mark.parametrize("from_rate", [8_000, 24_000, 44_100, 44_101, 192_000])
@pytest.mark.parametrize("piece", [1, 977, 100_000])
def test_resampling_in_pieces_is_resampling_at_once(from_rate: int, piece: int) -> None:
    x = torch.rand(3_000 if piece == 1 else 250_001)
    resampler = Resampler(from_rate, 24_000)
    pieces = [*(resampler.push(part) for part in x.split(piece)), resampler.finish()]
    whole = resample(x, from_rate, 24_000)
    joined = torch.cat(pieces)
    assert joined.shape == whole.shape
    assert torch.allclose(joined, whole, atol=1e-5)


@given(st.lists(st.floats(width=32), max_size=50))
def test_pcm16_of_anything(values: list[float]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    got = np.frombuffer(to_pcm16(x), "<i2")
    wanted = [0 if math.isnan(v) else max(-32768, min(32767, round(32768 * v))) if math.isfinite(v) else
              math.copysign(32767.5, v) - 0.5 for v in values]  # fmt: skip
    assert got.tolist() == wanted
