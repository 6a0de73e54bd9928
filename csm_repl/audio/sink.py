"""One stream of samples into one file or stdout, for `-o`."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import stat
import struct
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from csm_repl.audio.encoder import ENDINGS, Encoder, check_ending, check_rate
from csm_repl.audio.samples import to_pcm16
from csm_repl.audio.write import output_error, put_in_place, real_path, remove, sync
from csm_repl.errors import OutputError, UsageError
from csm_repl.paths import remove_leftovers, unfinished_path

if TYPE_CHECKING:
    from types import TracebackType

    import torch

_BYTES = 2
"""Of a sample."""
_BLOCK = 1 << 18
"""Samples that are moved or encoded at a time."""
_UNKNOWN = 0xFFFFFFFF
"""As the size of a stream, players take it for "until the end"."""


def open_sink(target: str, *, raw: bool, rate: int, replace: bool) -> AudioSink:
    """A sink for mono sound at `rate` Hz, to be used in a `with` block.

    Args:
        target: a path that ends in .wav, .flac, .mp3, .ogg or .opus, or '-': WAV on stdout.
        raw: headerless s16le instead; then a path may end in anything else.
        replace: let an existing file be replaced.

    Raises:
        UsageError: unknown ending, existing file, missing folder, stdout is a terminal.
        OutputError: the folder cannot be written to.
    """
    if target == "-":
        return _StdoutSink(raw, rate)
    path = Path(os.path.expanduser(target))  # noqa: PTH111 - Path's own raises for an unknown user
    if not raw:
        check_ending(path)
    elif path.suffix.lower() in ENDINGS:
        raise UsageError(
            f"--raw has no header, so {path} would be no {path.suffix} file.", "Name it .s16 or .pcm."
        )
    try:
        path = _checked_target(path, replace)
        return _FileSink(path, raw, rate, replace)
    except OSError as error:
        raise output_error(path, error) from error


def _checked_target(path: Path, replace: bool) -> Path:
    if replace:
        path = real_path(path)
    if path.is_dir():
        raise UsageError(f"-o {path} is a folder.", "Name a file in it.")
    if not path.parent.is_dir():
        raise UsageError(f"-o {path}: there is no folder {path.parent}.", "Make it first.")
    if path.exists() and not path.is_file():
        raise UsageError(f"-o {path} is not a regular file.", "Use -o - and redirect stdout to it.")
    if os.path.lexists(path) and not replace:
        raise UsageError(f"-o {path} already exists.", "Choose another name, or replace it with --force.")
    return path


class AudioSink(ABC):
    """Takes samples until `close` (keeps them) or `abort` (drops a file; what stdout got is gone).

    As a `with` block it closes at the end, also when an exception or Ctrl-C passes through: what was made is
    kept. It aborts where its own writing failed, or where an exception came before the first sample.
    A run that wrote nothing leaves no file, and an empty WAV on stdout.
    """

    def __init__(self) -> None:
        self._closed = False
        self._failed = False
        self.n_samples = 0
        """Written so far; those of a write that failed do not count."""

    @abstractmethod
    def _put(self, pcm16: bytes) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _discard(self) -> None: ...

    @property
    def can_withdraw(self) -> bool:
        """Whether what was written can be taken out again."""
        return False

    def withdraw(self, start: int, end: int) -> None:
        """Takes out the samples from `start` to `end`, counted as they were written; they may be taken out
        already. ValueError where that cannot be done."""
        raise ValueError("what was sent cannot be taken back")

    def write(self, samples: torch.Tensor) -> None:
        """Append `[N]` float samples.

        Raises:
            OutputError: disk full and the like. BrokenPipeError: the reader of stdout has left.
            ValueError: after `close`.
        """
        if self._closed:
            raise ValueError("this sink is closed")
        if samples.numel() == 0:
            return
        try:
            self._put(to_pcm16(samples))
        except (OSError, OutputError):
            self._failed = True
            raise
        self.n_samples += samples.numel()

    def close(self) -> None:
        """Complete the sound and put it in place. Again: nothing. Raises as `write`."""
        if not self._closed:
            self._closed = True
            self._finish()

    def abort(self) -> None:
        """Leave no file. After `close`: nothing."""
        if not self._closed:
            self._closed = True
            self._discard()

    def __enter__(self) -> AudioSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._failed or (error is not None and self.n_samples == 0):
            self.abort()
        else:
            self.close()


class _FileSink(AudioSink):
    """Collects the samples in a hidden WAV beside the file, from which anything can be taken out.

    A .wav is that file, put in place, so that a disk that is full can still be closed on what it holds. Other
    formats are encoded from it at the end. Where that fails, an hour of speech is not thrown away: the WAV is
    kept, if need be among the system's temporary files, and the error says where.
    """

    def __init__(self, path: Path, raw: bool, rate: int, replace: bool) -> None:
        super().__init__()
        self._path = path
        self._replace = replace
        self._rate = rate
        self._header = b"" if raw else _wav_header(rate, 0)
        self._is_encoded = not raw and path.suffix.lower() != ".wav"
        self._withdrawn: list[tuple[int, int]] = []
        if self._is_encoded:
            check_rate(path, rate)
        remove_leftovers(path.parent)
        self._temp = unfinished_path(path.parent)
        self._file = self._temp.open("x+b", buffering=0)
        try:
            self._file.write(self._header)
        except BaseException:
            self._discard()
            raise

    @property
    def can_withdraw(self) -> bool:
        return True

    def withdraw(self, start: int, end: int) -> None:
        if not 0 <= start <= end <= self.n_samples:
            raise ValueError(f"there are no samples {start} to {end} of {self.n_samples}")
        self._withdrawn.append((start, end))

    def _put(self, pcm16: bytes) -> None:
        rest = memoryview(pcm16)
        try:
            # Where an earlier write broke off, or one was interrupted.
            self._file.seek(len(self._header) + _BYTES * self.n_samples)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise output_error(self._path, error) from error

    def _finish(self) -> None:
        try:
            n_samples = self._compact()
            if n_samples == 0:
                return
            try:
                self._complete(n_samples)
                if self._is_encoded:
                    self._encode(n_samples)
                else:
                    self._place(self._temp)
            except BaseException as error:
                self._keep(error)
                raise
        except OSError as error:
            raise output_error(self._path, error) from error
        finally:
            self._discard()

    def _compact(self) -> int:
        """Moves what is kept together; returns how many samples that is."""
        kept = 0
        for start, end in _gaps(self._withdrawn, self.n_samples):
            for at in range(start, end, _BLOCK):
                n = min(_BLOCK, end - at)
                if at != kept:
                    self._write_at(kept, self._read_at(at, n))
                kept += n
        self._file.truncate(len(self._header) + _BYTES * kept)
        return kept

    def _read_at(self, at: int, n: int) -> bytes:
        self._file.seek(len(self._header) + _BYTES * at)
        data = b""
        while len(data) < _BYTES * n:
            found = self._file.read(_BYTES * n - len(data))
            if not found:
                raise OSError("the sound that was written is not there any more")
            data += found
        return data

    def _write_at(self, at: int, data: bytes) -> None:
        self._file.seek(len(self._header) + _BYTES * at)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def _complete(self, n_samples: int) -> None:
        if self._header:
            self._file.seek(0)
            self._file.write(_wav_header(self._rate, n_samples))
        sync(self._file)

    def _encode(self, n_samples: int) -> None:
        temp = unfinished_path(self._path.parent)
        try:
            self._write_encoded(temp, n_samples)
            self._place(temp)
        finally:
            remove(temp)

    def _write_encoded(self, temp: Path, n_samples: int) -> None:
        with temp.open("xb") as file:
            encoder = Encoder(file, self._path, self._rate)
            try:
                for at in range(0, n_samples, _BLOCK):
                    encoder.write(self._read_at(at, min(_BLOCK, n_samples - at)))
                encoder.close()
            finally:
                encoder.abandon()
            sync(file)

    def _place(self, temp: Path) -> None:
        self._release()
        try:
            put_in_place(temp, self._path, self._replace)
            return
        except FileExistsError:
            pass
        # Somebody made a file of that name during the run.
        other = self._first_free(temp, self._path)
        raise _KeptError(
            f"{self._path} was written by another program in the meantime.", f"The sound is in {other}."
        )

    def _keep(self, error: BaseException) -> None:
        """Keeps what could not be encoded or put in place.

        Raises:
            OutputError: in place of `error`, with the file's name.
        """
        if isinstance(error, _KeptError):
            return
        if isinstance(error, OSError):
            error = output_error(self._path, error)
        kept = self._kept()
        if kept is not None and isinstance(error, OutputError):
            raise OutputError(error.cause, f"The sound is in {kept}.") from error

    def _kept(self) -> Path | None:
        self._release()
        path = self._path.with_suffix(".wav") if self._is_encoded else self._path
        with contextlib.suppress(OSError):
            return self._first_free(self._temp, path)
        # The folder is gone, or nothing can be written there any more; the open file is still there.
        with contextlib.suppress(OSError, ValueError):
            return self._copied(Path(tempfile.mkdtemp(prefix="csm-repl-")) / path.name)
        return None

    def _copied(self, path: Path) -> Path:
        """A copy in a folder that has nothing else in it; the folder goes where it fails."""
        try:
            with path.open("xb") as file:
                self._file.seek(0)
                shutil.copyfileobj(self._file, file)
                sync(file)
        except BaseException:
            shutil.rmtree(path.parent, ignore_errors=True)
            raise
        return path

    def _first_free(self, temp: Path, path: Path) -> Path:
        """Gives `temp` the first name like `path` that is free."""
        for number in itertools.count(1):
            other = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
            with contextlib.suppress(FileExistsError):
                put_in_place(temp, other, replace=False)
                return other
        raise AssertionError  # the count has no end

    def _release(self) -> None:
        """Closes the file where no open file can be renamed; elsewhere, it is all that is left of a folder
        that was removed."""
        if os.name == "nt":
            self._file.close()

    def _discard(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        remove(self._temp)


class _KeptError(OutputError):
    """The sound is in a file whose name it says."""


def _gaps(taken: list[tuple[int, int]], n: int) -> Iterator[tuple[int, int]]:
    """What of 0 to `n` is in none of these spans."""
    start = 0
    for first, end in sorted(taken):
        if first > start:
            yield start, first
        start = max(start, end)
    if start < n:
        yield start, n


class _StdoutSink(AudioSink):
    def __init__(self, raw: bool, rate: int) -> None:
        super().__init__()
        if sys.stdout is None:
            raise UsageError("-o - has nowhere to go: stdout is closed.", "Redirect it to a file.")
        if sys.stdout.isatty():
            raise UsageError(
                "-o - would write sound to the terminal.", "Pipe it to a program, or redirect it to a file."
            )
        self._rate = rate
        self._header = b"" if raw else _wav_header(rate)
        self._start = None if raw else _place_in_file(sys.stdout.fileno())

    def _put(self, pcm16: bytes) -> None:
        # Before the first sample and not sooner: a run that fails at its start leaves stdout untouched.
        header, self._header = self._header, b""
        self._send(header + pcm16)

    def _finish(self) -> None:
        if self._header:
            self._put(b"")
        if self._start is not None:
            with contextlib.suppress(OSError):
                # Where stdout goes into a file, the sizes can be written at last.
                os.pwrite(sys.stdout.fileno(), _wav_header(self._rate, self.n_samples), self._start)

    def _discard(self) -> None:
        pass

    def _send(self, data: bytes) -> None:
        # Unbuffered: a buffer would keep what could not be written and fail again at the interpreter's exit.
        buffer = sys.stdout.buffer
        stream = getattr(buffer, "raw", buffer)
        view = memoryview(data)
        try:
            sys.stdout.flush()
            while view:
                sent = stream.write(view)
                if sent is None:  # stdout is non-blocking and full
                    time.sleep(0.01)
                    continue
                view = view[sent:]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise output_error("stdout", error) from error


def _place_in_file(descriptor: int) -> int | None:
    """Where a regular file that is being written stands; None: what is written cannot be changed any more."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not hasattr(os, "pwrite"):
            return None
        import fcntl

        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND:
            return None  # every write goes to the end, wherever it is aimed
        return os.lseek(descriptor, 0, os.SEEK_CUR)
    except (OSError, ImportError):
        return None


def _wav_header(rate: int, n_samples: int | None = None) -> bytes:
    """A 16-bit mono WAV header; None: for a stream, whose sizes are not known yet."""
    n_bytes = _UNKNOWN if n_samples is None else min(_BYTES * n_samples, _UNKNOWN - 36)
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        _UNKNOWN if n_samples is None else 36 + n_bytes,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        rate,
        _BYTES * rate,
        _BYTES,
        16,
        b"data",
        n_bytes,
    )
