"""Low-rank adapters: put into a network, and written to a folder; `model.weights.adapters` reads it.

An adapter's folder has `adapter.json` (rank, alpha, targets, base model) and `adapter.safetensors`, whose
names are the network's: `....q_proj.lora_a.weight`, `....lora_b.weight`, and whole tensors that were trained
beside them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from csm_repl.errors import UsageError
from csm_repl.files.adapters import ADAPTER_FILE, ADAPTER_WEIGHTS
from csm_repl.model.weights.adapters import DOWN, UP, low_rank_changes
from csm_repl.train.files import write_json, write_weights
from csm_repl.train.learn.network import TrainableCSM
from csm_repl.train.learn.optimiser import trainable
from csm_repl.train.options import TrainOptions

__all__ = ["LoraSpec", "adapted_state", "add_lora", "write_adapter"]

_LINEAR = {"q_proj", "k_proj", "v_proj", "output_proj", "w1", "w2", "w3"}
_WHOLE = {"heads": ("codebook0_head.weight", "audio_head"), "projection": ("projection.weight",)}


@dataclass(frozen=True)
class LoraSpec:
    rank: int
    alpha: float
    targets: tuple[str, ...]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


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
    base = {name: value for name, value in state.items() if not name.endswith((DOWN, UP))}
    learnt = {name: value for name, value in state.items() if name not in base}
    for name, change in low_rank_changes(learnt, spec.scale).items():
        base[name] = change.applied(base[name]).to(base[name].dtype)
    return base


def write_adapter(folder: Path, network: TrainableCSM, spec: LoraSpec, *, base_model: str) -> Path:
    """Writes what is trained, float32; returns the folder. TrainingError where it cannot be written."""
    about = {"format": 1, "base_model": base_model, **asdict(spec)}
    write_json(folder / ADAPTER_FILE, about)
    write_weights(folder / ADAPTER_WEIGHTS, trainable(network), dtype=torch.float32)
    return folder
