"""What a writer that was killed leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from csm_repl.paths import unfinished_path


def leave_behind(folder: Path) -> Path:
    """An unfinished file of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    mine = unfinished_path(folder)
    path = mine.with_name(mine.name.replace(f"-{os.getpid()}-", f"-{process.pid}-"))
    path.write_bytes(b"half")
    return path
