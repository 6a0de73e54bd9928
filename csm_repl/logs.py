"""The log file, which always has the traceback that a user is spared."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers

from csm_repl.paths import log_file
from csm_repl.terminal import defused_lines

__all__ = ["start_logging"]


class _Formatter(logging.Formatter):
    """A log is read at a terminal too."""

    def format(self, record: logging.LogRecord) -> str:
        return defused_lines(super().format(record))


def start_logging(*, verbose: bool = False) -> None:
    """Logs this package to the file; a log that cannot be written is done without."""
    logger = logging.getLogger("csm_repl")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    path = log_file()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            path, maxBytes=1_000_000, backupCount=1, encoding="utf-8", delay=True
        )
        handler.setFormatter(_Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
    # Never write a logging problem over the user's screen.
    logging.raiseExceptions = False
