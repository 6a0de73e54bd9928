"""The program's command line for a subprocess."""

from __future__ import annotations

import sys
from pathlib import Path


def command(model: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "csm_repl", "--model", str(model), "--whisper-model", "off", *arguments]
