"""Where this user's files of the program lie, as the platform has it, and what is unfinished among them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
from pathlib import Path

__all__ = ["default_cache_dir", "is_plain_file", "log_file", "remove_leftovers", "unfinished_path"]

_UNFINISHED = re.compile(r"\.csm-repl-(?P<host>[0-9a-f]{8})-(?P<pid>\d{1,10})-[0-9a-f]{12}\.part")
_FORGOTTEN_AFTER_S = 7 * 24 * 3600


def default_cache_dir() -> Path:
    """Encoded clips, converted weights and compiled code; losing it costs time and nothing else."""
    import platformdirs

    return platformdirs.user_cache_path("csm-repl")


def log_file() -> Path:
    import platformdirs

    return platformdirs.user_state_path("csm-repl") / "csm-repl.log"


def unfinished_path(folder: Path) -> Path:
    """A name in `folder` that nobody has, for a file or folder that gets its real name when it is complete.

    It says whose it is: `remove_leftovers` knows by it what a process that was killed has left.
    """
    return folder / f".csm-repl-{_host()}-{os.getpid()}-{secrets.token_hex(6)}.part"


def is_plain_file(path: Path) -> bool:
    """Whether there is a regular file at `path` itself: no link to one, no folder, FIFO or device."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def remove_leftovers(folder: Path) -> None:
    """Removes from `folder` what was named by `unfinished_path` in a process that is gone. Best effort.

    Nobody can ask whether a process of another machine or container lives (the folder may be shared): what
    such a one has left goes when it has not been written to for a week.
    """
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            match = _UNFINISHED.fullmatch(entry.name)
            if match is None:
                continue
            with contextlib.suppress(OSError):
                if not _is_abandoned(match, entry):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    Path(entry.path).unlink()


def _is_abandoned(match: re.Match[str], entry: os.DirEntry[str]) -> bool:
    # On Windows, os.kill ends the process that it should only ask for.
    if match["host"] == _host() and sys.platform != "win32":
        return not _is_running(int(match["pid"]))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > _FORGOTTEN_AFTER_S


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it runs, as another user
        return True
    return True


@functools.cache
def _host() -> str:
    """Among which processes the number of a process says which one it is."""
    name = socket.gethostname()
    with contextlib.suppress(OSError):  # Linux: containers may have their host's name
        name += str(Path("/proc/self/ns/pid").readlink())
    return hashlib.sha256(name.encode()).hexdigest()[:8]
