"""The files of a published checkpoint, and what its config says; nothing is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csm_repl.errors import CheckpointError
from csm_repl.files.config import ModelConfig, is_original, parse_config
from csm_repl.files.json_files import DOWNLOAD_AGAIN, read_config
from csm_repl.files.layouts import ORIGINAL, TRANSFORMERS, recipes

__all__ = ["CODEC_PREFIX", "Checkpoint", "find_checkpoint", "has_codec", "shard_names", "weight_names"]


CODEC_PREFIX = "codec_model."
"""Before the names of a codec inside a model, in transformers' layout."""


FIRST_CONFIG: Mapping[str, Any] = {
    # `ModelArgs` in the original's first generator.py.
    "backbone_flavor": "llama-1B",
    "decoder_flavor": "llama-100M",
    "text_vocab_size": 128_256,
    "audio_vocab_size": 2051,
    "audio_num_codebooks": 32,
}


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
    raise CheckpointError(f"The model has a config.json but no weights ({wanted}).", DOWNLOAD_AGAIN)


def find_checkpoint(folder: Path) -> Checkpoint:
    """Looks at a folder's config and names its weight files; loads nothing.

    Raises:
        CheckpointError: no config, not a CSM, no weights, or shards missing.
    """
    raw = _config_of(folder)
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
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}.", DOWNLOAD_AGAIN)
    weights = tuple(folder / name for name in names)
    for path in weights:
        if not path.is_file():  # a FIFO would be waited for
            raise CheckpointError(f"{path} is no regular file.", DOWNLOAD_AGAIN)
    return Checkpoint(folder, layout, config, weights)


def _config_of(folder: Path) -> Mapping[str, Any]:
    """Of a folder; a `ckpt.pt` alone is CSM-1B as it was in its first weeks, before it had a config.json."""
    path = folder / "config.json"
    if not path.exists() and (folder / "ckpt.pt").is_file():
        return FIRST_CONFIG
    return read_config(path)


def _has_transformers_names(path: Path) -> bool:
    """Whether a file that the config gives to the original layout holds transformers' tensors.

    `save_pretrained` keeps unknown keys of the config, so a fine-tune of the hub's model has the keys of
    both layouts and calls its weights `model.safetensors`.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as handle:
            return "backbone_model.norm.weight" in handle.keys()  # noqa: SIM118 - a handle is no mapping
    except (OSError, SafetensorError):
        return False  # said when it is loaded


def has_codec(checkpoint: Checkpoint) -> bool:
    """Whether the weights of a model in transformers' layout hold its codec too."""
    from safetensors import SafetensorError, safe_open

    if checkpoint.layout != TRANSFORMERS:
        return False
    for path in checkpoint.weights:
        try:
            with safe_open(path, framework="pt") as handle:
                if any(name.startswith(CODEC_PREFIX) for name in handle.keys()):  # noqa: SIM118 - no mapping
                    return True
        except (OSError, SafetensorError):
            pass  # said when it is loaded
    return False


def shard_names(index: Mapping[str, Any], *, source: str) -> tuple[str, ...]:
    """The files that a safetensors index names; CheckpointError if it names none or odd ones."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{source} has no weight_map.", DOWNLOAD_AGAIN)
    names = sorted({str(name) for name in weight_map.values()})
    if any(Path(name).name != name or name in {"", ".."} for name in names):
        raise CheckpointError(f"{source} names files outside its folder.", DOWNLOAD_AGAIN)
    return tuple(names)
