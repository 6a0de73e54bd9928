"""JSON files that somebody else wrote: of a model, of a session, of an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from csm_repl.errors import CheckpointError

__all__ = ["DOWNLOAD_AGAIN", "MAX_JSON_BYTES", "read_config", "read_json"]

DOWNLOAD_AGAIN = "Download the model again, or point --model at a complete copy."
MAX_JSON_BYTES = 64 * 2**20
"""The index of a checkpoint with a hundred thousand tensors has a tenth of that."""


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """What a JSON file holds, in UTF-8, UTF-16 or UTF-32, with or without a mark.

    Raises:
        OSError: missing or unreadable.
        ValueError: no regular file, too long, or no JSON; the text says which and where.
    """
    # A FIFO would be waited for, a device may never end.
    if not path.is_file():
        path.stat()
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ValueError(f"it is longer than {max_bytes // 2**20} MB")
    try:
        return json.loads(data, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not {error.encoding.upper()}") from None


def read_config(path: Path) -> dict[str, Any]:
    """A parsed `config.json`; CheckpointError when it is missing or no JSON object."""
    try:
        value = read_json(path)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"There is no {path.name} in {path.parent}.",
            "Point --model at a folder with config.json and the weights, or at a model on the hub.",
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CheckpointError(f"{path} cannot be read as JSON: {reason}.", DOWNLOAD_AGAIN) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object.", DOWNLOAD_AGAIN)
    return value


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")
