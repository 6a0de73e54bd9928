"""Sizes of a CSM, read from either published `config.json`.

The original names *flavors* (`llama-1B`, `llama-100M`) or gives the arguments of torchtune's `llama3_2`;
transformers' `CsmConfig` spells everything out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from csm_repl.errors import CheckpointError

__all__ = ["FLAVORS", "ModelConfig", "RopeConfig", "TransformerConfig", "is_original", "parse_config"]


@dataclass(frozen=True)
class RopeConfig:
    """Llama-3 rotary embedding. Defaults: Llama 3.2 (base 500000, scale factor 32)."""

    base: float = 500_000.0
    factor: float = 32.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_context: int = 8192


@dataclass(frozen=True)
class TransformerConfig:
    n_layers: int
    n_heads: int
    n_kv_heads: int
    dim: int
    intermediate_dim: int
    head_dim: int
    max_positions: int = 2048
    norm_eps: float = 1e-5
    rope: RopeConfig = field(default_factory=RopeConfig)

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads or self.head_dim % 2 or self.head_dim < 2:
            raise CheckpointError(
                f"The model's config is inconsistent: {self.n_heads} heads over {self.n_kv_heads} key/value "
                f"heads of {self.head_dim}.",
                "Use the config.json that belongs to the weights.",
            )


@dataclass(frozen=True)
class ModelConfig:
    backbone: TransformerConfig
    decoder: TransformerConfig
    """The depth decoder."""
    text_vocab_size: int
    audio_vocab_size: int
    n_codebooks: int
    tied_audio_embeddings: bool = True
    """Whether the depth decoder reads the backbone's table of audio embeddings."""
    temperature: float | None = None
    """Of sampling, where the model's author recommends one (`"sampling": {"temperature": ..., "top_k": ...}`,
    a key of ours in the original layout)."""
    top_k: int | None = None

    @property
    def max_positions(self) -> int:
        """Of the context; what the model's authors say that it was trained with."""
        return self.backbone.max_positions

    def with_positions(self, n_positions: int) -> ModelConfig:
        """The same model with a longer or shorter context: no weight depends on it."""
        return replace(self, backbone=replace(self.backbone, max_positions=n_positions))


def _flavor(
    n_layers: int, n_heads: int, n_kv_heads: int, dim: int, intermediate_dim: int
) -> TransformerConfig:
    return TransformerConfig(n_layers, n_heads, n_kv_heads, dim, intermediate_dim, dim // n_heads)


FLAVORS: Mapping[str, TransformerConfig] = {
    # Sizes as in Sesame's release of CSM-1B.
    "llama-1B": _flavor(16, 32, 8, 2048, 8192),
    "llama-100M": _flavor(4, 8, 2, 1024, 8192),
}


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether `config` is in the original layout (the hub's file has the keys of both)."""
    return "backbone_flavor" in config and "decoder_flavor" in config


def parse_config(config: Mapping[str, Any], *, source: str, transformers: bool = False) -> ModelConfig:
    """The sizes in a `config.json` of either layout.

    Args:
        config: the parsed JSON.
        source: what to call the file in an error.
        transformers: read transformers' keys even where the original's are there too.

    Raises:
        CheckpointError: neither layout, or a value missing, of the wrong kind or far out of range.
    """
    try:
        if is_original(config) and not transformers:
            return _parse_original(config)
        if "depth_decoder_config" in config:
            return _parse_transformers(config)
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise CheckpointError(
            f"{source} lacks a usable value: {_reason(error)}.",
            "Use the config.json that was published with the weights.",
        ) from error
    raise CheckpointError(
        f"{source} does not describe a CSM: it has neither backbone_flavor and decoder_flavor "
        "nor a depth_decoder_config.",
        "Point --model at a CSM in Sesame's or in transformers' layout.",
    )


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


# Far beyond every model there is, and small enough that nothing breaks before it is said.
_MOST = {
    "num_layers": 1024,
    "num_hidden_layers": 1024,
    "audio_num_codebooks": 1024,
    "num_codebooks": 1024,
    "top_k": 2**31 - 1,
}
_MOST_OTHERS = 2**24
_MAX_POSITIONS = 2**20


def _whole(value: Any, key: str, most: int) -> int:
    """A whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise ValueError(f"{key} is {value!r}, not a whole number")
    if not 1 <= value <= most:
        raise ValueError(f"{key} is {value!r}, not from 1 to {most}")
    return int(value)


def _real(value: Any, key: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{key} is {value!r}, not a number from {low:g} to {high:g}")
    return float(value)


def _count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config[key] if default is None else config.get(key, default)
    return _whole(value, key, _MOST.get(key, _MOST_OTHERS))


def _positions(config: Mapping[str, Any], key: str) -> int:
    return _whole(config.get(key, 2048), key, _MAX_POSITIONS)


def _rope(
    base: Any, factor: Any, low: Any = 1.0, high: Any = 4.0, original_context: Any = 8192
) -> RopeConfig:
    found = RopeConfig(
        base=_real(base, "rope_theta", 2.0, 1e12),
        factor=_real(factor, "rope factor", 1.0, 1e6),
        low_freq_factor=_real(low, "low_freq_factor", 1e-9, 1e6),
        high_freq_factor=_real(high, "high_freq_factor", 1e-9, 1e6),
        original_context=_whole(original_context, "original_max_position_embeddings", 2**30),
    )
    if found.high_freq_factor <= found.low_freq_factor:
        raise ValueError(f"high_freq_factor is {high!r}, not above low_freq_factor, {low!r}")
    return found


def _norm_eps(value: Any) -> float:
    return _real(value, "norm_eps", 1e-12, 0.1)


def _parse_original(config: Mapping[str, Any]) -> ModelConfig:
    sampling = config.get("sampling") or {}
    if not isinstance(sampling, Mapping):
        raise ValueError(f"sampling is {sampling!r}")
    return ModelConfig(
        backbone=_from_flavor(config["backbone_flavor"]),
        decoder=_from_flavor(config["decoder_flavor"]),
        text_vocab_size=_count(config, "text_vocab_size"),
        audio_vocab_size=_count(config, "audio_vocab_size"),
        n_codebooks=_count(config, "audio_num_codebooks"),
        temperature=_real(sampling["temperature"], "temperature", 0.0, 5.0)
        if "temperature" in sampling
        else None,
        top_k=_count(sampling, "top_k") if "top_k" in sampling else None,
    )


def _from_flavor(flavor: Any) -> TransformerConfig:
    if isinstance(flavor, str):
        if flavor not in FLAVORS:
            raise ValueError(f"unknown flavor {flavor!r} (known: {', '.join(FLAVORS)})")
        return FLAVORS[flavor]
    dim, n_heads = _count(flavor, "embed_dim"), _count(flavor, "num_heads")
    return TransformerConfig(
        n_layers=_count(flavor, "num_layers"),
        n_heads=n_heads,
        n_kv_heads=_count(flavor, "num_kv_heads"),
        dim=dim,
        intermediate_dim=_count(flavor, "intermediate_dim"),
        head_dim=dim // n_heads,
        max_positions=_positions(flavor, "max_seq_len"),
        norm_eps=_norm_eps(flavor.get("norm_eps", 1e-5)),
        rope=_rope(flavor.get("rope_base", 500_000), flavor.get("scale_factor", 32)),
    )


def _parse_transformers(config: Mapping[str, Any]) -> ModelConfig:
    depth = config["depth_decoder_config"]
    return ModelConfig(
        backbone=_from_llama(config, n_positions=_positions(config, "max_position_embeddings")),
        # transformers counts the depth decoder's positions in codebooks + 1; the tables are as long.
        decoder=_from_llama(depth, n_positions=2048),
        text_vocab_size=_count(config, "text_vocab_size"),
        audio_vocab_size=_count(config, "vocab_size"),
        n_codebooks=_count(config, "num_codebooks"),
        tied_audio_embeddings=bool(config.get("tie_codebooks_embeddings", True)),
    )


def _from_llama(config: Mapping[str, Any], *, n_positions: int) -> TransformerConfig:
    dim, n_heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
    # transformers 5 renamed rope_scaling and moved rope_theta into it.
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        # Plain RoPE, which a factor of 1 is.
        scaling = {"rope_theta": scaling["rope_theta"]} if "rope_theta" in scaling else {}
    elif kind != "llama3":
        raise ValueError(f"rope_scaling of type {kind!r} (only llama3 is known)")
    rope = _rope(
        scaling.get("rope_theta", config.get("rope_theta", 500_000)),
        scaling.get("factor", 1.0),
        scaling.get("low_freq_factor", 1.0),
        scaling.get("high_freq_factor", 4.0),
        scaling.get("original_max_position_embeddings", 8192),
    )
    return TransformerConfig(
        n_layers=_count(config, "num_hidden_layers"),
        n_heads=n_heads,
        n_kv_heads=_count(config, "num_key_value_heads"),
        dim=dim,
        intermediate_dim=_count(config, "intermediate_size"),
        head_dim=_whole(config.get("head_dim") or dim // n_heads, "head_dim", dim),
        max_positions=n_positions,
        norm_eps=_norm_eps(config.get("rms_norm_eps", 1e-5)),
        rope=rope,
    )
