"""Keeps `torchaudio.save` and `torchaudio.load` working in code written for the original project.

Since 2.9 torchaudio leaves files to torchcodec, which needs the libraries of an FFmpeg that pip does not
install. Where torchcodec is not installed, the two functions would only raise; libsndfile does their work
then. With torchcodec they are torchaudio's own.
"""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch

__all__ = ["keep_torchaudio_files"]


def keep_torchaudio_files() -> None:
    """Replaces torchaudio's `save` and `load` where they cannot work."""
    if importlib.util.find_spec("torchcodec") is not None:
        return
    import torchaudio

    torchaudio.save = _save
    torchaudio.load = _load


def _save(
    uri: Any,
    src: torch.Tensor,
    sample_rate: int,
    channels_first: bool = True,
    format: str | None = None,
    encoding: str | None = None,
    bits_per_sample: int | None = None,
    buffer_size: int = 4096,
    backend: str | None = None,
    compression: float | None = None,
) -> None:
    """Writes samples [channels, n], or [n], into a file of the kind that its name says; WAV in 16 bits.

    As with torchcodec, what is given beyond `channels_first` has no effect; `format` has, for a file object.
    """
    import soundfile

    if encoding or bits_per_sample or backend or compression is not None:
        warnings.warn(
            "Without torchcodec, encoding, bits_per_sample, backend and compression have no effect.",
            UserWarning,
            stacklevel=2,
        )
    samples = src.detach().cpu()
    if samples.ndim == 2 and channels_first:
        samples = samples.T
    kind = format.upper() if format else None
    soundfile.write(uri, samples.contiguous().numpy(), int(sample_rate), format=kind)


def _load(
    uri: Any,
    frame_offset: int = 0,
    num_frames: int = -1,
    normalize: bool = True,
    channels_first: bool = True,
    format: str | None = None,
    buffer_size: int = 4096,
    backend: str | None = None,
) -> tuple[torch.Tensor, int]:
    """Float32 samples [channels, n] and their rate, of what libsndfile reads: WAV, FLAC, OGG, MP3."""
    import soundfile

    file = uri if hasattr(uri, "read") else Path(uri).expanduser()
    samples, rate = soundfile.read(
        file, frames=num_frames, start=frame_offset, dtype="float32", always_2d=True
    )
    found = torch.from_numpy(samples)
    return (found.T.contiguous() if channels_first else found), rate
