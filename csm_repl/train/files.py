"""Files that are whole or not there: JSON, weights, and whatever else a run writes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from csm_repl.errors import TrainingError
from csm_repl.paths import unfinished_path

__all__ = ["write_atomically", "write_json", "write_weights"]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a temporary file beside `path` and puts it in place when it is on the disk.

    Raises:
        TrainingError: it could not be written; what was at `path` is untouched.
    """
    temporary = unfinished_path(path.parent)
    with _as_training_error(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(dict(value), indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_weights(path: Path, state: Mapping[str, torch.Tensor], *, dtype: torch.dtype | None) -> None:
    """A safetensors file of `state`, cast to `dtype` (None: as it is)."""
    from safetensors.torch import save_file

    tensors = {
        name: value.detach().to(device="cpu", dtype=dtype or value.dtype).contiguous()
        for name, value in state.items()
    }
    # transformers refuses files that do not say this.
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata={"format": "pt"}))


@contextlib.contextmanager
def _as_training_error(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    # torch and safetensors wrap what the system says in kinds of their own.
    except (OSError, SafetensorError, RuntimeError) as error:
        kept = f" The older {path.name} is intact." if path.is_file() else ""
        first = (str(error).strip().splitlines() or [repr(error)])[0][:200]
        raise TrainingError(
            f"{path} could not be written: {first}.{kept}",
            "Free some disk space and start the same command again; it goes on from the last saved state.",
        ) from error
