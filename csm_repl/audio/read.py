"""Sound files into samples.

Files are decoded block by block and to their real end (`containers.py`): a small file can hold hours of
many channels, and a header can say anything.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import stat
import struct
import subprocess
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from csm_repl.audio.containers import FileView, kind_of, stated_seconds, true_view
from csm_repl.audio.samples import SAMPLE_RATE, Downmix, Resampler
from csm_repl.errors import ClipError

if TYPE_CHECKING:
    import torch

WITHOUT_FFMPEG = frozenset({".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".caf"})
"""Endings of files that are read without ffmpeg."""

_RATES = range(1_000, 1_000_001)
_SAVE_AGAIN = "Save it again as a 16-bit WAV."
_BLOCK_SAMPLES = 1 << 18
"""Of all channels together: 1 MB, and a FLAC frame at least."""
_SMALL_BLOCK = 4_096
"""Frames of a block where an error costs the rest of it."""
_MOST_SAMPLES = 1 << 28
"""Of all channels together, in memory at once: 1 GiB as float32."""
_FFMPEG_SECONDS = 120.0


class TooLongError(ClipError):
    """The file is longer than the caller wants to read."""


def import_pydub() -> Any:
    """The pydub module, with `pydub.silence`."""
    # It warns at import where ffmpeg is missing, also those who need none; reading says so in time.
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
        path: .wav .flac .ogg .opus .mp3 .aiff .caf; anything else (.m4a, ...) through ffmpeg. Or a file.
        max_seconds: longer files and parts are refused, where possible before they are decoded.
        start_s, end_s: the part, seconds into the file; what lies beyond the file's end is not there.

    Returns:
        samples: float32 `[C, N]`, C and N at least 1, all finite.
        rate: Hz.

    Raises:
        TooLongError: longer than `max_seconds`.
        ClipError: missing, unreadable, empty, damaged, unknown, or more than the memory should hold; the
            sentence calls it "the file".
    """
    import numpy as np
    import torch

    found = _read(path, _Part(start_s, end_s, max_seconds), _AllChannels)
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(found.blocks).T)), found.rate


def read_mono(
    path: Path | str | IO[bytes],
    *,
    rate: int = SAMPLE_RATE,
    max_seconds: float | None = None,
    start_s: float = 0.0,
    end_s: float | None = None,
) -> torch.Tensor:
    """A sound file, or a part of it, as float32 `[N]` at `rate` Hz, N at least 1: for speech.

    Downmixed as by `to_mono`, without offset, and resampled as by `resample`. The memory that this takes
    depends on the sound's length only: not on its channels, nor on its sample rate.

    Args and Raises: as `read_audio`.
    """
    part = _Part(start_s, end_s, max_seconds)
    found = _read(path, part, lambda file_rate: _Mono(file_rate, rate))
    channel = found.downmix.cancelled
    if channel is not None:
        found = _read(path, part, lambda file_rate: _Mono(file_rate, rate, channel))
    return found.samples()


def missing_seconds(path: Path, there_s: float) -> float:
    """How much of a sound file its header says is not there, as after a copy that was interrupted.

    Args:
        path: a file that could be read.
        there_s: length of its sound.

    Returns:
        Seconds; 0 where the header says nothing, nothing that could be so, or nothing else. Ogg and what
        ffmpeg reads say nothing.
    """
    try:
        with path.open("rb") as file:
            kind = kind_of(file.read(16))
            return 0.0 if kind is None else stated_seconds(file, kind, there_s) - there_s
    except OSError:
        return 0.0


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
        raise _unreadable(error) from error
    if info.st_size == 0:
        raise ClipError("The file is empty (0 bytes).", "Copy or record it again.")


def _unreadable(error: OSError) -> ClipError:
    return ClipError(f"The file cannot be read: {error.strerror}.", "Check the disk it lies on.")


@dataclass(frozen=True)
class _Part:
    """Which part of a file is wanted, in seconds."""

    start_s: float
    end_s: float | None
    max_seconds: float | None

    @property
    def is_whole(self) -> bool:
        return self.start_s <= 0 and self.end_s is None

    def start(self, rate: int) -> int:
        """First sample."""
        return max(0, round(self.start_s * rate))

    def n_wanted(self, rate: int) -> float:
        """Samples from `start` on, infinite for all of them."""
        if self.end_s is None:
            return math.inf
        return max(0, round(self.end_s * rate) - self.start(rate))

    def check_length(self, n: float, rate: int) -> None:
        """TooLongError where `n` samples are more than may be read."""
        if self.max_seconds is not None and n / rate > self.max_seconds:
            raise TooLongError(f"The file is longer than {self.max_seconds:.0f} s.", "Cut it shorter.")


# --- what becomes of the blocks -------------------------------------------------------------------------


class _Taker(Protocol):
    @property
    def n(self) -> int:
        """Samples taken, of one channel."""

    def take(self, block: Any) -> None:
        """Float32 array `[N, C]`, finite."""


_T = TypeVar("_T", bound=_Taker)


class _AllChannels:
    """Keeps everything."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.blocks: list[Any] = []
        self.n = 0
        self._n_samples = 0

    def take(self, block: Any) -> None:
        self._n_samples += block.size
        if self._n_samples > _MOST_SAMPLES:
            gib = _MOST_SAMPLES * 4 / 2**30
            raise ClipError(f"The sound takes more than {gib:.0f} GiB of memory.", "Cut it shorter.")
        self.n += len(block)
        self.blocks.append(block)


class _Mono:
    """Keeps one channel at another rate: the mean of all, or the one with the number `channel`."""

    def __init__(self, from_rate: int, to_rate: int, channel: int | None = None) -> None:
        self.downmix = Downmix()
        self.n = 0
        self._resampler = Resampler(from_rate, to_rate)
        # One piece of memory: a list of small tensors would keep the heap from giving back what was between.
        self._samples = bytearray()
        self._channel = channel
        self._offset: float | None = None

    def take(self, block: Any) -> None:
        import torch

        self.n += len(block)
        if self._channel is None:
            mono = self.downmix.push(block)
        else:
            mono = block[:, self._channel]
        if self._offset is None:
            # What is left of an offset after the filter would click at both ends.
            self._offset = float(mono.mean(dtype="float64"))
        self._keep(self._resampler.push(torch.from_numpy(mono - mono.dtype.type(self._offset))))

    def samples(self) -> torch.Tensor:
        """All of it, float32 `[N]`; once, at the end."""
        import torch

        self._keep(self._resampler.finish())
        return torch.frombuffer(self._samples, dtype=torch.float32)

    def _keep(self, samples: torch.Tensor) -> None:
        self._samples += samples.numpy().tobytes()


# --- decoders -------------------------------------------------------------------------------------------


class _NotUnderstoodError(Exception):
    """The decoder cannot read the file, or not all of it."""


@dataclass(frozen=True)
class _Stream:
    rate: int
    blocks: Iterator[Any]
    """Float32 arrays `[N, C]`, from the start of the part on."""
    n_frames: int | None
    """Samples in the whole file where that is certain."""


def _read(path: Path | str | IO[bytes], part: _Part, make: Callable[[int], _T]) -> _T:
    """What the taker that `make` makes, given the file's rate, has after the part."""
    if not isinstance(path, (str, Path)):
        return _decoded(path, part, make)
    path = Path(path)
    check_readable(path)
    try:
        with path.open("rb") as file:
            return _decoded(file, part, make, path)
    except OSError as error:
        raise _unreadable(error) from error


def _decoded(file: IO[bytes], part: _Part, make: Callable[[int], _T], path: Path | None = None) -> _T:
    damaged = ClipError("The file is damaged, or of a format that is not known.", _SAVE_AGAIN)
    head = file.read(16)
    kind = kind_of(head)
    view = None if kind is None else true_view(file, kind)
    if view is not None:
        with contextlib.suppress(_NotUnderstoodError), _libsndfile(view, kind == "pcm", part) as stream:
            return _taken(stream, part, make)
    ending = "" if path is None else path.suffix.lower()
    if kind is None and (ending in WITHOUT_FFMPEG or path is None):
        raise damaged
    if not shutil.which("ffmpeg"):
        if ending in WITHOUT_FFMPEG or kind is None:
            raise ClipError(damaged.cause, "Install ffmpeg, which may read it, or save it again as a WAV.")
        raise ClipError(
            f"Reading {ending or 'such'} files needs ffmpeg, which is not installed.",
            "Install ffmpeg, or convert the file to WAV.",
        )
    if kind is None:
        raise damaged
    with contextlib.ExitStack() as stack:
        if path is None:
            copy = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".sound"))
            file.seek(0)
            shutil.copyfileobj(file, copy)
            copy.flush()
            path = Path(copy.name)
        try:
            return _taken(stack.enter_context(_ffmpeg(path, part)), part, make)
        except _NotUnderstoodError as error:
            raise damaged from error


def _taken(stream: _Stream, part: _Part, make: Callable[[int], _T]) -> _T:
    import numpy as np

    rate = stream.rate
    if rate not in _RATES:
        raise ClipError(f"The file states a sample rate of {rate} Hz, which cannot be right.", _SAVE_AGAIN)
    n_wanted = part.n_wanted(rate)
    if stream.n_frames is not None:
        part.check_length(min(n_wanted, stream.n_frames - part.start(rate)), rate)
    taker = make(rate)
    for block in stream.blocks:
        if taker.n + len(block) > n_wanted:
            block = block[: int(n_wanted) - taker.n]
        part.check_length(taker.n + len(block), rate)
        if not np.isfinite(block).all():
            raise ClipError("The file holds samples that are not numbers (NaN or infinite).", _SAVE_AGAIN)
        if len(block):
            taker.take(block)
        if taker.n >= n_wanted:
            break
    if taker.n == 0 and not part.is_whole:
        raise ClipError(
            f"The file ends before {part.start_s:g} s, where the part starts.", "Check start and end."
        )
    if taker.n == 0:
        raise ClipError("The file holds no sound, only a header.", "Record it again, or delete it.")
    return taker


@contextlib.contextmanager
def _libsndfile(view: FileView, length_is_sure: bool, part: _Part) -> Iterator[_Stream]:
    import soundfile

    try:
        sound = soundfile.SoundFile(view)
    except soundfile.SoundFileError as error:
        if view.error is not None:
            raise view.error from error
        raise _NotUnderstoodError from error
    with sound:
        n_frames = sound.frames if length_is_sure else None
        yield _Stream(sound.samplerate, _libsndfile_blocks(sound, view, part), n_frames)


def _libsndfile_blocks(sound: Any, view: FileView, part: _Part) -> Iterator[Any]:
    import soundfile

    n_to_skip = part.start(sound.samplerate)
    if n_to_skip:
        with contextlib.suppress(soundfile.SoundFileError):
            n_to_skip -= sound.seek(n_to_skip)
    # soundfile seeks after every read in a file that it can seek in; that damages MP3, whose frames need
    # those before them, and fails in FLAC of unknown length.
    sound.seekable = lambda: False
    n = max(1, _BLOCK_SAMPLES // sound.channels)
    if sound.format not in ("WAV", "WAVEX", "RF64", "AIFF", "CAF", "AU"):
        n = min(n, _SMALL_BLOCK)
    while True:
        try:
            block = sound.read(n, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            if view.error is None and view.was_read:  # cut short: what came before is good
                return
            raise view.error or _NotUnderstoodError() from error
        if view.error is not None:
            raise view.error
        if len(block) == 0:
            return
        n_skipped = min(n_to_skip, len(block))
        n_to_skip -= n_skipped
        if n_skipped < len(block):
            yield block[n_skipped:]


@contextlib.contextmanager
def _ffmpeg(path: Path, part: _Part) -> Iterator[_Stream]:
    # Sun's AU has a header of 24 bytes or more, with rate, channels and no length. The path is absolute so
    # that it is no option; only files, because a playlist can name addresses.
    command = [
        *(
            "ffmpeg",
            "-v",
            "quiet",
            "-nostdin",
            "-protocol_whitelist",
            "file,pipe",
            "-i",
            str(path.absolute()),
        ),
        *("-map", "0:a:0", "-vn", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"),
    ]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    # A file can keep a decoder busy for ever without a sound coming out.
    alarm = threading.Timer(_FFMPEG_SECONDS, process.kill)
    alarm.daemon = True
    alarm.start()
    try:
        assert process.stdout is not None
        header = process.stdout.read(24)
        if len(header) < 24:
            raise _NotUnderstoodError
        magic, offset, _, encoding, rate, channels = struct.unpack(">4s5I", header)
        if magic != b".snd" or encoding != 6 or channels == 0:
            raise _NotUnderstoodError
        process.stdout.read(offset - 24)
        yield _Stream(rate, _ffmpeg_blocks(process.stdout, channels, part.start(rate)), None)
    finally:
        alarm.cancel()
        process.kill()
        process.communicate()


def _ffmpeg_blocks(pipe: IO[bytes], channels: int, n_to_skip: int) -> Iterator[Any]:
    import numpy as np

    n_bytes = 4 * channels * max(1, _BLOCK_SAMPLES // channels)
    while data := pipe.read(n_bytes):
        block = np.frombuffer(data[: len(data) // (4 * channels) * 4 * channels], ">f4").reshape(-1, channels)
        n_skipped = min(n_to_skip, len(block))
        n_to_skip -= n_skipped
        if n_skipped < len(block):
            yield block[n_skipped:].astype(np.float32)
