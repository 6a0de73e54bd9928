"""The line in an editor of the user's choice."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from csm_repl.front.console.block import pasted

__all__ = ["edited"]

_USUAL = ("editor", "nano", "vi")


def edited(text: str) -> str | None:
    """`text` as the editor left it; None if there is no editor, or it failed.

    $VISUAL, $EDITOR and then the usual ones are tried. The terminal must be the editor's while this runs.
    """
    with tempfile.TemporaryDirectory(prefix="csm-repl-") as folder:
        file = Path(folder) / "line.txt"
        file.write_bytes(text.encode("utf-8", "replace"))
        for editor in (os.environ.get("VISUAL"), os.environ.get("EDITOR"), *_USUAL):
            try:
                command = shlex.split(editor or "")
                if command and subprocess.call([*command, str(file)]) == 0:
                    return pasted(file.read_bytes().decode("utf-8", "replace"))
            except (OSError, ValueError):
                continue
            if command:
                return None
    return None
