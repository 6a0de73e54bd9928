"""A Mimi in moshi's form as config and tensors in transformers' form (`MimiModel`), and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from csm_repl.errors import CheckpointError
from csm_repl.model.weights.published import half_to_pairs, pairs_to_half

__all__ = ["mimi_config", "mimi_state", "moshi_config", "moshi_state"]

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


def moshi_config(codec_config: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `mimi_config`: sizes in moshi's form.

    Args:
        codec_config: of a CSM in transformers' layout; what it leaves out is as `published`.
        published: Kyutai's sizes in moshi's form.

    Raises:
        CheckpointError: it is no Mimi, or a size is none.
    """
    if codec_config.get("model_type", "mimi") != "mimi":
        raise CheckpointError(
            f"The codec inside the model is {codec_config['model_type']!r}, not mimi.",
            "Put a mimi.safetensors into the model's folder.",
        )
    seanet, quantizer = dict(published["seanet"]), dict(published["quantizer"])
    transformer = dict(published["transformer"])
    # transformers 5 moved rope_theta.
    theirs = {**codec_config, **(codec_config.get("rope_parameters") or {})}
    theirs = {key: value for key, value in theirs.items() if value is not None}
    for sizes, names in (
        (seanet, _SEANET), (quantizer, _QUANTIZER_SIZES), (transformer, _TRANSFORMER)
    ):  # fmt: skip
        sizes.update({ours: theirs[name] for name, ours in names.items() if name in theirs})
    seanet["ratios"] = list(seanet["ratios"])
    transformer |= {"d_model": seanet["dimension"], "input_dimension": seanet["dimension"]}
    transformer["output_dimensions"] = [seanet["dimension"]]
    quantizer |= {"input_dimension": seanet["dimension"], "output_dimension": seanet["dimension"]}
    return {
        **published,
        "sample_rate": theirs.get("sampling_rate", published["sample_rate"]),
        "frame_rate": theirs.get("frame_rate", theirs.get("_frame_rate", published["frame_rate"])),
        "seanet": seanet,
        "quantizer": quantizer,
        "transformer": transformer,
    }


_SEANET = {
    "hidden_size": "dimension", "num_filters": "n_filters", "num_residual_layers": "n_residual_layers",
    "upsampling_ratios": "ratios", "kernel_size": "kernel_size", "last_kernel_size": "last_kernel_size",
    "residual_kernel_size": "residual_kernel_size", "dilation_growth_rate": "dilation_base",
    "compress": "compress", "pad_mode": "pad_mode",
}  # fmt: skip
_QUANTIZER_SIZES = {
    "codebook_size": "bins", "vector_quantization_hidden_dimension": "dimension", "num_quantizers": "n_q",
}  # fmt: skip
_TRANSFORMER = {
    "num_hidden_layers": "num_layers", "intermediate_size": "dim_feedforward",
    "num_attention_heads": "num_heads", "rope_theta": "max_period", "sliding_window": "context",
    "layer_scale_initial_scale": "layer_scale",
}  # fmt: skip


def mimi_state(
    state: Mapping[str, torch.Tensor], config: Mapping[str, Any], *, n_codebooks: int
) -> dict[str, torch.Tensor]:
    """Tensors in moshi's names -> tensors in transformers' names.

    Args:
        state: of a Mimi.
        config: its sizes in moshi's form.
        n_codebooks: how many codebooks are kept.

    Raises:
        CheckpointError: a name that Mimi does not have.
    """
    n_heads = int(config["transformer"]["num_heads"])
    found = {}
    for name, tensor in state.items():
        names = _names(name, n_codebooks)
        parts = tensor.chunk(len(names)) if len(names) > 1 else [tensor] * len(names)
        for (theirs, turned), part in zip(names, parts, strict=True):
            # moshi turns neighbouring pairs, transformers halves.
            found[theirs] = pairs_to_half(part, n_heads) if turned else part
    return found


def moshi_state(
    get: Callable[[str], torch.Tensor], wanted: Iterable[str], config: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The inverse of `mimi_state`.

    Args:
        get: gives a tensor by transformers' name.
        wanted: moshi's names.
        config: sizes in moshi's form.
    """
    n_heads, n_codebooks = int(config["transformer"]["num_heads"]), int(config["quantizer"]["n_q"])
    state = {}
    for name in wanted:
        parts = [
            half_to_pairs(get(theirs), n_heads) if turned else get(theirs)
            for theirs, turned in _names(name, n_codebooks)
        ]
        state[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return state


def _names(name: str, n_codebooks: int) -> list[tuple[str, bool]]:
    """Transformers' names for the parts of a tensor of moshi's, from the top, and whether each is turned.

    Empty for a codebook beyond the first `n_codebooks`.
    """
    part, _, rest = name.partition(".")
    if part in {"encoder", "decoder"}:
        inner = rest.removeprefix("model.").replace("convtr.convtr.", "conv.").replace("conv.conv.", "conv.")
        return [(f"{part}.layers.{inner}", False)]
    if part in {"encoder_transformer", "decoder_transformer"}:
        index, inner = _split(r"transformer\.layers\.(\d+)\.(.+)", rest, name)
        prefix = f"{part}.layers.{index}"
        if inner in _IN_PROJECTION:
            return [(f"{prefix}.self_attn.{kind}_proj.weight", kind != "v") for kind in "qkv"]
        if inner in _LAYER:
            return [(f"{prefix}.{_LAYER[inner]}", False)]
        raise _unknown(name)
    if part == "quantizer":
        which, _, inner = rest.partition(".")
        if which not in _QUANTIZER:
            raise _unknown(name)
        prefix = f"quantizer.{_QUANTIZER[which]}"
        if not inner.startswith("vq."):
            return [(f"{prefix}.{inner}", False)]
        index, kind = _split(r"vq\.layers\.(\d+)\._codebook\.(\w+)", inner, name)
        n_layers = 1 if which == "rvq_first" else n_codebooks - 1
        if kind not in _CODEBOOK:
            raise _unknown(name)
        return [(f"{prefix}.layers.{index}.codebook.{_CODEBOOK[kind]}", False)][: int(index) < n_layers]
    if part in {"downsample", "upsample"}:
        return [(f"{part}.conv.{rest.rpartition('.')[2]}", False)]
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
