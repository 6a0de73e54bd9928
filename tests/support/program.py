"""The program's command line for a subprocess."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def command(model: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "csm_repl", "--model", str(model), "--whisper-model", "off", *arguments]


def speak_as_they_arrive(command: Sequence[str], cwd: Path) -> None:
    """Gives the program two lines, the second only when the first's take is there."""
    process = subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        for number in (1, 2):
            process.stdin.write(f"Line {number}.\n")
            process.stdin.flush()
            assert process.stdout.readline().strip().endswith(f"00{number}.wav")
        process.stdin.close()
        assert process.wait(timeout=60) == 0
