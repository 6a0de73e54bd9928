"""Where each of our parameters comes from in the two published layouts.

Pure bookkeeping over names and shapes: a `Recipe` lists the published tensors that are put under each other
along the first dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from csm_repl.files.config import ModelConfig, TransformerConfig

__all__ = ["ORIGINAL", "TRANSFORMERS", "Part", "Recipe", "recipes"]

ORIGINAL = "original"
TRANSFORMERS = "transformers"


@dataclass(frozen=True)
class Part:
    """One published tensor."""

    names: tuple[str, ...]
    """Under which it may be stored; the first one that exists is taken (tied weights are stored once)."""
    shape: tuple[int, ...]
    half_rotated_heads: int = 0
    """> 0: rows of that many heads are ordered for half-rotation RoPE and must be interleaved."""


@dataclass(frozen=True)
class Recipe:
    target: str
    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        first, *rest = (part.shape for part in self.parts)
        return (first[0] + sum(shape[0] for shape in rest), *first[1:])


def recipes(config: ModelConfig, layout: str) -> tuple[Recipe, ...]:
    """All parameters of `CSM(config)`, from tensors named as in `layout`."""
    return tuple(_original(config) if layout == ORIGINAL else _transformers(config))


def _single(target: str, shape: tuple[int, ...], *names: str) -> Recipe:
    return Recipe(target, (Part(names, shape),))


@dataclass(frozen=True)
class _LayerNames:
    prefix: str
    attn_norm: str
    query: str
    key: str
    value: str
    output: str
    mlp_norm: str
    gate: str
    up: str
    down: str
    half_rotation: bool


def _layers(target: str, config: TransformerConfig, names: _LayerNames) -> Iterator[Recipe]:
    dim, wide = config.dim, config.intermediate_dim
    n_q, n_kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    q_heads, kv_heads = (config.n_heads, config.n_kv_heads) if names.half_rotation else (0, 0)
    for index in range(config.n_layers):
        ours, theirs = f"{target}.layers.{index}", f"{names.prefix}.layers.{index}"

        def part(name: str, *shape: int, heads: int = 0, theirs: str = theirs) -> Part:
            return Part((f"{theirs}.{name}",), shape, heads)

        yield Recipe(f"{ours}.attn_norm.weight", (part(names.attn_norm, dim),))
        yield Recipe(
            f"{ours}.wqkv.weight",
            (
                part(names.query, n_q, dim, heads=q_heads),
                part(names.key, n_kv, dim, heads=kv_heads),
                part(names.value, n_kv, dim),
            ),
        )
        yield Recipe(f"{ours}.wo.weight", (part(names.output, dim, n_q),))
        yield Recipe(f"{ours}.mlp_norm.weight", (part(names.mlp_norm, dim),))
        yield Recipe(f"{ours}.w_gate_up.weight", (part(names.gate, wide, dim), part(names.up, wide, dim)))
        yield Recipe(f"{ours}.w_down.weight", (part(names.down, dim, wide),))


def _original(config: ModelConfig) -> Iterator[Recipe]:
    """torchtune's names, as in Sesame's `model.safetensors` and `ckpt.pt`."""
    backbone, decoder = config.backbone, config.decoder
    n_audio = config.n_codebooks * config.audio_vocab_size
    for target, size in (("backbone", backbone), ("decoder", decoder)):
        yield from _layers(
            target,
            size,
            _LayerNames(
                prefix=target,
                attn_norm="sa_norm.scale",
                query="attn.q_proj.weight",
                key="attn.k_proj.weight",
                value="attn.v_proj.weight",
                output="attn.output_proj.weight",
                mlp_norm="mlp_norm.scale",
                gate="mlp.w1.weight",
                up="mlp.w3.weight",
                down="mlp.w2.weight",
                half_rotation=False,
            ),
        )
        yield _single(f"{target}.norm.weight", (size.dim,), f"{target}.norm.scale")
    yield _single("text_embeddings", (config.text_vocab_size, backbone.dim), "text_embeddings.weight")
    yield _single("audio_embeddings", (n_audio, backbone.dim), "audio_embeddings.weight")
    yield _single("projection.weight", (decoder.dim, backbone.dim), "projection.weight")
    yield _single("codebook0_head.weight", (config.audio_vocab_size, backbone.dim), "codebook0_head.weight")
    heads = (config.n_codebooks - 1, decoder.dim, config.audio_vocab_size)
    yield _single("audio_heads", heads, "audio_head")


def _transformers(config: ModelConfig) -> Iterator[Recipe]:
    """The names of transformers' `CsmForConditionalGeneration`."""
    backbone, decoder = config.backbone, config.decoder
    n_audio = config.n_codebooks * config.audio_vocab_size
    for target, prefix, size in (
        ("backbone", "backbone_model", backbone),
        ("decoder", "depth_decoder.model", decoder),
    ):
        yield from _layers(
            target,
            size,
            _LayerNames(
                prefix=prefix,
                attn_norm="input_layernorm.weight",
                query="self_attn.q_proj.weight",
                key="self_attn.k_proj.weight",
                value="self_attn.v_proj.weight",
                output="self_attn.o_proj.weight",
                mlp_norm="post_attention_layernorm.weight",
                gate="mlp.gate_proj.weight",
                up="mlp.up_proj.weight",
                down="mlp.down_proj.weight",
                half_rotation=True,
            ),
        )
        yield _single(f"{target}.norm.weight", (size.dim,), f"{prefix}.norm.weight")
    ours = "backbone_model.embed_tokens.embed_audio_tokens.weight"
    depth = "depth_decoder.model.embed_tokens.weight"
    yield _single("text_embeddings", (config.text_vocab_size, backbone.dim), "embed_text_tokens.weight")
    if config.tied_audio_embeddings:
        yield _single("audio_embeddings", (n_audio, backbone.dim), ours, depth)
    else:
        yield _single("audio_embeddings", (n_audio, backbone.dim), ours)
        yield _single("depth_embeddings", (n_audio, backbone.dim), depth)
    projector = "depth_decoder.model.inputs_embeds_projector.weight"
    yield _single("projection.weight", (decoder.dim, backbone.dim), projector)
    yield _single("codebook0_head.weight", (config.audio_vocab_size, backbone.dim), "lm_head.weight")
    heads = (config.n_codebooks - 1, decoder.dim, config.audio_vocab_size)
    yield _single("audio_heads", heads, "depth_decoder.codebooks_head.weight")
