"""Rewrites a checkpoint in Sesame's layout in transformers' layout.

Written from transformers' own conversion script, not from `csm_repl.files.layouts`, so that the two can
disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

BACKBONE_SCALING = {
    "factor": 32.0, "high_freq_factor": 0.5, "low_freq_factor": 0.125,
    "original_max_position_embeddings": 1024, "rope_type": "llama3",
}  # fmt: skip
DEPTH_SCALING = {
    "factor": 32.0, "high_freq_factor": 0.0078125, "low_freq_factor": 0.001953125,
    "original_max_position_embeddings": 16, "rope_type": "llama3",
}  # fmt: skip

_LAYER = {
    "sa_norm.scale": "input_layernorm.weight",
    "mlp_norm.scale": "post_attention_layernorm.weight",
    "attn.q_proj.weight": "self_attn.q_proj.weight",
    "attn.k_proj.weight": "self_attn.k_proj.weight",
    "attn.v_proj.weight": "self_attn.v_proj.weight",
    "attn.output_proj.weight": "self_attn.o_proj.weight",
    "mlp.w1.weight": "mlp.gate_proj.weight",
    "mlp.w2.weight": "mlp.down_proj.weight",
    "mlp.w3.weight": "mlp.up_proj.weight",
}
_WHOLE = {
    "text_embeddings.weight": "embed_text_tokens.weight",
    "audio_embeddings.weight": "backbone_model.embed_tokens.embed_audio_tokens.weight",
    "projection.weight": "depth_decoder.model.inputs_embeds_projector.weight",
    "codebook0_head.weight": "lm_head.weight",
    "audio_head": "depth_decoder.codebooks_head.weight",
    "backbone.norm.scale": "backbone_model.norm.weight",
    "decoder.norm.scale": "depth_decoder.model.norm.weight",
}


def half_rotation(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Reorders the rows of a q or k projection from neighbouring pairs to halves."""
    n_rows, dim = weight.shape
    pairs = weight.view(n_heads, n_rows // n_heads // 2, 2, dim)
    return pairs.transpose(1, 2).reshape(n_rows, dim).contiguous()


def transformers_state(
    state: Mapping[str, torch.Tensor], config: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Tensors in Sesame's names -> the same model in transformers' names."""
    out: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        if name in _WHOLE:
            out[_WHOLE[name]] = tensor
            continue
        part, _, index, inner = name.split(".", 3)
        flavor = config[f"{part}_flavor"]
        if "q_proj" in inner:
            tensor = half_rotation(tensor, flavor["num_heads"])
        elif "k_proj" in inner:
            tensor = half_rotation(tensor, flavor["num_kv_heads"])
        prefix = "backbone_model" if part == "backbone" else "depth_decoder.model"
        out[f"{prefix}.layers.{index}.{_LAYER[inner]}"] = tensor
    return out


def transformers_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Sesame's config.json -> transformers', with every rope value as on the hub."""

    def sizes(flavor: Mapping[str, Any], scaling: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "hidden_size": flavor["embed_dim"],
            "num_hidden_layers": flavor["num_layers"],
            "num_attention_heads": flavor["num_heads"],
            "num_key_value_heads": flavor["num_kv_heads"],
            "intermediate_size": flavor["intermediate_dim"],
            "head_dim": flavor["embed_dim"] // flavor["num_heads"],
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000,
            "rope_scaling": dict(scaling),
        }

    backbone, decoder = config["backbone_flavor"], config["decoder_flavor"]
    return {
        "architectures": ["CsmForConditionalGeneration"],
        "model_type": "csm",
        **sizes(backbone, BACKBONE_SCALING),
        "max_position_embeddings": backbone["max_seq_len"],
        "num_codebooks": config["audio_num_codebooks"],
        "vocab_size": config["audio_vocab_size"],
        "text_vocab_size": config["text_vocab_size"],
        "tie_codebooks_embeddings": True,
        "depth_decoder_config": {
            **sizes(decoder, DEPTH_SCALING),
            "max_position_embeddings": config["audio_num_codebooks"] + 1,
            "backbone_hidden_size": backbone["embed_dim"],
            "num_codebooks": config["audio_num_codebooks"],
            "vocab_size": config["audio_vocab_size"],
        },
    }


def read_original(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Config and tensors of a folder in Sesame's layout."""
    config = json.loads((folder / "config.json").read_text())
    return config, load_file(folder / "model.safetensors")


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(dict(config)))


def write_shards(
    folder: Path, state: Mapping[str, torch.Tensor], *, stem: str, n_shards: int = 3
) -> tuple[str, list[str]]:
    """Spreads tensors over files and writes the index; returns the index's name and the shards'."""
    names = [f"{stem}-{i + 1:05}-of-{n_shards:05}.safetensors" for i in range(n_shards)]
    weight_map = {name: names[i % n_shards] for i, name in enumerate(sorted(state))}
    for shard in names:
        save_file({k: v for k, v in state.items() if weight_map[k] == shard}, folder / shard)
    index = f"{stem}.safetensors.index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index, names


HUB_ORIGINAL = {
    "audio_num_codebooks": 32,
    "audio_vocab_size": 2051,
    "backbone_flavor": "llama-1B",
    "decoder_flavor": "llama-100M",
    "text_vocab_size": 128256,
}
HUB_TRANSFORMERS: dict[str, Any] = {
    "model_type": "csm",
    "attention_bias": False,
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 2048,
    "num_attention_heads": 32,
    "num_codebooks": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": BACKBONE_SCALING,
    "rope_theta": 500000,
    "text_vocab_size": 128256,
    "tie_codebooks_embeddings": True,
    "vocab_size": 2051,
    "depth_decoder_config": {
        "backbone_hidden_size": 2048,
        "head_dim": 128,
        "hidden_size": 1024,
        "intermediate_size": 8192,
        "max_position_embeddings": 33,
        "num_attention_heads": 8,
        "num_codebooks": 32,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05,
        "rope_scaling": DEPTH_SCALING,
        "rope_theta": 500000,
        "vocab_size": 2051,
    },
}
