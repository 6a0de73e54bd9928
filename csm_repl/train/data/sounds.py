"""Where an utterance's sound is: in a file, in a part of one, or in a row of a data set."""

from __future__ import annotations

import hashlib
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from csm_repl.audio import SAMPLE_RATE, check_readable, read_mono
from csm_repl.errors import ClipError
from csm_repl.voices.cache import content_digest
from csm_repl.voices.clip import file_stamp

if TYPE_CHECKING:
    import torch

__all__ = ["FileSound", "LazySound", "RowSound"]

_LOWEST_RATE, _HIGHEST_RATE = 1_000, 1_000_000
"""Hz. Telephones have 8,000, studios up to 384,000."""


class LazySound(Protocol):
    """A recording that has not been read yet."""

    def stamp(self) -> str | None:
        """Equal as long as nothing has changed, and cheap; None where only `digest` can tell."""
        ...

    def digest(self) -> str:
        """Identifies the content, in hex. ClipError where it cannot be read."""
        ...

    def read(self, max_seconds: float) -> tuple[torch.Tensor, int]:
        """float32 samples [C, N] and Hz. ClipError where unusable or longer than `max_seconds`."""
        ...


@dataclass(frozen=True)
class FileSound:
    """A sound file, or the part of it from `start_s` to `end_s`."""

    path: Path
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def is_whole(self) -> bool:
        return self.start_s == 0.0 and self.end_s is None

    def stamp(self) -> str | None:
        stamp = file_stamp(self.path)
        if stamp is None:
            return None
        return json.dumps([str(self.path.absolute()), *stamp, self.start_s, self.end_s])

    def digest(self) -> str:
        check_readable(self.path)
        try:
            digest = content_digest(self.path)
        except OSError as error:
            raise ClipError(f"The file cannot be read: {error.strerror}.", "Check its disk.") from error
        if self.is_whole:
            return digest
        return hashlib.sha256(json.dumps([digest, self.start_s, self.end_s]).encode()).hexdigest()

    def read(self, max_seconds: float) -> tuple[torch.Tensor, int]:
        samples = read_mono(self.path, max_seconds=max_seconds, start_s=self.start_s, end_s=self.end_s)
        return samples[None], SAMPLE_RATE


@dataclass(frozen=True, eq=False)
class RowSound:
    """A row of a `datasets` data set whose audio column is not decoded.

    The column holds the bytes of a sound file, the path of one, or `array` and `sampling_rate`.
    """

    rows: Any
    """Indexable by row number, each row a mapping."""
    row: int
    column: str
    folder: Path | None
    """What paths are relative to."""

    def stamp(self) -> str | None:
        # A data set on disk is named by its fingerprint, which changes with its rows.
        fingerprint = getattr(self.rows, "_fingerprint", None)
        return None if fingerprint is None else json.dumps([str(fingerprint), self.column, self.row])

    def digest(self) -> str:
        value = self._value()
        if isinstance(value, FileSound):
            return value.digest()
        if isinstance(value, bytes):
            return hashlib.sha256(value).hexdigest()
        samples, rate = value
        return hashlib.sha256(samples.numpy().tobytes() + str(rate).encode()).hexdigest()

    def read(self, max_seconds: float) -> tuple[torch.Tensor, int]:
        value = self._value()
        if isinstance(value, FileSound):
            return value.read(max_seconds)
        if isinstance(value, bytes):
            return read_mono(io.BytesIO(value), max_seconds=max_seconds)[None], SAMPLE_RATE
        samples, rate = value
        if samples.shape[1] / rate > max_seconds:
            raise ClipError(f"The sound is longer than {max_seconds:.0f} s.", "Cut it shorter.")
        return value

    def _value(self) -> FileSound | bytes | tuple[torch.Tensor, int]:
        value = self.rows[self.row][self.column]
        if not isinstance(value, dict):
            value = {"path": value}
        data, path, rate = value.get("bytes"), value.get("path"), value.get("sampling_rate")
        if isinstance(data, bytes) and data:
            return data
        if isinstance(path, str) and path:
            return FileSound(self._file(path))
        array = value.get("array")
        if array is not None and isinstance(rate, (int, float)) and _LOWEST_RATE <= rate <= _HIGHEST_RATE:
            return _samples(array), int(rate)
        raise ClipError(
            f"The column {self.column} holds no sound.", "It must be an Audio column, or paths of files."
        )

    def _file(self, path: str) -> Path:
        try:
            name = os.fsencode(path)
        except UnicodeError:
            name = b"\0"
        if b"\0" in name:
            raise ClipError(f"The column {self.column} holds what cannot be a path.", "Correct it.")
        return (self.folder or Path()) / path


def _samples(values: Any) -> torch.Tensor:
    """Samples in any nesting of lists or arrays -> float32 [C, N]."""
    import numpy as np
    import torch

    try:
        array = np.atleast_2d(np.asarray(values, dtype=np.float32))
    except (ValueError, TypeError) as error:
        raise ClipError("The array holds no samples.", "It must be numbers, [N] or [C, N].") from error
    if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
        raise ClipError("The array holds no samples.", "It must be finite numbers, [N] or [C, N].")
    return torch.from_numpy(np.ascontiguousarray(array))
