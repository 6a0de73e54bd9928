"""One stream of samples into one file or stdout, for `-o`."""

from __future__ import annotations

import contextlib
import os
import struct
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from csm_repl.audio.encoder import ENDINGS, Encoder, check_ending
from csm_repl.audio.samples import to_pcm16
from csm_repl.audio.write import output_error, put_in_place, real_path, remove, sync, temp_path
from csm_repl.errors import OutputError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    import torch


def open_sink(target: str, *, raw: bool, rate: int, replace: bool) -> AudioSink:
    """A sink for mono sound at `rate` Hz, to be used in a `with` block.

    Args:
        target: a path that ends in .wav, .flac or .mp3, or '-': WAV on stdout.
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
        self._wrote = False

    @abstractmethod
    def _put(self, pcm16: bytes) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _discard(self) -> None: ...

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
        self._wrote = True
        try:
            self._put(to_pcm16(samples))
        except (OSError, OutputError):
            self._failed = True
            raise

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
        if self._failed or (error is not None and not self._wrote):
            self.abort()
        else:
            self.close()


class _FileSink(AudioSink):
    def __init__(self, path: Path, raw: bool, rate: int, replace: bool) -> None:
        super().__init__()
        self._path = path
        self._replace = replace
        self._encoder: Encoder | None = None
        self._temp = temp_path(path)
        self._file = self._temp.open("xb")
        try:
            if not raw:
                self._encoder = Encoder(self._file, path, rate)
        except BaseException:
            self._discard()
            raise

    def _put(self, pcm16: bytes) -> None:
        try:
            if self._encoder is None:
                self._file.write(pcm16)
            else:
                self._encoder.write(pcm16)
        except OSError as error:
            raise output_error(self._path, error) from error

    def _finish(self) -> None:
        try:
            if not self._wrote:
                return
            if self._encoder is not None:
                self._encoder.close()
            sync(self._file)
            self._file.close()
            self._place()
        except OSError as error:
            raise output_error(self._path, error) from error
        finally:
            self._discard()

    def _place(self) -> None:
        try:
            put_in_place(self._temp, self._path, self._replace)
            return
        except FileExistsError:
            pass
        # Somebody made a file of that name during the run. An hour of speech is not thrown away for that.
        number = 2
        while True:
            other = self._path.with_name(f"{self._path.stem}-{number}{self._path.suffix}")
            try:
                put_in_place(self._temp, other, replace=False)
            except FileExistsError:
                number += 1
                continue
            raise OutputError(
                f"{self._path} was written by another program in the meantime.", f"The sound is in {other}."
            )

    def _discard(self) -> None:
        if self._encoder is not None:
            self._encoder.abandon()
        with contextlib.suppress(OSError):  # closing flushes, so it can fail once more
            self._file.close()
        remove(self._temp)


class _StdoutSink(AudioSink):
    def __init__(self, raw: bool, rate: int) -> None:
        super().__init__()
        if sys.stdout is None:
            raise UsageError("-o - has nowhere to go: stdout is closed.", "Redirect it to a file.")
        if sys.stdout.isatty():
            raise UsageError(
                "-o - would write sound to the terminal.", "Pipe it to a program, or redirect it to a file."
            )
        self._header = b"" if raw else _streaming_wav_header(rate)

    def _put(self, pcm16: bytes) -> None:
        # Before the first sample and not sooner: a run that fails at its start leaves stdout untouched.
        header, self._header = self._header, b""
        self._send(header + pcm16)

    def _finish(self) -> None:
        if self._header:
            self._put(b"")

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


def _streaming_wav_header(rate: int) -> bytes:
    """A 16-bit mono WAV header whose sizes are not known yet."""
    unknown = 0xFFFFFFFF  # players take it for "until the end"
    return struct.pack(
        "<4sI4s4sIHHIIHH4sI",
        b"RIFF",
        unknown,
        b"WAVE",
        b"fmt ",
        16,
        1,
        1,
        rate,
        2 * rate,
        2,
        16,
        b"data",
        unknown,
    )
