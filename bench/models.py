"""The model folders that benchmarks start programs with."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

__all__ = ["RANDOM_FOLDER", "random_model"]

RANDOM_FOLDER = Path(tempfile.gettempdir()) / "csm-random-full"


def random_model(folder: Path) -> Path:
    """A folder with a full-size model of random weights and a full-size codec; kept for the next time.

    Takes 3.6 GB on the disk and about as much memory while it is made.
    """
    if (folder / "config.json").is_file():
        return folder
    from tools.random_checkpoint import FULL_FLAVORS, write_checkpoint

    print(f"writing a random full-size model to {folder}", file=sys.stderr, flush=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    write_checkpoint(unfinished, flavors=FULL_FLAVORS, ends=False, full_mimi=True)
    unfinished.replace(folder)
    return folder
