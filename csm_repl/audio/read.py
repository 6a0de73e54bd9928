"""Sound files into samples."""

from __future__ import annotations

import math
import shutil
import stat
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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


def read_audio(
    path: Path | str | IO[bytes],
    *,
    max_seconds: float | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> tuple[torch.Tensor, int]:
    """All samples of a sound file, or of a part of it. A file that is cut short is read as far as it goes.

    Args:
        path: .wav .flac .ogg .mp3; anything else (.m4a, ...) through ffmpeg. An open file: without ffmpeg.
        max_seconds: longer files and parts are refused, where possible before they are decoded.
        start_s, end_s: the part, seconds into the file; what lies beyond the file's end is not there.

    Returns:
        samples: float32 `[C, N]`, C and N at least 1, all finite.
        rate: Hz.

    Raises:
        TooLongError: longer than `max_seconds`.
        ClipError: missing, unreadable, empty, damaged or unknown; the sentence calls it "the file".
    """
    import torch

    if isinstance(path, (str, Path)):
        path = Path(path)
        check_readable(path)
    part = _Part(start_s, end_s, max_seconds)
    found = _read_with_soundfile(path, part)
    if found is None:
        if not isinstance(path, Path):
            raise ClipError("The sound is damaged, or of a format that is not known.", _SAVE_AGAIN)
        found = _read_with_ffmpeg(path, part)
    samples, rate = found
    if samples.size == 0 and (start_s > 0 or end_s is not None):
        raise ClipError(f"The file ends before {start_s:g} s, where the part starts.", "Check start and end.")
    if samples.size == 0:
        raise ClipError("The file holds no sound, only a header.", "Record it again, or delete it.")
    if rate not in _RATES:
        raise ClipError(f"The file states a sample rate of {rate} Hz, which cannot be right.", _SAVE_AGAIN)
    tensor = torch.from_numpy(samples)
    if not bool(torch.isfinite(tensor).all()):
        raise ClipError("The file holds samples that are not numbers (NaN or infinite).", _SAVE_AGAIN)
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
            "You are not allowed to read the file.", "Check the permissions of the file."
        ) from error
    except OSError as error:
        raise ClipError(
            f"The file cannot be read: {error.strerror}.", "Check the disk it lies on."
        ) from error
    if info.st_size == 0:
        raise ClipError("The file is empty (0 bytes).", "Copy or record it again.")


@dataclass(frozen=True)
class _Part:
    """Which part of a file is wanted, in seconds."""

    start_s: float
    end_s: float | None
    max_seconds: float | None

    def samples(self, n: int, rate: int) -> tuple[int, int]:
        """First sample and the one after the last, of a file of `n`; TooLongError where that is too long."""
        start = min(n, round(self.start_s * rate))
        end = n if self.end_s is None else max(start, min(n, round(self.end_s * rate)))
        if self.max_seconds is not None and (end - start) / rate > self.max_seconds:
            raise TooLongError(f"The file is longer than {self.max_seconds:.0f} s.", "Cut it shorter.")
        return start, end


def _read_with_soundfile(path: Path | IO[bytes], part: _Part) -> tuple[Any, int] | None:
    """float32 array `[C, N]` and Hz; None where libsndfile does not understand the file."""
    import soundfile

    try:
        with soundfile.SoundFile(str(path) if isinstance(path, Path) else path) as file:
            rate = int(file.samplerate)
            start, end = part.samples(file.frames, rate)
            if start:
                file.seek(start)
            return file.read(end - start, dtype="float32", always_2d=True).T.copy(), rate
    except (soundfile.SoundFileError, TypeError):  # TypeError: a .raw file, whose format nobody knows
        return None


def _read_with_ffmpeg(path: Path, part: _Part) -> tuple[Any, int]:
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
    limit = part.end_s
    if part.max_seconds is not None:
        limit = min(limit or math.inf, part.start_s + part.max_seconds + 1.0)
    try:
        # Absolute, so that ffmpeg takes no name for a protocol or an option.
        segment = import_pydub().AudioSegment.from_file(str(path.absolute()), duration=limit)
        data = np.array(segment.get_array_of_samples())
    except Exception as error:  # pydub raises whatever its parsing of ffprobe's answer runs into
        raise damaged from error
    scale = float(1 << (8 * segment.sample_width - 1))
    samples, rate = data.reshape(-1, segment.channels).T, int(segment.frame_rate)
    start, end = part.samples(samples.shape[1], rate)
    return (samples[:, start:end] / scale).astype(np.float32), rate
