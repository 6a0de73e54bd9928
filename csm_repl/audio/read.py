"""Sound files into samples. Knows nothing about speakers and transcripts."""

from __future__ import annotations

import shutil
import stat
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csm_repl.errors import ClipError

if TYPE_CHECKING:
    import torch

_READ_WITHOUT_FFMPEG = {".wav", ".flac", ".ogg", ".mp3"}
_RATES = range(1_000, 1_000_001)
_SAVE_AGAIN = "Save it again as a 16-bit WAV."


class TooLongError(ClipError):
    """The file is longer than the caller wants to read."""


def import_pydub() -> Any:
    """The pydub module, with `pydub.silence`."""
    # It warns at import where ffmpeg is missing, also those who need none; read_audio says so in time.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pydub
        import pydub.silence
    return pydub


def read_audio(path: Path | str, *, max_seconds: float | None = None) -> tuple[torch.Tensor, int]:
    """All samples of a sound file. A file that is cut short is read as far as it goes.

    Args:
        path: .wav .flac .ogg .mp3; anything else (.m4a, ...) through ffmpeg.
        max_seconds: longer files are refused, where possible before they are decoded.

    Returns:
        samples: float32 `[C, N]`, C and N at least 1, all finite.
        rate: Hz.

    Raises:
        TooLongError: longer than `max_seconds`.
        ClipError: missing, unreadable, empty, damaged or unknown; the sentence calls it "the file".
    """
    import torch

    path = Path(path)
    check_readable(path)
    samples, rate = _read_with_soundfile(path, max_seconds) or _read_with_ffmpeg(path, max_seconds)
    if samples.size == 0:
        raise ClipError("The file holds no sound, only a header.", "Record it again, or delete it.")
    if rate not in _RATES:
        raise ClipError(f"The file states a sample rate of {rate} Hz, which cannot be right.", _SAVE_AGAIN)
    tensor = torch.from_numpy(samples)
    if not bool(torch.isfinite(tensor).all()):
        raise ClipError("The file holds samples that are no numbers (NaN or infinite).", _SAVE_AGAIN)
    return tensor, rate


def check_readable(path: Path) -> None:
    """ClipError unless `path` is a file with something in it that may be read."""
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise ClipError("This is a folder, not a sound file.", "Rename it, or move the sound out of it.")
        if not stat.S_ISREG(info.st_mode):
            raise ClipError("This is no regular file.", "Put a sound file in its place.")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise ClipError("The file is not there.", "Check the name, or the link's target.") from error
    except PermissionError as error:
        raise ClipError(
            "You are not allowed to read the file.", "Give yourself the right to read it."
        ) from error
    except OSError as error:
        raise ClipError(
            f"The file cannot be read: {error.strerror}.", "Check the disk it lies on."
        ) from error
    if info.st_size == 0:
        raise ClipError("The file is empty (0 bytes).", "Copy or record it again.")


def _read_with_soundfile(path: Path, max_seconds: float | None) -> tuple[Any, int] | None:
    """float32 array `[C, N]` and Hz; None where libsndfile does not understand the file."""
    import soundfile

    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = int(file.samplerate)
            _check_length(file.frames / rate, max_seconds)
            return file.read(dtype="float32", always_2d=True).T.copy(), rate
    except (soundfile.SoundFileError, TypeError):  # TypeError: a .raw file, whose format nobody knows
        return None


def _read_with_ffmpeg(path: Path, max_seconds: float | None) -> tuple[Any, int]:
    import numpy as np

    ending = path.suffix.lower()
    damaged = ClipError("The file is damaged, or of a format that is not known.", _SAVE_AGAIN)
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        if ending in _READ_WITHOUT_FFMPEG:
            raise damaged
        raise ClipError(
            f"Reading {ending or 'this'} files needs ffmpeg, which is not installed.",
            "Install ffmpeg, or convert the file to WAV.",
        )
    limit = None if max_seconds is None else max_seconds + 1.0
    try:
        # Absolute, so that ffmpeg takes no name for a protocol or an option.
        segment = import_pydub().AudioSegment.from_file(str(path.absolute()), duration=limit)
        data = np.array(segment.get_array_of_samples())
    except Exception as error:  # pydub raises whatever its parsing of ffprobe's answer runs into
        raise damaged from error
    _check_length(segment.duration_seconds, max_seconds)
    scale = float(1 << (8 * segment.sample_width - 1))
    return (data.reshape(-1, segment.channels).T / scale).astype(np.float32), int(segment.frame_rate)


def _check_length(seconds: float, max_seconds: float | None) -> None:
    if max_seconds is not None and seconds > max_seconds:
        raise TooLongError(f"The file is longer than {max_seconds:.0f} s.", "Cut it shorter.")
