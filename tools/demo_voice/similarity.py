"""Whose voice is it: a plain statistical measure, no trained speaker model.

A recording becomes the means and deviations over its speech of 20 mel cepstra, and the median of log F0.
Its distance to a voice is Mahalanobis, with the covariance within the voices (shrunk): linear discriminant
analysis. `score.py` says how often the measure itself is right on the synthesiser's recordings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torchaudio

from csm_repl.audio import SAMPLE_RATE

__all__ = ["VoiceMeasure", "features"]

_N_CEPSTRA = 20
_SHRINKAGE = 0.1


def features(x: torch.Tensor) -> torch.Tensor:
    """Samples [N] at 24 kHz -> [2 * 20 + 1]."""
    mfcc = torchaudio.transforms.MFCC(
        SAMPLE_RATE, _N_CEPSTRA, melkwargs={"n_fft": 1024, "hop_length": 240, "n_mels": 60, "f_max": 8000.0}
    )(x)
    loudness = torch.nn.functional.avg_pool1d((x**2)[None], 960, 240, padding=480)[0][: mfcc.shape[1]]
    speech = loudness > 0.01 * loudness.max()
    mfcc = mfcc[:, : speech.shape[0]][:, speech]
    # The first cepstrum is loudness, which says nothing about who speaks.
    return torch.cat([mfcc[1:].mean(dim=1), mfcc.std(dim=1), _log_f0(x)[None]])


def _log_f0(x: torch.Tensor) -> torch.Tensor:
    """Median of ln(F0 / Hz) over voiced frames, by autocorrelation between 60 and 350 Hz."""
    size, hop = 1536, 480
    frames = x.unfold(0, size, hop) * torch.hann_window(size) if len(x) >= size else x.new_zeros(1, size)
    power = torch.fft.rfft(frames, n=2 * size).abs() ** 2
    correlation = torch.fft.irfft(power)[:, :size]
    shortest, longest = SAMPLE_RATE // 350, SAMPLE_RATE // 60
    # A window's own autocorrelation falls with the lag.
    window = torch.fft.irfft(torch.fft.rfft(torch.hann_window(size), n=2 * size).abs() ** 2)[:size]
    ratio = correlation / correlation[:, :1].clamp(min=1e-9) / (window / window[0])
    peak, lag = ratio[:, shortest:longest].max(dim=1)
    voiced = (peak > 0.6) & (frames.pow(2).sum(dim=1) > 0.05 * frames.pow(2).sum(dim=1).max())
    lags = (lag[voiced] + shortest).float()
    return (SAMPLE_RATE / lags).log().median() if len(lags) else torch.tensor(math.log(120.0))


class VoiceMeasure:
    def __init__(self, recordings: Mapping[str, Sequence[torch.Tensor]]) -> None:
        """`recordings`: voice -> several samples [N]."""
        groups = {voice: torch.stack([features(x) for x in xs]) for voice, xs in recordings.items()}
        self.voices = sorted(groups)
        self._centres = torch.stack([groups[voice].mean(dim=0) for voice in self.voices])
        rest = torch.cat([groups[voice] - groups[voice].mean(dim=0) for voice in self.voices])
        within = rest.T @ rest / max(1, len(rest) - len(groups))
        within = (1 - _SHRINKAGE) * within + _SHRINKAGE * torch.diag(within.diagonal())
        self._whiten = torch.linalg.cholesky(torch.linalg.inv(within))

    def distances(self, x: torch.Tensor) -> dict[str, float]:
        """How far samples [N] are from each voice, in deviations within a voice."""
        offsets = (features(x) - self._centres) @ self._whiten
        return dict(zip(self.voices, offsets.norm(dim=1).tolist(), strict=True))

    def nearest(self, x: torch.Tensor) -> str:
        distances = self.distances(x)
        return min(distances, key=distances.__getitem__)
