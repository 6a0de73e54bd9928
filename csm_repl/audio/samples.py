"""Arithmetic on samples: downmix, resample, level, 16 bit. Pure; knows no files."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 24_000
"""Hz; what the codec hears and speaks."""


def to_mono(x: torch.Tensor) -> torch.Tensor:
    """Downmix `[C, N]` to `[N]` by averaging; where channels cancel out, the loudest one is taken."""
    mono = x.mean(dim=0)
    power = x.double().square().mean(dim=1)
    # 20 dB below the loudest channel only happens to recordings with one channel's polarity reversed.
    if x.shape[0] > 1 and mono.double().square().mean() < power.max() / 100:
        return x[int(power.argmax())]
    return mono


def resample(x: torch.Tensor, from_rate: int, to_rate: int) -> torch.Tensor:
    """`[..., N]` at `from_rate` Hz as float32 `[..., ceil(N * to_rate / from_rate)]` at `to_rate` Hz.

    Any N, 0 and 1 included. Rates without a small ratio are met within two millionths, and so is the length.
    """
    x = x.float()
    if from_rate == to_rate or x.shape[-1] == 0:
        return x
    from torchaudio.functional import resample as torchaudio_resample

    # The filter bank grows with the ratio's terms: 44101 -> 24000 Hz as it stands takes gigabytes.
    ratio = Fraction(to_rate, from_rate).limit_denominator(1_000)
    resampled: torch.Tensor = torchaudio_resample(x, ratio.denominator, ratio.numerator)
    return resampled


def normalise_level(
    x: torch.Tensor,
    rate: int = SAMPLE_RATE,
    *,
    target_dbfs: float = -23.0,
    peak_dbfs: float = -1.0,
    max_gain_db: float = 40.0,
) -> torch.Tensor:
    """`[N]` at `rate` Hz scaled so that the RMS of its active part is `target_dbfs`; pauses do not count.

    The gain is held back where a peak would pass `peak_dbfs`, and never exceeds `max_gain_db`.
    Silence stays silence.
    """
    # -23: broadcast speech level; speech peaks 12-20 dB above its RMS, so it stays clear of the limit.
    # 40 dB: what needs more sits at the noise of a 16-bit recording, and would come out as hiss.
    import torch

    samples = x.double()
    peak = float(samples.abs().max()) if samples.numel() else 0.0
    if peak == 0.0:
        return x.float()
    frame = max(1, rate // 50)
    padded = torch.nn.functional.pad(samples, (0, -samples.numel() % frame))
    power = padded.reshape(-1, frame).square().mean(dim=1)
    # The energy-weighted mean is the power of speech however long the pauses; 20 dB below it speech ends.
    active = power[power >= 0.01 * power.square().sum() / power.sum()]
    rms = float(active.mean().sqrt())
    gain = min(10 ** (target_dbfs / 20) / rms, 10 ** (peak_dbfs / 20) / peak, 10 ** (max_gain_db / 20))
    return (samples * gain).float()


def to_pcm16(x: torch.Tensor) -> bytes:
    """`[N]` float in [-1, 1] as 16-bit little-endian samples: rounded, clipped; NaN becomes 0."""
    import torch

    # 32768 is what readers divide by, so 16-bit sound survives the round trip unchanged.
    scaled = torch.nan_to_num(x.detach().cpu().double() * 32768.0).round().clamp(-32768, 32767)
    return scaled.to(torch.int16).numpy().astype("<i2").tobytes()
