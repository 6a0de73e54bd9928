"""The JSON files of a model's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from csm_repl.errors import CheckpointError

__all__ = ["read_config"]


def read_config(path: Path) -> dict[str, Any]:
    """A parsed `config.json`; CheckpointError when it is missing or no JSON object."""
    remedy = "Download the model again, or point --model at a complete copy."
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"There is no {path.name} in {path.parent}.",
            "Point --model at a folder with config.json and the weights, or at a model on the hub.",
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.", remedy) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object.", remedy)
    return value
