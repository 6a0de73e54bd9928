"""Model folders in the original layout, as `csm-repl --model DIR` loads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from csm_repl.errors import UsageError
from csm_repl.files.config import FLAVORS, ModelConfig, RopeConfig, TransformerConfig
from csm_repl.train.export.companions import copy_files
from csm_repl.train.files import write_json, write_weights

__all__ = ["original_config", "write_original"]


def write_original(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    config: ModelConfig,
    *,
    files: Mapping[str, Path] | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> Path:
    """Writes config.json, model.safetensors and what belongs to them; returns the folder.

    The weights come last and in one piece: a folder that had a model has one at every moment.

    Args:
        folder: made if need be.
        state: all tensors, under the original layout's names.
        config: their sizes.
        files: name -> file, copied as they are (see `companions`).
        dtype: what the weights are stored in.

    Raises:
        UsageError: the original layout cannot describe this model.
        TrainingError: something could not be written.
    """
    described = original_config(config)
    copy_files(folder, files or {})
    write_json(folder / "config.json", described)
    write_weights(folder / "model.safetensors", state, dtype=dtype)
    return folder


def original_config(config: ModelConfig) -> dict[str, Any]:
    """The `config.json` of a model in the original layout; UsageError where it has no words for it."""
    if not config.tied_audio_embeddings:
        raise UsageError(
            "This model's depth decoder has its own audio embeddings, which the original layout cannot hold.",
            "Write it in transformers' layout.",
        )
    return {
        "backbone_flavor": _flavor(config.backbone),
        "decoder_flavor": _flavor(config.decoder),
        "text_vocab_size": config.text_vocab_size,
        "audio_vocab_size": config.audio_vocab_size,
        "audio_num_codebooks": config.n_codebooks,
    }


def _flavor(size: TransformerConfig) -> str | dict[str, Any]:
    """A published flavor's name, or the arguments of torchtune's `llama3_2`."""
    rope, llama = size.rope, RopeConfig()
    # Only these two wavelengths matter; transformers writes the same ones with other numbers.
    same_waves = (
        rope.original_context / rope.low_freq_factor == llama.original_context / llama.low_freq_factor
        and rope.original_context / rope.high_freq_factor == llama.original_context / llama.high_freq_factor
    )
    if (not same_waves and rope.factor != 1) or size.head_dim * size.n_heads != size.dim:
        raise UsageError(
            "This model's rotary embedding or heads cannot be described in the original layout.",
            "Write it in transformers' layout.",
        )
    for name, known in FLAVORS.items():
        if _shape(known) == _shape(size):
            return name
    return {
        "num_layers": size.n_layers,
        "num_heads": size.n_heads,
        "num_kv_heads": size.n_kv_heads,
        "embed_dim": size.dim,
        "max_seq_len": size.max_positions,
        "intermediate_dim": size.intermediate_dim,
        "norm_eps": size.norm_eps,
        "rope_base": _whole(rope.base),
        "scale_factor": _whole(rope.factor),
    }


def _shape(size: TransformerConfig) -> tuple[float, ...]:
    numbers = (size.n_layers, size.n_heads, size.n_kv_heads, size.dim, size.intermediate_dim)
    return (*numbers, size.max_positions, size.norm_eps, size.rope.base, size.rope.factor)


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value
