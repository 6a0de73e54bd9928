"""Adapters: low-rank changes of a model's weights, and whole tensors that were trained beside them.

csm-repl's own name the tensors as the original does (`....q_proj.lora_a.weight`). PEFT's name the modules of
transformers' model (`base_model.model.....q_proj.lora_A.weight`). Both are read into the same `WeightChange`s
of the original's tensors, so that either works on a base in either layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from csm_repl.errors import CheckpointError
from csm_repl.files.adapters import COPY_AGAIN, AdapterFiles
from csm_repl.files.checkpoint import CODEC_PREFIX, Checkpoint
from csm_repl.files.config import ModelConfig
from csm_repl.files.layouts import TRANSFORMERS, Part
from csm_repl.model.weights.published import half_to_pairs, named_parts, pairs_to_half
from csm_repl.model.weights.tensors import TensorSource, get_tensor, open_files

__all__ = [
    "DOWN",
    "UP",
    "AdaptedSource",
    "Adapter",
    "WeightChange",
    "apply_adapter",
    "low_rank_changes",
    "read_adapter",
]

DOWN, UP = ".lora_a.weight", ".lora_b.weight"
"""How names of low-rank matrices end in csm-repl's own adapters."""


@dataclass(frozen=True)
class WeightChange:
    """What becomes of one tensor W [out, in]: `whole` replaces it, then scale * (up @ down) is added.

    With a magnitude [out], which DoRA trains, each row of the sum is then given that length.
    """

    whole: torch.Tensor | None = None
    down: torch.Tensor | None = None
    """[rank, in]"""
    up: torch.Tensor | None = None
    """[out, rank]"""
    scale: float = 1.0
    magnitude: torch.Tensor | None = None

    def applied(self, weight: torch.Tensor) -> torch.Tensor:
        """The changed tensor, float32."""
        out = (weight if self.whole is None else self.whole).float()
        if self.down is not None and self.up is not None:
            out = out + self.scale * (self.up.float() @ self.down.float())
        if self.magnitude is not None:
            out = out * (self.magnitude.float() / out.norm(dim=1))[:, None]
        return out

    def tensors(self) -> Iterator[torch.Tensor]:
        yield from (each for each in (self.whole, self.down, self.up, self.magnitude) if each is not None)

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether it is a change of a tensor of this shape."""
        if self.whole is not None and self.whole.shape != shape:
            return False
        if self.down is None and self.up is None:
            return self.magnitude is None
        if self.down is None or self.up is None or len(shape) != 2:
            return False
        return (
            self.down.ndim == self.up.ndim == 2
            and (self.up.shape[0], self.down.shape[1]) == shape
            and self.up.shape[1] == self.down.shape[0]
            and (self.magnitude is None or self.magnitude.shape == shape[:1])
        )

    def reordered(self, n_heads: int, *, to_pairs: bool) -> WeightChange:
        """The same change of a projection whose heads' rows are in the other order (see `published`)."""
        turn = half_to_pairs if to_pairs else pairs_to_half
        return replace(
            self,
            whole=None if self.whole is None else turn(self.whole, n_heads),
            up=None if self.up is None else turn(self.up, n_heads),
            magnitude=None if self.magnitude is None else turn(self.magnitude[:, None], n_heads)[:, 0],
        )


@dataclass(frozen=True)
class Adapter:
    """An adapter, as it was read."""

    files: AdapterFiles
    changes: Mapping[str, WeightChange]
    """The original's name of a tensor -> its change."""


def read_adapter(files: AdapterFiles, config: ModelConfig) -> Adapter:
    """Reads an adapter for a model of these sizes.

    Raises:
        CheckpointError: a file is damaged, the adapter belongs to another model, or it does something that
            csm-repl has not.
    """
    parts = dict(named_parts(config, TRANSFORMERS))
    with open_files((files.weights,), remedy=COPY_AGAIN) as source:
        changes = (_peft_changes if files.is_peft else _own_changes)(files, source, config)
    if not changes:
        raise CheckpointError(f"{files.weights} holds no weights.", COPY_AGAIN)
    for name, change in changes.items():
        if name not in parts or not change.fits(parts[name].shape):
            raise misfit(files, name)
        if not all(tensor.isfinite().all() for tensor in change.tensors()):
            raise CheckpointError(
                f"The adapter in {files.folder} holds NaN or infinity for {name}.",
                "Train it again, or use an earlier checkpoint of the training.",
            )
    return Adapter(files, changes)


def misfit(files: AdapterFiles, name: str) -> CheckpointError:
    return CheckpointError(
        f"The adapter in {files.folder} does not fit this model: {name} has no counterpart of its size.",
        f"Use it with the model that it was trained on, {files.base_model or 'which it does not name'}.",
    )


def apply_adapter(state: Mapping[str, torch.Tensor], adapter: Adapter) -> dict[str, torch.Tensor]:
    """The tensors of a model, under the original's names, with an adapter added, each in the dtype it had."""
    out = dict(state)
    for name, change in adapter.changes.items():
        out[name] = change.applied(state[name]).to(state[name].dtype)
    return out


class AdaptedSource:
    """Published tensors with an adapter added.

    Args:
        source: of the base model.
        adapter: read for a model of `checkpoint`'s sizes.
        checkpoint: the base model.
        names: under which `source` has each part.
    """

    def __init__(
        self, source: TensorSource, adapter: Adapter, checkpoint: Checkpoint, names: Mapping[Part, str]
    ) -> None:
        self._source = source
        self._changes = {}
        for name, part in named_parts(checkpoint.config, checkpoint.layout):
            if name in adapter.changes:
                change = adapter.changes[name]
                if part.half_rotated_heads:
                    change = change.reordered(part.half_rotated_heads, to_pairs=False)
                self._changes[names[part]] = change

    def names(self) -> Iterator[str]:
        yield from self._source.names()

    def shape(self, name: str) -> tuple[int, ...] | None:
        return self._source.shape(name)

    def get(self, name: str) -> torch.Tensor:
        tensor = self._source.get(name)
        return self._changes[name].applied(tensor) if name in self._changes else tensor


# --- csm-repl's own -----------------------------------------------------------------------------------


def low_rank_changes(tensors: Mapping[str, torch.Tensor], scale: float) -> dict[str, WeightChange]:
    """Changes of tensors from what csm-repl's own adapters hold."""
    fields: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        kind = next((end for end in (DOWN, UP) if name.endswith(end)), None)
        target = name if kind is None else f"{name.removesuffix(kind)}.weight"
        fields.setdefault(target, {})[{DOWN: "down", UP: "up", None: "whole"}[kind]] = tensor
    return {target: _change(found, scale) for target, found in fields.items()}


def _change(fields: Mapping[str, torch.Tensor], scale: float) -> WeightChange:
    whole, down, up, magnitude = map(fields.get, ("whole", "down", "up", "magnitude"))
    return WeightChange(whole, down, up, scale, magnitude)


def _own_changes(files: AdapterFiles, source: TensorSource, config: ModelConfig) -> dict[str, WeightChange]:
    about = files.config
    rank, alpha = _number(files, about, "rank"), _number(files, about, "alpha")
    return low_rank_changes({name: get_tensor(source, name).clone() for name in source.names()}, alpha / rank)


# --- PEFT's -------------------------------------------------------------------------------------------

_PEFT_NAME = re.compile(
    r"(.+)\.(lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)(?:\.default)?(?:\.weight)?"
)
_WHOLE_NAME = re.compile(r"(.+?)(?:\.modules_to_save)?(?:\.default)?(?:\.base_layer)?(\.weight|\.bias)?")
_FIELDS = {"lora_A": "down", "lora_B": "up", "lora_magnitude_vector": "magnitude"}
_KEYS = {
    # Read below, or seen in the tensors.
    "peft_type", "base_model_name_or_path", "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora",
    "use_dora", "modules_to_save", "init_lora_weights", "bias",
    # What it is called, how it was trained and where: nothing to do with what it adds. For linear layers PEFT
    # itself switches fan_in_fan_out off.
    "task_type", "auto_mapping", "revision", "inference_mode", "peft_version", "target_modules",
    "exclude_modules", "lora_dropout", "fan_in_fan_out", "layers_to_transform", "layers_pattern",
    "megatron_core", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "runtime_config",
    "ensure_weight_tying", "lora_bias",
}  # fmt: skip
_HARMLESS_STARTS = {True, None, "gaussian", "eva", "orthogonal"}
"""Values of init_lora_weights that leave the base model's weights alone."""
_MERGE_WITH_PEFT = (
    "Merge it with PEFT (model.merge_and_unload(), then model.save_pretrained(DIR)) and use that folder."
)


def _peft_changes(files: AdapterFiles, source: TensorSource, config: ModelConfig) -> dict[str, WeightChange]:
    _check_config(files)
    modules = _modules(config)
    fields: dict[str, dict[str, torch.Tensor]] = {}
    for name in source.names():
        stem, field, tensor = _peft_tensor(name, source)
        fields.setdefault(stem, {})[field] = tensor
    changes: dict[str, WeightChange] = {}
    for stem, found in fields.items():
        change = _peft_change(files, stem, found)
        if stem.startswith(CODEC_PREFIX):
            _check_codec(files, stem, change)
            continue
        if stem not in modules:
            raise misfit(files, stem)
        name, part = modules[stem]
        if name == "audio_embeddings.weight" and config.tied_audio_embeddings:
            raise CheckpointError(
                f"The adapter in {files.folder} changes {stem} for backbone or depth decoder alone, and they "
                "share it in this model.",
                _MERGE_WITH_PEFT,
            )
        if name == "text_embeddings.weight" and change.magnitude is not None:
            raise CheckpointError(
                f"The adapter in {files.folder} uses DoRA for {stem}, a table, which csm-repl does not know.",
                _MERGE_WITH_PEFT,
            )
        if not change.fits(part.shape):
            raise misfit(files, stem)
        heads = part.half_rotated_heads
        changes[name] = change.reordered(heads, to_pairs=True) if heads else change
    return changes


def _modules(config: ModelConfig) -> dict[str, tuple[str, Part]]:
    """Module of transformers or of the original -> its tensor: the original's name, and what it is there."""
    found: dict[str, tuple[str, Part]] = {}
    for original, part in named_parts(config, TRANSFORMERS):
        for name in part.names:
            found[name.removesuffix(".weight")] = (original, part)
        found[original.removesuffix(".weight")] = (original, replace(part, half_rotated_heads=0))
    return found


def _peft_tensor(name: str, source: TensorSource) -> tuple[str, str, torch.Tensor]:
    """Module, field of `WeightChange` and tensor; the field of a bias is `bias`."""
    tensor = get_tensor(source, name).clone()
    name = re.sub(r"^(base_model\.model\.)?(module\.)*", "", name)
    match = _PEFT_NAME.fullmatch(name)
    if match is not None:
        stem, kind = match.groups()
        if kind.startswith("lora_embedding"):
            # Of a table W [rows, dim], whose sum has B @ A transposed: the other one comes first.
            return stem, "up" if kind.endswith("A") else "down", tensor.T
        return stem, _FIELDS[kind], tensor
    match = _WHOLE_NAME.fullmatch(name)
    assert match is not None
    stem = match[1].removesuffix(".lora_B")
    return stem, "bias" if match[2] == ".bias" else "whole", tensor


def _peft_change(files: AdapterFiles, stem: str, found: dict[str, torch.Tensor]) -> WeightChange:
    bias = found.pop("bias", None)
    if bias is not None and bool(bias.any()):
        raise CheckpointError(
            f"The adapter in {files.folder} adds a bias to {stem}, and CSM has none.",
            "Train it with bias='none' and lora_bias=False.",
        )
    if "down" not in found:
        return _change(found, 1.0)
    config = files.config
    rank = _number(files, config, "r", _pattern(config, "rank_pattern", stem))
    alpha = _number(files, config, "lora_alpha", _pattern(config, "alpha_pattern", stem))
    n_rows = found["down"].shape[0]
    if rank != n_rows:
        raise CheckpointError(
            f"The adapter in {files.folder} is inconsistent: {stem} has rank {n_rows}, and its "
            f"config says {rank:g}.",
            COPY_AGAIN,
        )
    return _change(found, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _pattern(config: Mapping[str, Any], key: str, stem: str) -> Any:
    """The value for a module, as PEFT looks it up: the first expression that the end of its name matches."""
    patterns = config.get(key)
    for pattern, value in patterns.items() if isinstance(patterns, Mapping) else ():
        try:
            if re.fullmatch(rf"(.*\.)?({pattern})", stem):
                return value
        except re.error:
            if stem == pattern or stem.endswith(f".{pattern}"):
                return value
    return None


def _check_config(files: AdapterFiles) -> None:
    """CheckpointError for what would change the result in a way that is not known here."""
    config = files.config
    kind = config.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(
            f"The adapter in {files.folder} is of PEFT's type {kind}, and csm-repl has LORA only.",
            _MERGE_WITH_PEFT,
        )
    start = config.get("init_lora_weights")
    if not isinstance(start, bool | str | None) or (start or None) not in _HARMLESS_STARTS:
        raise CheckpointError(
            f"The adapter in {files.folder} has init_lora_weights={start!r}, which changes the base as well.",
            _MERGE_WITH_PEFT,
        )
    for key, value in config.items():
        if value and key not in _KEYS:
            raise CheckpointError(
                f"The adapter in {files.folder} uses {key}, which csm-repl does not know.", _MERGE_WITH_PEFT
            )


def _check_codec(files: AdapterFiles, stem: str, change: WeightChange) -> None:
    """Target names such as q_proj are the codec's too, but its adapters stay at zero: nothing trains it."""
    idle = change.whole is None and (
        (change.up is not None and not change.up.any()) or (change.down is not None and not change.down.any())
    )
    if not idle:
        raise CheckpointError(
            f"The adapter in {files.folder} changes the codec ({stem}), which csm-repl does not do.",
            _MERGE_WITH_PEFT,
        )


def _number(files: AdapterFiles, config: Mapping[str, Any], key: str, value: Any = None) -> float:
    value = config.get(key, 8 if files.is_peft else None) if value is None else value
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or (value <= 0 and key in {"r", "rank"}):
        raise CheckpointError(
            f"The adapter in {files.folder} has {key} {value!r}.",
            COPY_AGAIN,
        )
    return float(value)
