"""Real speech, and what else is in real recordings: bangs, hum, an offset, clipping, noise."""

from __future__ import annotations

import functools
import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch

from csm_repl.audio import resample, speech_level
from csm_repl.voices import PrepareOptions, prepare_clip

RATE = 24_000
_TEXT = "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background, and wait."
_SPEAKERS = {
    "flite": ["flite", "-voice", "slt", "-t", _TEXT, "-o"],
    "espeak": ["espeak-ng", _TEXT, "-w"],
}


@functools.cache
def spoken(speaker: str) -> torch.Tensor:
    """[N] at 24 kHz, with half a second of silence on both sides."""
    command = _SPEAKERS[speaker]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "said.wav")
        subprocess.run([*command, str(path)], check=True)
        samples, rate = soundfile.read(path, dtype="float32")
    silence = torch.zeros(RATE // 2)
    return torch.cat([silence, resample(torch.from_numpy(samples), rate, RATE), silence])


def at_level(speaker: str, dbfs: float) -> torch.Tensor:
    """With the noise of a quiet room, 20 dB below a whisper."""
    x = spoken(speaker)
    level = speech_level(x)
    assert level is not None
    return x * 10 ** ((dbfs - level) / 20) + 1e-5 * noise(x.shape[0])


def noise(n: int) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(0))


def seconds(x: torch.Tensor) -> float:
    return prepare_clip(x[None], RATE, PrepareOptions()).shape[0] / RATE


def with_bangs(x: torch.Tensor, *starts_s: float) -> torch.Tensor:
    """20 ms of noise at full scale."""
    y = x.clone()
    for start_s in starts_s:
        at = round(start_s * RATE)
        y[at : at + 480] = noise(480).clamp(-1, 1)
    return y


@pytest.mark.parametrize("speaker", _SPEAKERS)
@pytest.mark.parametrize("dbfs", [-20.0, -45.0, -58.0])
@pytest.mark.parametrize("bangs", [(0.02,), (0.5,), (2.0,), (-0.1,), (0.1, 0.9, 1.2, 1.5, 2.7, 3.3)])
def test_a_bang_takes_no_speech_away(speaker: str, dbfs: float, bangs: tuple[float, ...]) -> None:
    x = at_level(speaker, dbfs)
    y = with_bangs(x, *(start if start > 0 else len(x) / RATE + start for start in bangs))
    assert seconds(y) >= seconds(x) - 0.05
    level = speech_level(y)
    assert level is not None
    assert level == pytest.approx(dbfs, abs=3.0 if len(bangs) == 1 else 6.0)


@pytest.mark.parametrize("speaker", _SPEAKERS)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x + 0.3,
        lambda x: x - 0.3,
        lambda x: x + 0.05 * torch.sin(2 * math.pi * 50 * torch.arange(len(x)) / RATE),
        lambda x: x + 0.05 * torch.sin(2 * math.pi * 60 * torch.arange(len(x)) / RATE),
        lambda x: x + 3e-4 * noise(len(x)),
        lambda x: torch.cat([x, torch.zeros(10 * RATE)]),
        lambda x: torch.cat([3e-4 * noise(10 * RATE), x]),
    ],
    ids=["offset", "negative offset", "hum at 50 Hz", "hum at 60 Hz", "hiss", "silence", "noise before"],
)
def test_what_is_no_speech_does_not_count(
    speaker: str, spoil: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    x = at_level(speaker, -40.0)
    assert speech_level(spoil(x)) == pytest.approx(-40.0, abs=2.0)
    assert seconds(spoil(x)) >= seconds(x) - 0.05


@pytest.mark.parametrize("speaker", _SPEAKERS)
def test_clipped_speech_is_levelled_like_any(speaker: str) -> None:
    x = at_level(speaker, -10.0).clamp(-0.25, 0.25)
    y = prepare_clip(x[None], RATE, PrepareOptions())
    assert speech_level(y) == pytest.approx(-23.0, abs=0.5)


@pytest.mark.parametrize("dbfs", [-10.0, -30.0, -50.0, -60.0, -70.0])
def test_the_same_speech_is_kept_at_every_level(dbfs: float) -> None:
    quiet, usual = at_level("espeak", dbfs), at_level("espeak", -23.0)
    assert seconds(quiet) == pytest.approx(seconds(usual), abs=0.7)
    assert seconds(quiet) >= seconds(usual) - 0.05
