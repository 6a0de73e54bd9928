"""Adapter folders, as `csm-repl train --lora` and as PEFT write them: their files and their base."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csm_repl.errors import CheckpointError
from csm_repl.files.json_files import read_json

__all__ = [
    "ADAPTER_FILE",
    "ADAPTER_WEIGHTS",
    "COPY_AGAIN",
    "PEFT_FILE",
    "PEFT_WEIGHTS",
    "AdapterFiles",
    "find_adapter",
    "is_adapter",
]

ADAPTER_FILE, ADAPTER_WEIGHTS = "adapter.json", "adapter.safetensors"
PEFT_FILE, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PEFT_OLD_WEIGHTS = "adapter_model.bin"
COPY_AGAIN = "Copy the adapter again, with all of its files."
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter's folder; nothing of it is loaded but its config."""

    folder: Path
    config: Mapping[str, Any]
    """Of `adapter.json` or `adapter_config.json`."""
    weights: Path
    is_peft: bool
    base_model: str
    """What the adapter was trained on: a name on the hub, or a folder of the machine that trained it."""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def base(self) -> str:
        """The base model for those who name none; CheckpointError where it cannot be known or is not here."""
        if self.base_model == "demo" or Path(self.base_model).expanduser().is_dir():
            return self.base_model
        if _HUB_NAME.fullmatch(self.base_model):
            return self.base_model
        where = f"was trained on {self.base_model}, which is not here" if self.base_model else "names no base"
        raise CheckpointError(
            f"The adapter in {self.folder} {where}.", "Name the model that it belongs to with --model."
        )


def is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter and no model."""
    if (folder / "config.json").exists():
        return False
    return (folder / ADAPTER_FILE).is_file() or (folder / PEFT_FILE).is_file()


def find_adapter(folder: Path) -> AdapterFiles:
    """Looks at an adapter's folder; loads no weights.

    Raises:
        CheckpointError: there is no adapter, or its config cannot be read.
    """
    if not folder.is_dir():
        hint = ""
        if _HUB_NAME.fullmatch(str(folder)):
            hint = f" One on the hub is brought by 'hf download {folder} --local-dir DIR'."
        raise CheckpointError(
            f"{folder} is no folder.",
            f"Give the folder of an adapter, with {ADAPTER_FILE} or {PEFT_FILE}.{hint}",
        )
    for name, weights, is_peft in (
        (ADAPTER_FILE, (ADAPTER_WEIGHTS,), False),
        (PEFT_FILE, (PEFT_WEIGHTS, _PEFT_OLD_WEIGHTS), True),
    ):
        if not (folder / name).is_file():
            continue
        found = next((folder / each for each in weights if (folder / each).is_file()), None)
        if found is None:
            raise CheckpointError(f"{folder} has {name} but no {weights[0]}.", COPY_AGAIN)
        config = _config(folder / name)
        base = config.get("base_model_name_or_path" if is_peft else "base_model")
        return AdapterFiles(folder, config, found, is_peft, base if isinstance(base, str) else "")
    if (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds a model, and no adapter.", f"Use --model {folder} for it, without --adapter."
        )
    raise CheckpointError(
        f"{folder} holds no adapter.",
        f"Give the folder that 'csm-repl train --lora' made, with {ADAPTER_FILE}, or one of PEFT, with "
        f"{PEFT_FILE}.",
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.", COPY_AGAIN) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object.", COPY_AGAIN)
    return config
