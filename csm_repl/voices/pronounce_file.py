"""`pronounce.txt` beside the clips, read again whenever it changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from csm_repl.text.normalise import PronounceTable, read_table

__all__ = ["PRONOUNCE_FILE", "PronounceFile"]

PRONOUNCE_FILE = "pronounce.txt"
_MOST_BYTES = 2**20
_NAMED_LINES = 3


class PronounceFile:
    """The table of a folder; empty while there is no file.

    Args:
        folder: with the clips.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / PRONOUNCE_FILE
        self._seen: tuple[int, int] | None = None
        self.table = PronounceTable()

    def look(self) -> Iterator[str]:
        """Takes up what changed; yields a sentence where something is wrong with it."""
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size)
        except OSError:
            seen = None
        if seen == self._seen:
            return
        self._seen = seen
        self.table = PronounceTable()
        if seen is None:
            return
        try:
            content = self._content(seen[1])
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            yield (
                f"{PRONOUNCE_FILE} is not used: {reason}. Make it a readable UTF-8 file of lines such as "
                "CSM = see ess em."
            )
            return
        self.table, complaints = read_table(content)
        if complaints:
            more = len(complaints) - _NAMED_LINES
            named = "; ".join(complaints[:_NAMED_LINES]) + (f"; and {more} more" if more > 0 else "")
            yield f"{PRONOUNCE_FILE}: {named}. Left out; write WORD = what is said."

    def _content(self, size: int) -> str:
        if not self._path.is_file():
            raise OSError(0, "it is no regular file")
        if size > _MOST_BYTES:
            raise OSError(0, "it is larger than a megabyte")
        raw = self._path.read_bytes()
        encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return raw.decode(encoding)
