from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csm_repl.errors import ClipError
from csm_repl.settings import load_settings
from csm_repl.voices import MAX_CLIP_SECONDS, PrepareOptions, prepare_clip

OPTIONS = PrepareOptions()
RATE = 24_000


def tone(seconds: float, rate: int = RATE, amplitude: float = 0.1) -> torch.Tensor:
    """[N]"""
    return amplitude * torch.sin(2 * math.pi * 220 * torch.arange(round(seconds * rate)) / rate)


def silence(seconds: float, rate: int = RATE) -> torch.Tensor:
    return torch.zeros(round(seconds * rate))


def seconds_of(*pieces: torch.Tensor, options: PrepareOptions = OPTIONS) -> float:
    return prepare_clip(torch.cat(pieces)[None], RATE, options).shape[0] / RATE


def test_options_have_the_defaults_of_the_settings() -> None:
    assert PrepareOptions.from_settings(load_settings({}, environ={}, dotenv=None)) == OPTIONS


def test_options_that_differ_have_another_fingerprint() -> None:
    assert replace(OPTIONS, silence_keep_ms=301).fingerprint != OPTIONS.fingerprint


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (24_000, 1), (44_100, 2), (96_000, 6)])
def test_any_recording_becomes_24_khz_mono_of_one_level(rate: int, channels: int) -> None:
    x = tone(2.0, rate, amplitude=0.003).expand(channels, -1)
    y = prepare_clip(x, rate, OPTIONS)
    assert y.dtype == torch.float32
    assert y.shape[0] == pytest.approx(2 * RATE, abs=2)
    assert 10 * math.log10(float(y.square().mean())) == pytest.approx(-23.0, abs=0.3)


def test_long_silences_are_shortened_and_short_ones_kept() -> None:
    x = [silence(1), tone(2), silence(2), tone(1), silence(0.5), tone(1), silence(3)]
    # 0.1 s at both ends, 0.3 s in the long gap less the cross-fade, the short gap as it is.
    assert seconds_of(*x) == pytest.approx(0.1 + 2 + 0.3 + 1 + 0.5 + 1 + 0.1, abs=0.011)


def test_a_cut_makes_no_click() -> None:
    hum = 0.0005 * torch.sin(2 * math.pi * 50 * torch.arange(2 * RATE) / RATE)
    y = prepare_clip(torch.cat([tone(1), hum, tone(1)])[None], RATE, OPTIONS)
    steps = y.diff().abs()
    hum_steps, join_steps = steps[round(1.02 * RATE) : round(1.13 * RATE)], steps[round(1.13 * RATE) :][:960]
    assert float(join_steps.max()) < 3 * float(hum_steps.max())  # a click has 100 times as much


def test_silences_can_be_left_alone() -> None:
    options = replace(OPTIONS, shorten_silence=False)
    assert seconds_of(silence(1), tone(1), silence(2), options=options) == 4.0


def test_an_offset_is_no_sound() -> None:
    x = torch.cat([tone(1), silence(3)]) + 0.3
    assert prepare_clip(x[None], RATE, OPTIONS).shape[0] / RATE == pytest.approx(1.1, abs=0.02)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 0), "0 ms long"),
        (torch.ones(1, 1), "0.0417 ms long"),
        (tone(0.0799)[None], "79.9 ms long; the codec needs 80 ms"),
        (silence(5)[None], "holds no speech"),
        (torch.full((1, RATE), 0.5), "holds no speech"),
        (tone(61)[None], "61 s long; a voice can use 60 s"),
    ],
)
def test_clips_that_cannot_be_used(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ClipError, match=message) as caught:
        prepare_clip(x, RATE, OPTIONS)
    assert "5-30 s" in caught.value.remedy


def test_silence_is_no_clip_even_where_silences_are_left_alone() -> None:
    with pytest.raises(ClipError, match="holds no speech"):
        seconds_of(silence(1), options=replace(OPTIONS, shorten_silence=False))


def test_one_codec_frame_is_enough() -> None:
    assert seconds_of(tone(0.08)) == 0.08


def test_a_long_recording_that_is_mostly_silence_can_be_used() -> None:
    assert seconds_of(tone(5), silence(90), tone(5)) < MAX_CLIP_SECONDS


def test_ten_minutes_are_refused_without_looking_at_them() -> None:
    # On the meta device there are no samples to look at.
    x = torch.empty(2, 600 * 96_000, device="meta")
    with pytest.raises(ClipError, match="600 s long"):
        prepare_clip(x, 96_000, OPTIONS)


@settings(max_examples=60)
@given(
    st.integers(1, 3), st.integers(0, 4_000), st.sampled_from([1_000, 8_000, 11_127, 24_000, 44_101]),
    st.floats(0, 1e6), st.integers(0, 9), st.booleans(), st.integers(0, 400),
)  # fmt: skip
def test_any_samples_become_a_clip_or_a_sentence(
    channels: int, n: int, rate: int, scale: float, seed: int, shorten: bool, keep_ms: int
) -> None:
    x = scale * torch.randn(channels, n, generator=torch.Generator().manual_seed(seed))
    x[:, n // 3 : n // 2] = 0
    options = PrepareOptions(shorten, -45.0, 100, keep_ms)
    try:
        y = prepare_clip(x, rate, options)
    except ClipError:
        pass
    else:
        assert y.shape[0] >= 1_920
        assert bool(torch.isfinite(y).all())
        assert float(y.abs().max()) < 1.0
