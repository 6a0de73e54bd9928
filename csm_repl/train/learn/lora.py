"""Low-rank adapters: put into a network, written to a folder, read, and added to a model's weights.

An adapter's folder has `adapter.json` (rank, alpha, targets, base model) and `adapter.safetensors`, whose
names are the network's: `....q_proj.lora_a.weight`, `....lora_b.weight`, and whole tensors that were trained
beside them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from csm_repl.errors import CheckpointError, UsageError
from csm_repl.train.files import write_json, write_weights
from csm_repl.train.learn.network import TrainableCSM
from csm_repl.train.learn.optimiser import trainable
from csm_repl.train.options import TrainOptions

__all__ = [
    "ADAPTER_FILE",
    "Adapter",
    "LoraSpec",
    "adapted_state",
    "add_lora",
    "apply_adapter",
    "read_adapter",
    "write_adapter",
]

ADAPTER_FILE = "adapter.json"
_WEIGHTS_FILE = "adapter.safetensors"
_LINEAR = {"q_proj", "k_proj", "v_proj", "output_proj", "w1", "w2", "w3"}
_WHOLE = {"heads": ("codebook0_head.weight", "audio_head"), "projection": ("projection.weight",)}
_A, _B = ".lora_a.weight", ".lora_b.weight"


@dataclass(frozen=True)
class LoraSpec:
    rank: int
    alpha: float
    targets: tuple[str, ...]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True)
class Adapter:
    """An adapter as it was written."""

    spec: LoraSpec
    base_model: str
    tensors: dict[str, torch.Tensor]


def add_lora(network: TrainableCSM, options: TrainOptions, *, frozen: torch.dtype | None = None) -> LoraSpec:
    """Puts adapters into backbone and depth decoder and leaves nothing else trainable.

    Args:
        network: changed in place; its outputs stay the same, as the adapters begin at zero.
        options: rank, alpha, dropout, targets and seed. A target is a linear layer's name, `mlp` for all
            three of the feed-forward, or `heads` or `projection`, which are then trained as a whole.
        frozen: matrices that are not trained are cast to this; None: they stay as they are.

    Raises:
        UsageError: an unknown target.
    """
    from torchtune.modules.peft import LoRALinear

    spec = LoraSpec(options.lora_rank, options.lora_alpha, options.lora_targets)
    names, whole = _resolve(spec.targets)
    network.requires_grad_(False)
    if frozen is not None:
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.data = parameter.data.to(frozen)
    generator = torch.Generator().manual_seed(options.seed)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if name not in names or not isinstance(child, nn.Linear):
                continue
            # Built without memory: torchtune would draw weights that are thrown away from the global state.
            with torch.device("meta"):
                adapted = LoRALinear(
                    child.in_features, child.out_features, spec.rank, spec.alpha, options.lora_dropout
                )
            adapted.weight = child.weight
            bound = 1 / math.sqrt(child.in_features)
            first = torch.empty(spec.rank, child.in_features).uniform_(-bound, bound, generator=generator)
            adapted.lora_a.weight = nn.Parameter(first.to(child.weight.device))
            second = torch.zeros(child.out_features, spec.rank, device=child.weight.device)
            adapted.lora_b.weight = nn.Parameter(second)
            setattr(module, name, adapted)
    for name, parameter in network.named_parameters():
        if name in whole:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)
    return spec


def _resolve(targets: tuple[str, ...]) -> tuple[set[str], set[str]]:
    """Names of linear layers and of whole tensors."""
    names: set[str] = set()
    whole: set[str] = set()
    for target in targets:
        if target == "mlp":
            names |= {"w1", "w2", "w3"}
        elif target in _LINEAR:
            names.add(target)
        elif target in _WHOLE:
            whole |= set(_WHOLE[target])
        else:
            known = ", ".join([*sorted(_LINEAR), "mlp", *_WHOLE])
            raise UsageError(f"There is no LoRA target {target!r}.", f"Use some of {known}.")
    return names, whole


@torch.no_grad()
def adapted_state(network: TrainableCSM, spec: LoraSpec) -> dict[str, torch.Tensor]:
    """The whole model with its adapters added, under the original layout's names, as it is now."""
    state = network.state_dict()
    base = {name: value for name, value in state.items() if not name.endswith((_A, _B))}
    return _add(base, {name: value for name, value in state.items() if name not in base}, spec)


def write_adapter(folder: Path, network: TrainableCSM, spec: LoraSpec, *, base_model: str) -> Path:
    """Writes what is trained, float32; returns the folder. TrainingError where it cannot be written."""
    about = {"format": 1, "base_model": base_model, **asdict(spec)}
    write_json(folder / ADAPTER_FILE, about)
    write_weights(folder / _WEIGHTS_FILE, trainable(network), dtype=torch.float32)
    return folder


def read_adapter(folder: Path) -> Adapter:
    """CheckpointError where the folder holds no adapter."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        about: dict[str, Any] = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))
        spec = LoraSpec(int(about["rank"]), float(about["alpha"]), tuple(about["targets"]))
        tensors = load_file(folder / _WEIGHTS_FILE)
        return Adapter(spec, str(about["base_model"]), tensors)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder} holds no usable adapter: {error}.",
            f"Give the folder that 'csm-repl train --lora' made, with {ADAPTER_FILE} and {_WEIGHTS_FILE}.",
        ) from error


def apply_adapter(state: Mapping[str, torch.Tensor], adapter: Adapter) -> dict[str, torch.Tensor]:
    """The tensors of a model with an adapter added, each in the dtype it had.

    Raises:
        CheckpointError: the adapter belongs to another model.
    """
    pairs = {name for name in adapter.tensors if name.endswith((_A, _B))}
    for name, tensor in adapter.tensors.items():
        target = name.removesuffix(_A).removesuffix(_B) + ".weight" if name in pairs else name
        wanted = state[target].shape if target in state else None
        side = -1 if name.endswith(_A) else 0
        fits = wanted is not None and (
            tensor.shape[side] == wanted[side] if name in pairs else tensor.shape == wanted
        )
        if not fits:
            raise CheckpointError(
                f"The adapter does not fit this model: {name} has no counterpart of its size.",
                f"Merge it with the model it was trained on, {adapter.base_model}.",
            )
    return _add(state, adapter.tensors, adapter.spec)


def _add(
    base: Mapping[str, torch.Tensor], adapter: Mapping[str, torch.Tensor], spec: LoraSpec
) -> dict[str, torch.Tensor]:
    """W + alpha / rank * B A, computed in float32; whole tensors replace."""
    out = dict(base)
    for name, tensor in adapter.items():
        if name.endswith(_A):
            stem = name.removesuffix(_A)
            weight = out[f"{stem}.weight"]
            change = adapter[f"{stem}{_B}"].float() @ tensor.float()
            out[f"{stem}.weight"] = (weight.float() + spec.scale * change).to(weight.dtype)
        elif not name.endswith(_B):
            out[name] = tensor.to(base[name].dtype)
    return out
