"""Arithmetic on samples: downmix, resample, level, 16 bit. Pure; knows no files."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 24_000
"""Hz; what the codec hears and speaks."""

_CANCELLED = 100.0
"""20 dB below the loudest channel only happens to recordings with one channel's polarity reversed."""


def to_mono(x: torch.Tensor) -> torch.Tensor:
    """Downmix `[C, N]` to `[N]` by averaging; where channels cancel out, the loudest one is taken."""
    mono = x.mean(dim=0)
    power = x.double().square().mean(dim=1)
    if x.shape[0] > 1 and mono.double().square().mean() < power.max() / _CANCELLED:
        return x[int(power.argmax())]
    return mono


_FILTER_WIDTH = 6
_ROLLOFF = 0.99
"""torchaudio's own; `Resampler` has to know how far the filter reaches."""
_PIECE = 1 << 19
"""Samples that are resampled at once: worth making the filter for. Always as many, because the convolution
keeps a plan, of megabytes, for each length that it meets."""


_HUM_HZ = 100.0
"""Mains hum, rumble and offsets lie below; of speech only the lowest voices' fundamental."""
_SILENT = 1e-13
"""Power of what no 16-bit recording holds: -130 dBFS."""


def _ratio(from_rate: int, to_rate: int) -> Fraction:
    # The filter bank grows with the ratio's terms: 44101 -> 24000 Hz as it stands takes gigabytes.
    return Fraction(to_rate, from_rate).limit_denominator(1_000)


def resample(x: torch.Tensor, from_rate: int, to_rate: int) -> torch.Tensor:
    """`[..., N]` at `from_rate` Hz as float32 `[..., ceil(N * to_rate / from_rate)]` at `to_rate` Hz.

    Any N, 0 and 1 included. Rates without a small ratio are met within two millionths, and so is the length.
    """
    x = x.float()
    if from_rate == to_rate or x.shape[-1] == 0:
        return x
    from torchaudio.functional import resample as torchaudio_resample

    ratio = _ratio(from_rate, to_rate)
    resampled: torch.Tensor = torchaudio_resample(
        x, ratio.denominator, ratio.numerator, lowpass_filter_width=_FILTER_WIDTH, rolloff=_ROLLOFF
    )
    return resampled


class Resampler:
    """`resample` for sound that comes in pieces: what comes out, joined, is what the whole would give."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        import torch

        self._rates = from_rate, to_rate
        ratio = _ratio(from_rate, to_rate)
        self._up, self._down = ratio.numerator, ratio.denominator
        reach = math.ceil(_FILTER_WIDTH * self._down / (_ROLLOFF * min(self._up, self._down)))
        # Whole steps of the ratio, so that every piece begins on a sample of both rates.
        self._margin = self._down * math.ceil(reach / self._down)
        self._step = self._down * math.ceil(_PIECE / self._down)
        self._kept = torch.zeros(self._margin)
        """What has not come out yet, behind as much as the filter needs of what has."""
        self._waiting: list[torch.Tensor] = []
        self._n_waiting = -self._margin
        """Samples that could come out if the filter needed none after them."""

    def push(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 `[N]` -> the float32 `[M]` that no later piece can change."""
        import torch

        if self._up == self._down:
            return x
        self._waiting.append(x)
        self._n_waiting += x.shape[0]
        if self._n_waiting < self._step:
            return x[:0]
        kept = self._all()
        out = []
        while kept.shape[0] >= 2 * self._margin + self._step:
            piece = resample(kept[: 2 * self._margin + self._step], *self._rates)
            out.append(piece[self._at(self._margin) : self._at(self._margin + self._step)])
            kept = kept[self._step :]
        self._kept = kept.clone()
        self._n_waiting = kept.shape[0] - 2 * self._margin
        return torch.cat(out) if out else x[:0]

    def finish(self) -> torch.Tensor:
        """What is left, float32 `[M]`."""
        if self._up == self._down:
            return self._kept[:0]
        return resample(self._all(), *self._rates)[self._at(self._margin) :]

    def _all(self) -> torch.Tensor:
        import torch

        whole = torch.cat([self._kept, *self._waiting])
        self._waiting = []
        return whole

    def _at(self, n: int) -> int:
        return n // self._down * self._up


class Downmix:
    """`to_mono` for sound that comes in pieces. Where channels cancel out, `cancelled` says so at the end."""

    def __init__(self) -> None:
        self._mono_power = 0.0
        self._power: Any = None

    def push(self, block: Any) -> Any:
        """Float32 array `[N, C]` -> float32 array `[N]`."""
        import numpy as np

        n_channels = block.shape[1]
        if n_channels == 1:
            return block[:, 0]
        mono = block @ np.full(n_channels, 1 / n_channels, np.float32)
        with np.errstate(over="ignore"):
            self._mono_power += float(np.square(mono).sum(dtype=np.float64))
            power = np.square(block).sum(axis=0, dtype=np.float64)
        self._power = power if self._power is None else self._power + power
        return mono

    @property
    def cancelled(self) -> int | None:
        """The channel to take instead; None where the mean is good."""
        if self._power is None or self._mono_power >= self._power.max() / _CANCELLED:
            return None
        return int(self._power.argmax())


def speech_level(x: torch.Tensor, rate: int = SAMPLE_RATE) -> float | None:
    """Level of the speech in `[N]` at `rate` Hz, in dBFS: RMS while it is active. None where all is silent.

    Pauses, hum, an offset, and events too short to be speech (a click, a bang, a slammed door) do not count.
    """
    import torch

    frame = max(1, rate // 50)
    audible = _above(x.double(), rate, _HUM_HZ)
    padded = torch.nn.functional.pad(audible, (0, -audible.numel() % frame))
    power = padded.reshape(-1, frame).square().mean(dim=1)
    if power.numel() == 0 or float(power.max()) <= _SILENT:
        return None
    # Half a second, of which an eighth has to be loud: less is no speech.
    windows = power.unfold(0, min(25, power.numel()), 1).quantile(0.75, dim=1)
    sounding = windows[windows > _SILENT]
    if sounding.numel() == 0:
        sounding = power[power > _SILENT]
    # Speech, if there is noise between it, lies 10 dB above that.
    speech = sounding[sounding >= 10 * sounding.quantile(0.1)]
    usual = float((speech if speech.numel() else sounding).quantile(0.75))
    # Around its usual level speech reaches from 20 dB below, soft sounds, to 12 above, stressed vowels.
    active = power[(power >= usual / 100) & (power <= usual * 16)]
    return 10 * math.log10(float(active.mean()))


def amplify(
    x: torch.Tensor, gain_db: float, rate: int = SAMPLE_RATE, *, peak_dbfs: float = -1.0
) -> torch.Tensor:
    """Float32 `[N]`: `x` louder by `gain_db`. What would pass `peak_dbfs` is turned down, and only that."""
    import torch

    loud = x.double() * 10 ** (gain_db / 20)
    limit = 10 ** (peak_dbfs / 20)
    if loud.numel() == 0 or float(loud.abs().max()) <= limit:
        return loud.float()
    step = max(1, rate // 200)
    padded = torch.nn.functional.pad(loud, (0, -loud.numel() % step))
    gain = (limit / padded.reshape(-1, step).abs().amax(dim=1)).clamp(max=1.0)
    # The least of three steps, so that the way down is over before the peak comes.
    gain = -torch.nn.functional.max_pool1d(-gain[None, None], 3, stride=1, padding=1)
    smooth = torch.nn.functional.interpolate(gain, size=padded.numel(), mode="linear")[0, 0]
    return (padded * smooth)[: loud.numel()].clamp(-limit, limit).float()


def _above(x: torch.Tensor, rate: int, cutoff_hz: float) -> torch.Tensor:
    """`[N]` without what is below `cutoff_hz`; for measuring, not for listening."""
    import torch

    if x.numel() == 0:
        return x
    spectrum = torch.fft.rfft(x)
    spectrum[: math.ceil(cutoff_hz * x.numel() / rate)] = 0
    return torch.fft.irfft(spectrum, n=x.numel())


def to_pcm16(x: torch.Tensor) -> bytes:
    """`[N]` float in [-1, 1] as 16-bit little-endian samples: rounded, clipped; NaN becomes 0."""
    import torch

    # 32768 is what readers divide by, so 16-bit sound survives the round trip unchanged.
    scaled = torch.nan_to_num(x.detach().cpu().double() * 32768.0).round().clamp(-32768, 32767)
    return scaled.to(torch.int16).numpy().astype("<i2").tobytes()
