"""An adapter as PEFT writes it, for transformers' model: what `PeftModel.from_pretrained` loads."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from csm_repl.files.adapters import PEFT_FILE, PEFT_WEIGHTS
from csm_repl.files.config import ModelConfig
from csm_repl.files.layouts import TRANSFORMERS
from csm_repl.model.weights.adapters import Adapter
from csm_repl.model.weights.published import named_parts
from csm_repl.train.files import write_json, write_weights

__all__ = ["write_peft"]

_PREFIX = "base_model.model."


def write_peft(folder: Path, adapter: Adapter, config: ModelConfig, *, base_model: str) -> None:
    """Writes `adapter`, float32.

    Args:
        folder: made if need be.
        adapter: as it was read, under the original's names.
        config: of the model that it belongs to.
        base_model: what the adapter says of it; PEFT loads another model if its user gives one.

    Raises:
        TrainingError: it cannot be written.
    """
    parts = dict(named_parts(config, TRANSFORMERS))
    tensors: dict[str, torch.Tensor] = {}
    targets, whole, rank, scale = [], [], 1, 1.0
    for name, change in adapter.changes.items():
        part = parts[name]
        if part.half_rotated_heads:
            change = change.reordered(part.half_rotated_heads, to_pairs=False)
        module = part.names[0].removesuffix(".weight")
        if change.whole is not None:
            whole.append(module)
            tensors[f"{_PREFIX}{module}.weight"] = change.whole
        if change.down is not None and change.up is not None:
            targets.append(module)
            rank, scale = change.down.shape[0], change.scale
            tensors[f"{_PREFIX}{module}.lora_A.weight"] = change.down
            tensors[f"{_PREFIX}{module}.lora_B.weight"] = change.up
    about = {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": _whole(scale * rank),
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": targets,
        "modules_to_save": whole or None,
        "inference_mode": True,
    }
    write_json(folder / PEFT_FILE, about)
    write_weights(folder / PEFT_WEIGHTS, tensors, dtype=torch.float32)


def _whole(value: float) -> float | int:
    rounded = round(value)
    return rounded if math.isclose(value, rounded) else value
