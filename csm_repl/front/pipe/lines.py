"""Lines of text from a file that may be slow to come."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator
from typing import BinaryIO, Protocol

__all__ = ["END", "LineFeed", "NumberedLine", "read_lines"]

WAITING_LINES = 64
_READ_BYTES = 1 << 16

NumberedLine = tuple[int, str | None]
"""Number from 1, and the text; None: it is not UTF-8."""


class _HasLines(Protocol):
    def readline(self) -> bytes: ...


class _End:
    pass


END = _End()
"""There are no more lines."""


def read_lines(file: _HasLines) -> Iterator[NumberedLine]:
    """Lines as they arrive."""
    number = 0
    while raw := file.readline():
        number += 1
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            yield number, raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            yield number, None


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
    """Lines of a descriptor. A buffered file would hold its lock while it waits, and so the exit up."""

    def __init__(self, descriptor: int, begun: bytes) -> None:
        self._descriptor = descriptor
        self._rest = begun
        self._at_end = False

    def readline(self) -> bytes:
        searched = 0
        while (end := self._rest.find(b"\n", searched)) < 0 and not self._at_end:
            searched = len(self._rest)
            data = os.read(self._descriptor, _READ_BYTES)
            self._at_end = not data
            self._rest += data
        end = len(self._rest) if end < 0 else end + 1
        line, self._rest = self._rest[:end], self._rest[end:]
        return line
