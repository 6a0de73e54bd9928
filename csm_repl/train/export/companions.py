"""The files that belong to a model beside its config and weights: tokenizer, text front and codec."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from pathlib import Path

from csm_repl.files.text_front import FRONT_FILE, front_files
from csm_repl.train.files import write_atomically

__all__ = ["companions", "copy_files"]

_COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "codec.json", FRONT_FILE)
_COMPANION_PATTERNS = ("mimi*.safetensors", "codec*.safetensors")


def companions(folder: Path, *, tokenizer: Path | None = None) -> dict[str, Path]:
    """What belongs to a model beside config and weights: name -> file, of all that is there.

    Args:
        folder: a model's.
        tokenizer: where its tokenizer is if it has none of its own.
    """
    found = {name: folder / name for name in _COMPANIONS if (folder / name).is_file()}
    for pattern in _COMPANION_PATTERNS:
        found.update({path.name: path for path in sorted(folder.glob(pattern))})
    if FRONT_FILE in found:
        found.update({path.name: path for path in front_files(folder)})
    if tokenizer is not None:
        found.setdefault("tokenizer.json", tokenizer)
    return found


def copy_files(folder: Path, files: Mapping[str, Path]) -> None:
    for name, source in files.items():
        target = folder / name
        if _is_copy(target, source):
            continue
        write_atomically(target, functools.partial(shutil.copyfile, source))


def _is_copy(target: Path, source: Path) -> bool:
    """Whether `source` need not be copied again: best models are written often, and codecs are large."""
    if not target.is_file():
        return False
    if target.samefile(source):
        return True
    new, old = target.stat(), source.stat()
    return new.st_size == old.st_size and new.st_mtime_ns >= old.st_mtime_ns
