"""What was typed, on the disk: only the user may read it, and a disk that refuses is done without."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from prompt_toolkit.history import FileHistory

__all__ = ["PrivateHistory", "history_file"]

log = logging.getLogger(__name__)
READ_BYTES = 1 << 20
"""The newest lines of a file of any size; more is not recalled by hand."""


def history_file() -> Path:
    """Where the history is, in the state folder of the platform."""
    import platformdirs

    return platformdirs.user_state_path("csm-repl") / "history"


class PrivateHistory(FileHistory):
    """A history file with mode 0600. Where it cannot be used, lines are recalled as long as the program runs.

    Args:
        path: made at once where it is missing, with its folder.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path
        self._reads = self._writes = True
        self._problem = ""
        try:
            self._look()
            if self._reads:
                self._make_private()
        except OSError as error:
            self._give_up(error)

    def take_problem(self) -> str:
        """Why the file is not used, as one sentence, once; else empty."""
        problem, self._problem = self._problem, ""
        return problem

    def load_history_strings(self) -> Iterable[str]:
        if not self._reads:
            return []
        try:
            with self._path.open("rb") as file:
                return _newest_first(file)
        except OSError as error:
            self._give_up(error)
            return []

    def append_string(self, string: str) -> None:
        # Not twice in a row, so that Up does not stand still.
        strings = self.get_strings()
        if not string.strip() or (strings and strings[-1] == string):
            return
        super().append_string(string)

    def store_string(self, string: str) -> None:
        if not self._writes:
            return
        try:
            super().store_string(_encodable(string))
        except OSError as error:
            self._give_up(error)

    def _look(self) -> None:
        """Finds out whether what is there is a history, and the user's."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return
        reason = ""
        # To open a FIFO would be to wait for somebody at its other end.
        if not stat.S_ISREG(status.st_mode):
            reason = "it is no file"
        elif hasattr(os, "geteuid") and os.geteuid() not in {0, status.st_uid}:
            reason = "it belongs to another user"
        else:
            with self._path.open("rb") as file:
                if b"\0" in _end(file):
                    reason = "it is no history; delete it, and a new one is begun"
        if reason:
            self._reads = False
            self._give_up(reason)

    def _make_private(self) -> None:
        """Makes the file where it is missing. What cannot be written is known before the first line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        os.close(descriptor)
        # It may come from a backup with wider rights.
        self._path.chmod(0o600)

    def _give_up(self, why: OSError | str) -> None:
        if self._writes:
            reason = why if isinstance(why, str) else (why.strerror or str(why))
            log.warning("the history %s cannot be used: %s", self._path, reason)
            reason = reason[:1].lower() + reason[1:]
            self._problem = (
                f"What you type is not kept for the next start: {self._path} cannot be used ({reason})."
            )
        self._writes = False


def _end(file: BinaryIO) -> bytes:
    """The newest bytes; where they are not all, the first entry among them may be cut off."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - READ_BYTES))
    return file.read(READ_BYTES)


def _newest_first(file: BinaryIO) -> list[str]:
    """The entries of prompt_toolkit's format: a comment, and each row of the entry behind a plus sign."""
    entries: list[list[str]] = [[]]
    for row in _end(file).decode("utf-8", "replace").split("\n"):
        if row.startswith("+"):
            entries[-1].append(row[1:])
        elif entries[-1]:
            entries.append([])
    if file.tell() > READ_BYTES:
        del entries[0]
    return ["\n".join(rows) for rows in reversed(entries) if rows]


def _encodable(text: str) -> str:
    """Bytes that were no UTF-8 arrive as halves of surrogate pairs, which no file takes.

    NUL stays away, by which other files are told from a history.
    """
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "")
