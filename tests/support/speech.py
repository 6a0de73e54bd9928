"""Sound for tests, made without a synthesiser: amplitude-modulated harmonics at a speech-like level."""

from __future__ import annotations

import math
import wave
from pathlib import Path

import numpy as np
import torch


def voiced(seconds: float, pitch_hz: float = 120.0, rate: int = 24_000) -> np.ndarray:
    """Float32 [N]: harmonics of `pitch_hz` in four syllables a second."""
    t = np.arange(int(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * pitch_hz * k * t) / k for k in range(1, 12))
    envelope = 0.55 - 0.45 * np.cos(2 * np.pi * 4 * t)
    return (0.12 * tone * envelope).astype(np.float32)


def write_clip(path: Path, text: str | None, seconds: float = 1.0, pitch_hz: float = 120.0) -> Path:
    """A reference clip as 16-bit WAV with its transcript; None: no transcript."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pcm = (voiced(seconds, pitch_hz) * 32767).clip(-32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(pcm.tobytes())
    if text is not None:
        path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")
    return path


def read_pcm(path: Path) -> np.ndarray:
    """Int16 [N] of a mono 24 kHz 16-bit WAV; fails if it is anything else."""
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def tone(seconds: float, rate: int = 24_000, amplitude: float = 0.5) -> torch.Tensor:
    """A sine of 220 Hz, float32 [N]."""
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return (amplitude * torch.sin(2 * math.pi * 220 * time)).float()


def dbfs(x: torch.Tensor) -> float:
    return 10 * math.log10(float(x.double().square().mean()))


ROUNDING = 1e-4
"""Samples of takes that were decoded together, against those decoded alone."""


def assert_sounds_alike(file: Path, other: Path) -> None:
    """Two files of one sound, whose takes may have been decoded beside others."""
    sound, expected = read_pcm(file).astype(float), read_pcm(other).astype(float)
    np.testing.assert_allclose(sound, expected, atol=1 + ROUNDING * 2**15)
