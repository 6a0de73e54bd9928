"""From a folder with a published checkpoint to a `CSM` on a device.

Published tensors are memory-mapped and copied at most once: straight into the fused, cast parameter, or
not at all where a parameter is a published tensor as it stands. A parameter that is to be quantised is in
memory as floating point only while that is done. Knows nothing about the hub.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from csm_repl.errors import CheckpointError
from csm_repl.files import read_config
from csm_repl.model.config import ModelConfig, is_original, parse_config
from csm_repl.model.csm import CSM
from csm_repl.model.layouts import ORIGINAL, TRANSFORMERS, Part, Recipe, recipes
from csm_repl.model.quantize import choose_kernels, empty_csm, is_quantized, quantize_parameter

__all__ = [
    "Checkpoint",
    "TensorSource",
    "check_parts",
    "find_checkpoint",
    "get_tensor",
    "load_csm",
    "open_weights",
    "weight_names",
]

_REMEDY = "Download the model again, or point --model at a complete copy."


@dataclass(frozen=True)
class Checkpoint:
    """The files of a model and what its config says."""

    folder: Path
    layout: str
    config: ModelConfig
    weights: tuple[Path, ...]

    @property
    def n_parameters(self) -> int:
        """Of backbone, depth decoder, embeddings and heads, however they are stored."""
        return sum(math.prod(recipe.shape) for recipe in recipes(self.config, self.layout))


def weight_names(config: Mapping[str, Any], available: set[str]) -> tuple[str, tuple[str, ...], str | None]:
    """Layout, weight files and (for shards) the index to take from a folder or repository.

    The original's files win where both layouts lie side by side, as they do on the hub: they need no
    reordering. `transformers_weights` in the config names the second layout's file or index. For shards
    the weight files are in the index, so the tuple is empty.

    Raises:
        CheckpointError: there are no weights.
    """
    if is_original(config):
        for name in ("model.safetensors", "ckpt.pt"):
            if name in available:
                return ORIGINAL, (name,), None
    named = config.get("transformers_weights")
    candidates = [named] if isinstance(named, str) else []
    candidates += ["model.safetensors", "model.safetensors.index.json"]
    if "depth_decoder_config" in config:
        for name in candidates:
            if name in available:
                is_index = name.endswith(".index.json")
                return TRANSFORMERS, () if is_index else (name,), name if is_index else None
    wanted = "model.safetensors or ckpt.pt" if is_original(config) else " or ".join(candidates)
    raise CheckpointError(f"The model has a config.json but no weights ({wanted}).", _REMEDY)


def find_checkpoint(folder: Path) -> Checkpoint:
    """Looks at a folder's config and names its weight files; loads nothing.

    Raises:
        CheckpointError: no config, not a CSM, no weights, or shards missing.
    """
    raw = read_config(folder / "config.json")
    source = str(folder / "config.json")
    config = parse_config(raw, source=source)
    available = {path.name for path in folder.iterdir()}
    layout, names, index = weight_names(raw, available)
    both = is_original(raw) and "depth_decoder_config" in raw
    if both and layout == ORIGINAL and _has_transformers_names(folder / names[0]):
        layout = TRANSFORMERS
    if layout == TRANSFORMERS:
        config = parse_config(raw, source=source, transformers=True)
    if index is not None:
        names = shard_names(read_config(folder / index), source=str(folder / index))
    missing = [name for name in names if name not in available]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}.", _REMEDY)
    return Checkpoint(folder, layout, config, tuple(folder / name for name in names))


def _has_transformers_names(path: Path) -> bool:
    """Whether a file that the config gives to the original layout holds transformers' tensors.

    `save_pretrained` keeps unknown keys of the config, so a fine-tune of the hub's model has the keys of
    both layouts and calls its weights `model.safetensors`.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as handle:
            return "backbone_model.norm.weight" in handle.keys()  # noqa: SIM118 - a handle is no mapping
    except (OSError, SafetensorError):
        return False  # said when it is loaded


def shard_names(index: Mapping[str, Any], *, source: str) -> tuple[str, ...]:
    """The files that a safetensors index names; CheckpointError if it names none or odd ones."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{source} has no weight_map.", _REMEDY)
    names = sorted({str(name) for name in weight_map.values()})
    if any(Path(name).name != name or name in {"", ".."} for name in names):
        raise CheckpointError(f"{source} names files outside its folder.", _REMEDY)
    return tuple(names)


class TensorSource(Protocol):
    """Published tensors by name; `get` may be a view of mapped memory."""

    def shape(self, name: str) -> tuple[int, ...] | None: ...

    def get(self, name: str) -> torch.Tensor: ...


class _SafetensorsSource:
    def __init__(self, files: tuple[Path, ...], stack: contextlib.ExitStack) -> None:
        from safetensors import SafetensorError, safe_open

        self._where: dict[str, Any] = {}
        for path in files:
            try:
                handle = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{path} is truncated or corrupt: {error}.", _REMEDY) from error
            for name in handle.keys():  # noqa: SIM118 - a handle is no mapping
                self._where[name] = handle

    def shape(self, name: str) -> tuple[int, ...] | None:
        handle = self._where.get(name)
        return None if handle is None else tuple(handle.get_slice(name).get_shape())

    def get(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._where[name].get_tensor(name)
        return tensor


class _PickleSource:
    """`ckpt.pt`, read with `weights_only=True`: tensors and nothing else come out of it."""

    def __init__(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises half a dozen kinds here, with pages of advice
            raise CheckpointError(
                f"{path} is truncated, corrupt or holds more than tensors.", _REMEDY
            ) from error
        if isinstance(state, dict) and isinstance(state.get("model"), dict):
            state = state["model"]
        if not isinstance(state, dict):
            raise CheckpointError(f"{path} holds no dictionary of tensors.", _REMEDY)
        self._tensors = {str(name): value for name, value in state.items() if torch.is_tensor(value)}

    def shape(self, name: str) -> tuple[int, ...] | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else tuple(tensor.shape)

    def get(self, name: str) -> torch.Tensor:
        return self._tensors[name]


def load_csm(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: str = "none",
    cache_dir: Path | None = None,
    native: bool = True,
) -> CSM:
    """Loads and prepares a model.

    Args:
        checkpoint: what to load.
        device: where its parameters go.
        dtype: what they are cast to, and what the residual stream and the caches are in.
        quantize: none, int8 or int4 (see `quantize`), on a CUDA device also fp8.
        cache_dir: where converted weights are kept for the next start; None: not at all.
        native: whether to use the native kernels, where the device and dtype have any.

    Raises:
        CheckpointError: a file is corrupt, a tensor is missing or has another shape than the config says.
        DeviceError: the kernels for quantised weights cannot be compiled for the device.
    """
    from csm_repl.model.weight_cache import WeightCache

    kernels = choose_kernels(quantize, device, dtype, native=native)
    model = empty_csm(checkpoint.config, dtype=dtype, quantize=quantize, kernels=kernels)
    cache = None
    if cache_dir is not None:
        expected = model.state_dict()
        cache = WeightCache(cache_dir, checkpoint, expected, dtype=dtype, quantize=quantize, kernels=kernels)
    state = cache.load(device) if cache is not None else None
    if state is None:
        state = _convert(checkpoint, device=device, dtype=dtype, quantize=quantize, kernels=kernels)
        if cache is not None:
            cache.store(state)
    model.load_state_dict(state, strict=True, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.prepare(native=kernels == "native")


@torch.inference_mode(False)
@torch.no_grad()
def _convert(
    checkpoint: Checkpoint, *, device: torch.device, dtype: torch.dtype, quantize: str, kernels: str
) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    with open_weights(checkpoint) as source:
        plan = recipes(checkpoint.config, checkpoint.layout)
        names = dict(check_parts(plan, source, checkpoint))
        for recipe in plan:
            if is_quantized(recipe.target, quantize):
                # From what was published, not from what `dtype` would make of it; without a name, so that
                # it is gone before the next one is made.
                state |= quantize_parameter(
                    recipe.target,
                    _build(recipe, names, source, device, torch.float32),
                    quantize,
                    kernels,
                )
            else:
                state[recipe.target] = _build(recipe, names, source, device, dtype)
    return state


@contextlib.contextmanager
def open_weights(checkpoint: Checkpoint) -> Iterator[TensorSource]:
    """The published tensors of a checkpoint, mapped while the block runs."""
    with contextlib.ExitStack() as stack:
        if checkpoint.weights[0].suffix == ".pt":
            yield _PickleSource(checkpoint.weights[0])
        else:
            yield _SafetensorsSource(checkpoint.weights, stack)


def check_parts(
    plan: tuple[Recipe, ...], source: TensorSource, checkpoint: Checkpoint
) -> Iterator[tuple[Part, str]]:
    """Every part of `plan` with the name it is stored under; CheckpointError where one is missing or odd."""
    missing: list[str] = []
    wrong: list[str] = []
    for part in (part for recipe in plan for part in recipe.parts):
        name = next((name for name in part.names if source.shape(name) is not None), None)
        if name is None:
            missing.append(part.names[0])
        elif source.shape(name) != part.shape:
            wrong.append(f"{name} is {_size(source.shape(name))}, the config asks for {_size(part.shape)}")
        else:
            yield part, name
    if missing:
        raise CheckpointError(
            f"{checkpoint.folder} lacks {_some(missing)} (read as the {checkpoint.layout} layout).", _REMEDY
        )
    if wrong:
        raise CheckpointError(
            f"The weights in {checkpoint.folder} do not fit its config.json: {_some(wrong)}.",
            "Use the config.json that was published with these weights.",
        )


def _size(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ()))


def _some(items: list[str], limit: int = 3) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def _build(
    recipe: Recipe, names: dict[Part, str], source: TensorSource, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    if len(recipe.parts) == 1 and not recipe.parts[0].half_rotated_heads:
        return get_tensor(source, names[recipe.parts[0]]).to(device=device, dtype=dtype)
    out = torch.empty(recipe.shape, device=device, dtype=dtype)
    row = 0
    for part in recipe.parts:
        tensor = get_tensor(source, names[part])
        end = row + part.shape[0]
        if part.half_rotated_heads:
            # [H, 2, Dh / 2, D] -> [H, Dh / 2, 2, D]: the two halves of a head become neighbours.
            halves = tensor.unflatten(0, (part.half_rotated_heads, 2, -1))
            out[row:end].unflatten(0, (part.half_rotated_heads, -1, 2)).copy_(halves.transpose(1, 2))
        else:
            out[row:end].copy_(tensor)
        row = end
    return out


def get_tensor(source: TensorSource, name: str) -> torch.Tensor:
    """A published tensor; CheckpointError where it holds no floating point numbers."""
    tensor = source.get(name)
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{name} holds {tensor.dtype}, not floating point numbers.",
            "Quantised checkpoints of other programs cannot be read; use the original weights.",
        )
    return tensor
