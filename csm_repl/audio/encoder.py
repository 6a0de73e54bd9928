"""libsndfile behind a file object, with the errors of that file object kept. For `write` and `sink` only."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import IO, Any

from csm_repl.errors import OutputError, UsageError

_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}
ENDINGS = frozenset(_FORMATS)


def check_ending(path: Path) -> None:
    """UsageError unless the ending of `path` is a format that can be written."""
    if path.suffix.lower() not in ENDINGS:
        ending = f"The ending {path.suffix!r}" if path.suffix else "A name without an ending"
        raise UsageError(
            f"{ending} does not name a sound format ({path}).", f"Use one of {', '.join(_FORMATS)}."
        )


def check_rate(path: Path, rate: int) -> None:
    """OutputError where the format that the ending of `path` names does not have this rate."""
    Encoder(io.BytesIO(), path, rate).abandon()


class Encoder:
    """16-bit mono samples into the open binary `file`, in the format that the ending of `path` names.

    Raises:
        OSError: what `file` raised, from any method.
        OutputError: the encoder refuses, e.g. a rate that the format does not have.
    """

    def __init__(self, file: IO[bytes], path: Path, rate: int) -> None:
        import soundfile

        self._path = path
        self._pipe = _Pipe(file)
        container, subtype = _FORMATS[path.suffix.lower()]
        self._failures = (soundfile.SoundFileError, AssertionError)
        try:
            self._sound = soundfile.SoundFile(
                self._pipe, "w", samplerate=rate, channels=1, format=container, subtype=subtype
            )
        except self._failures as error:
            self._fail(error)
        self._pipe.raise_caught()

    def write(self, pcm16: bytes) -> None:
        import numpy as np

        try:
            self._sound.write(np.frombuffer(pcm16, "<i2"))
        except self._failures as error:
            self._fail(error)
        self._pipe.raise_caught()

    def close(self) -> None:
        """Completes the header; `file` stays open."""
        try:
            self._sound.close()
        except self._failures as error:
            self._fail(error)
        self._pipe.raise_caught()

    def abandon(self) -> None:
        """Close without a word to the file, whatever state both are in. After `close`: nothing."""
        self._pipe.detach()
        with contextlib.suppress(*self._failures):
            self._sound.close()

    def _fail(self, error: Exception) -> None:
        self._pipe.raise_caught()
        raise OutputError(
            f"{self._path} cannot be written: {str(error) or 'the encoder gave up'}.", "Use .wav."
        ) from error


class _Pipe:
    """A file for libsndfile's callbacks, where an exception would be printed and lost, Ctrl-C as well."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._caught: BaseException | None = None

    def detach(self) -> None:
        self._file = io.BytesIO()

    def raise_caught(self) -> None:
        caught, self._caught = self._caught, None
        if caught is not None:
            raise caught

    def _guard(self, call: Any, *args: Any) -> int:
        try:
            return int(call(*args))
        except BaseException as error:
            self._caught = error
            return 0

    def write(self, data: bytes) -> int:
        return self._guard(self._file.write, data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._guard(self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._guard(self._file.tell)
