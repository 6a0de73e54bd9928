"""A Mimi in moshi's form -> config and tensors in transformers' form (`MimiModel`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from csm_repl.errors import CheckpointError
from csm_repl.model.weights.published import pairs_to_half

__all__ = ["mimi_config", "mimi_state"]

_LAYER = {
    "self_attn.out_projs.0.weight": "self_attn.o_proj.weight",
    "self_attn.out_proj.weight": "self_attn.o_proj.weight",
    "linear1.weight": "mlp.fc1.weight",
    "linear2.weight": "mlp.fc2.weight",
    "norm1.weight": "input_layernorm.weight",
    "norm1.bias": "input_layernorm.bias",
    "norm2.weight": "post_attention_layernorm.weight",
    "norm2.bias": "post_attention_layernorm.bias",
    "layer_scale_1.scale": "self_attn_layer_scale.scale",
    "layer_scale_2.scale": "mlp_layer_scale.scale",
}
_IN_PROJECTION = {"self_attn.in_projs.0.weight", "self_attn.in_proj_weight", "self_attn.in_proj.weight"}
"""Kyutai's file and moshi's module call it differently."""
_CODEBOOK = {"_initialized": "initialized", "cluster_usage": "cluster_usage", "embedding_sum": "embed_sum"}
_QUANTIZER = {
    "rvq_first": "semantic_residual_vector_quantizer",
    "rvq_rest": "acoustic_residual_vector_quantizer",
}


def mimi_config(config: Mapping[str, Any], *, n_codebooks: int) -> dict[str, Any]:
    """The `codec_config` of a Mimi.

    Args:
        config: sizes in moshi's form (`seanet`, `quantizer`, `transformer`, ...).
        n_codebooks: how many of its codebooks the language model speaks; the others are left out.

    Raises:
        CheckpointError: a size is missing.
    """
    try:
        seanet, quantizer, transformer = config["seanet"], config["quantizer"], config["transformer"]
        return {
            "model_type": "mimi",
            "sampling_rate": config["sample_rate"],
            "frame_rate": config["frame_rate"],
            "audio_channels": config["channels"],
            "hidden_size": seanet["dimension"],
            "num_filters": seanet["n_filters"],
            "num_residual_layers": seanet["n_residual_layers"],
            "upsampling_ratios": list(seanet["ratios"]),
            "kernel_size": seanet["kernel_size"],
            "last_kernel_size": seanet["last_kernel_size"],
            "residual_kernel_size": seanet["residual_kernel_size"],
            "dilation_growth_rate": seanet["dilation_base"],
            "use_causal_conv": seanet["causal"],
            "pad_mode": seanet["pad_mode"],
            "compress": seanet["compress"],
            "use_conv_shortcut": not seanet["true_skip"],
            "codebook_size": quantizer["bins"],
            "codebook_dim": quantizer["dimension"],
            "vector_quantization_hidden_dimension": quantizer["dimension"],
            "num_quantizers": n_codebooks,
            "num_semantic_quantizers": 1,
            "upsample_groups": seanet["dimension"],
            "num_hidden_layers": transformer["num_layers"],
            "intermediate_size": transformer["dim_feedforward"],
            "num_attention_heads": transformer["num_heads"],
            "num_key_value_heads": transformer["num_heads"],
            "head_dim": transformer["d_model"] // transformer["num_heads"],
            "rope_theta": float(transformer["max_period"]),
            "sliding_window": transformer["context"],
            "layer_scale_initial_scale": transformer["layer_scale"],
        }
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"The codec's config lacks {error}.", "Use the codec.json that belongs to the model."
        ) from error


def mimi_state(
    state: Mapping[str, torch.Tensor], config: Mapping[str, Any], *, n_codebooks: int
) -> dict[str, torch.Tensor]:
    """Tensors in moshi's names -> tensors in transformers' names.

    Args:
        state: of a Mimi.
        config: its sizes in moshi's form.
        n_codebooks: how many codebooks are kept.
    """
    n_heads = int(config["transformer"]["num_heads"])
    return {
        theirs: value
        for name, tensor in state.items()
        for theirs, value in _renamed(name, tensor, n_heads=n_heads, n_codebooks=n_codebooks)
    }


def _renamed(
    name: str, tensor: torch.Tensor, *, n_heads: int, n_codebooks: int
) -> Iterator[tuple[str, torch.Tensor]]:
    part, _, rest = name.partition(".")
    if part in {"encoder", "decoder"}:
        inner = rest.removeprefix("model.").replace("convtr.convtr.", "conv.").replace("conv.conv.", "conv.")
        yield f"{part}.layers.{inner}", tensor
    elif part in {"encoder_transformer", "decoder_transformer"}:
        index, inner = _split(r"transformer\.layers\.(\d+)\.(.+)", rest, name)
        prefix = f"{part}.layers.{index}"
        if inner in _IN_PROJECTION:
            query, key, value = tensor.chunk(3)
            # moshi turns neighbouring pairs, transformers halves.
            yield f"{prefix}.self_attn.q_proj.weight", pairs_to_half(query, n_heads)
            yield f"{prefix}.self_attn.k_proj.weight", pairs_to_half(key, n_heads)
            yield f"{prefix}.self_attn.v_proj.weight", value
        elif inner in _LAYER:
            yield f"{prefix}.{_LAYER[inner]}", tensor
        else:
            raise _unknown(name)
    elif part == "quantizer":
        which, _, inner = rest.partition(".")
        if which not in _QUANTIZER:
            raise _unknown(name)
        prefix = f"quantizer.{_QUANTIZER[which]}"
        if not inner.startswith("vq."):
            yield f"{prefix}.{inner}", tensor
            return
        index, kind = _split(r"vq\.layers\.(\d+)\._codebook\.(\w+)", inner, name)
        n_layers = 1 if which == "rvq_first" else n_codebooks - 1
        if kind not in _CODEBOOK:
            raise _unknown(name)
        if int(index) < n_layers:
            yield f"{prefix}.layers.{index}.codebook.{_CODEBOOK[kind]}", tensor
    elif part in {"downsample", "upsample"}:
        yield f"{part}.conv.{rest.rpartition('.')[2]}", tensor
    else:
        raise _unknown(name)


def _split(pattern: str, text: str, name: str) -> tuple[str, str]:
    match = re.fullmatch(pattern, text)
    if match is None:
        raise _unknown(name)
    return match[1], match[2]


def _unknown(name: str) -> CheckpointError:
    return CheckpointError(
        f"The codec's weights hold {name}, which Mimi does not have.", "Use Mimi in moshi's names."
    )
