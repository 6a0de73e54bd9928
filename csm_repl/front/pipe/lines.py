"""Lines of text from a file that may be slow to come, and that anybody may have written."""

from __future__ import annotations

import codecs
import os
import queue
import re
import stat
import threading
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from csm_repl.errors import LineError

__all__ = [
    "END",
    "MAX_LINE_BYTES",
    "LineFeed",
    "NumberedLine",
    "first_unreadable",
    "read_lines",
    "rows_elsewhere",
]

MAX_LINE_BYTES = 2**20
"""A line of a megabyte would be a day of speech; what is longer has no lines, as a device or a picture."""
WAITING_LINES = 64
_READ_BYTES = 1 << 16
_LINE_END = re.compile(rb"[\r\n]")
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}

NumberedLine = tuple[int, "str | LineError"]
"""Number from 1, and the text, or why there is none."""


class _HasBytes(Protocol):
    def read1(self, size: int, /) -> bytes: ...


class _End:
    pass


END = _End()
"""There are no more lines."""


def read_lines(file: _HasBytes) -> Iterator[NumberedLine]:
    """Lines as they arrive: UTF-8, or UTF-16 and UTF-32 by their mark; ended by LF, CR LF or CR.

    A line that is not UTF-8 is an error of its own and the next ones are read. One of more than
    `MAX_LINE_BYTES`, or a broken UTF-16, is the last one.
    """
    number = 0
    try:
        for raw in _split(_as_utf8(file)):
            number += 1
            yield number, _decoded(raw)
    except LineError as error:
        yield number + 1, error


def first_unreadable(descriptor: int, start: int = 0) -> NumberedLine | None:
    """The first line of a regular file that cannot be read, from byte `start` on; the file's position stays.

    None also for what is no regular file, and would be used up by looking.
    """
    lines = rows_elsewhere(descriptor, start)
    return next((line for line in lines or () if isinstance(line[1], LineError)), None)


def rows_elsewhere(descriptor: int, start: int = 0) -> Iterator[NumberedLine] | None:
    """The lines of a regular file from byte `start` on, as `read_lines`; the file's position stays.

    None: it is no regular file.
    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not hasattr(os, "pread"):
        return None
    return read_lines(_Elsewhere(descriptor, start))


def _as_utf8(file: _HasBytes) -> Iterator[bytes]:
    """The file's bytes as they come, without a mark, in UTF-8 if the mark says something else."""
    begun = b""
    while chunk := file.read1(_READ_BYTES):
        begun += chunk
        if not any(mark.startswith(begun) for mark in _MARKS):
            break
    mark = next((mark for mark in _MARKS if begun.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "utf-8")
    if encoding == "utf-8":
        yield begun[len(mark) :]
        while chunk := file.read1(_READ_BYTES):
            yield chunk
        return
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        yield decoder.decode(begun[len(mark) :]).encode()
        while chunk := file.read1(_READ_BYTES):
            yield decoder.decode(chunk).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeDecodeError as error:
        yield error.object[: error.start].decode(encoding).encode()
        raise LineError(
            f"This is not the {encoding[:6].upper()} that the script's first bytes say.",
            "Save the script as UTF-8; nothing was read from here on.",
        ) from None


def _split(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their ends."""
    rest = b""
    after_cr = False
    for chunk in chunks:
        if after_cr:
            # A line that ends in CR is handed out at once, without waiting for the LF that may follow.
            after_cr, chunk = not chunk, chunk.removeprefix(b"\n")
        searched, rest = len(rest), rest + chunk
        start = 0
        while (found := _LINE_END.search(rest, max(start, searched))) is not None:
            yield _not_too_long(rest[start : found.start()])
            start = found.end()
            if found[0] == b"\r":
                after_cr = start == len(rest)
                start += rest[start : start + 1] == b"\n"
        rest = _not_too_long(rest[start:])
    if rest:
        yield rest


def _not_too_long(line: bytes) -> bytes:
    if len(line) > MAX_LINE_BYTES:
        raise LineError(
            f"This line is longer than {MAX_LINE_BYTES // 2**20} MB.",
            "Break the text into lines; nothing was read from here on.",
        )
    return line


def _decoded(raw: bytes) -> str | LineError:
    # Of Latin letters in UTF-16 it is half; a stray one does no harm.
    if raw.count(b"\0") * 3 > len(raw):
        return LineError("This line looks like UTF-16 without its mark.", "Save the script as UTF-8.")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return LineError("This line is not UTF-8.", "Save the script as UTF-8.")


class LineFeed:
    """Reads ahead in a thread, so that whoever has other work need not wait for the next line.

    Args:
        file: read from its descriptor on; what it has buffered itself comes first.
        buffered: whether that is so: to look is to wait for the first line.
    """

    def __init__(self, file: BinaryIO, *, buffered: bool) -> None:
        begun = bytes(getattr(file, "peek", lambda: b"")()) if buffered else b""
        self._source = _Descriptor(os.dup(file.fileno()), begun)
        self._queue: queue.Queue[NumberedLine | _End | OSError] = queue.Queue(WAITING_LINES)
        threading.Thread(target=self._read, name="lines", daemon=True).start()

    def next(self, *, wait: bool) -> NumberedLine | _End | None:
        """The next line, or END for good; None: there is none yet, and nobody wanted to wait."""
        try:
            item = self._queue.get(block=wait)
        except queue.Empty:
            return None
        if isinstance(item, _End):
            self._queue.put(item)
        if isinstance(item, OSError):
            raise item
        return item

    def _read(self) -> None:
        try:
            for line in read_lines(self._source):
                self._queue.put(line)
        except OSError as error:
            self._queue.put(error)
        self._queue.put(END)


class _Descriptor:
    """Bytes of a descriptor. A buffered file would hold its lock while it waits, and so the exit up."""

    def __init__(self, descriptor: int, begun: bytes) -> None:
        self._descriptor = descriptor
        self._begun = begun

    def read1(self, size: int, /) -> bytes:
        begun, self._begun = self._begun, b""
        return begun or os.read(self._descriptor, size)


class _Elsewhere:
    """Bytes of a descriptor, whose position is left alone."""

    def __init__(self, descriptor: int, start: int) -> None:
        self._descriptor = descriptor
        self._at = start

    def read1(self, size: int, /) -> bytes:
        data = os.pread(self._descriptor, size, self._at)
        self._at += len(data)
        return data
