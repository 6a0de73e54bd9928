"""What was typed, on the disk: only the user may read it, and a disk that refuses is done without."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit.history import FileHistory

__all__ = ["PrivateHistory", "history_file"]

log = logging.getLogger(__name__)


def history_file() -> Path:
    """Where the history is, in the state folder of the platform."""
    import platformdirs

    return platformdirs.user_state_path("csm-repl") / "history"


class PrivateHistory(FileHistory):
    """A history file with mode 0600. Errors of the file system go to the log, once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._path = path
        self._works = True
        self._last: str | None = None

    def load_history_strings(self) -> Iterable[str]:
        try:
            if self._path.exists():
                # It may come from a backup with wider rights.
                self._path.chmod(0o600)
            return list(super().load_history_strings())
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
        if not self._works:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            super().store_string(_encodable(string))
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if self._works:
            log.warning("the history %s cannot be used: %s", self._path, error)
        self._works = False


def _encodable(text: str) -> str:
    """Bytes that were no UTF-8 arrive as halves of surrogate pairs, which no file takes."""
    return text.encode("utf-8", "replace").decode("utf-8")
