"""Sizes from both published kinds of config.json."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from csm_repl.errors import CheckpointError
from csm_repl.files.config import ModelConfig, RopeConfig, TransformerConfig, parse_config
from csm_repl.model.transformer import rope_table
from tests.support.layout_writer import HUB_ORIGINAL, HUB_TRANSFORMERS
from tools.random_checkpoint import FULL_FLAVORS

# sesame/csm-1b's config.json, original keys.
# The same file's keys for transformers.


def parse(config: dict[str, Any]) -> ModelConfig:
    return parse_config(config, source="config.json")


def without_rope(config: ModelConfig) -> ModelConfig:
    plain = RopeConfig()
    return replace(
        config,
        backbone=replace(config.backbone, rope=plain),
        decoder=replace(config.decoder, rope=plain),
    )


def table(config: TransformerConfig) -> torch.Tensor:
    return rope_table(config.rope, config.head_dim, 2048, torch.device("cpu"))


def test_both_layouts_of_csm_1b_give_the_same_sizes() -> None:
    assert without_rope(parse(HUB_ORIGINAL)) == without_rope(parse(HUB_TRANSFORMERS))


def test_sizes_of_csm_1b_are_the_published_ones() -> None:
    config = parse(HUB_ORIGINAL)
    assert config.backbone == TransformerConfig(16, 32, 8, 2048, 8192, 64)
    assert config.decoder == TransformerConfig(4, 8, 2, 1024, 8192, 128)


@pytest.mark.parametrize("which", ["backbone", "decoder"])
def test_both_layouts_of_csm_1b_give_the_same_rope_table(which: str) -> None:
    original, transformers = parse(HUB_ORIGINAL), parse(HUB_TRANSFORMERS)
    # Computed in float64 and rounded once; the two writings of the scaling differ by its last bits.
    torch.testing.assert_close(
        table(getattr(original, which)), table(getattr(transformers, which)), rtol=0, atol=1e-6
    )


def test_a_config_with_the_keys_of_both_layouts_is_read_as_the_original() -> None:
    assert parse({**HUB_TRANSFORMERS, **HUB_ORIGINAL}) == parse(HUB_ORIGINAL)


def test_flavors_as_objects_equal_the_named_ones() -> None:
    objects = {
        **HUB_ORIGINAL,
        "backbone_flavor": {
            "num_layers": 16, "num_heads": 32, "num_kv_heads": 8, "embed_dim": 2048,
            "max_seq_len": 2048, "intermediate_dim": 8192, "attn_dropout": 0.0, "norm_eps": 1e-5,
            "rope_base": 500_000, "scale_factor": 32,
        },
        "decoder_flavor": {
            "num_layers": 4, "num_heads": 8, "num_kv_heads": 2, "embed_dim": 1024,
            "max_seq_len": 2048, "intermediate_dim": 8192,
        },
    }  # fmt: skip
    assert parse(objects) == parse(HUB_ORIGINAL) == parse(FULL_FLAVORS)


def test_rope_parameters_of_transformers_5_are_understood() -> None:
    newer = copy.deepcopy(HUB_TRANSFORMERS)
    for part in (newer, newer["depth_decoder_config"]):
        part["rope_parameters"] = {**part.pop("rope_scaling"), "rope_theta": part.pop("rope_theta")}
    assert parse(newer) == parse(HUB_TRANSFORMERS)


@pytest.mark.parametrize("scaling", [None, {}, {"rope_type": "default"}])
def test_missing_rope_scaling_is_plain_rope(scaling: Any) -> None:
    config = parse({**HUB_TRANSFORMERS, "rope_scaling": scaling})
    positions = torch.arange(2048, dtype=torch.float64)
    angles = torch.outer(positions, 500_000.0 ** -(torch.arange(0, 64, 2, dtype=torch.float64) / 64))
    torch.testing.assert_close(table(config.backbone)[..., 0], angles.cos().float(), rtol=0, atol=1e-6)


def changed(config: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {key: value for key, value in {**config, **values}.items() if value is not ...}


DEPTH = HUB_TRANSFORMERS["depth_decoder_config"]
BROKEN = {
    "empty": {},
    "other model": {"model_type": "llama", "hidden_size": 2048},
    "one flavor missing": changed(HUB_ORIGINAL, decoder_flavor=...),
    "unknown flavor": changed(HUB_ORIGINAL, backbone_flavor="llama-7B"),
    "flavor is a number": changed(HUB_ORIGINAL, backbone_flavor=3),
    "flavor lacks a size": changed(HUB_ORIGINAL, backbone_flavor={"num_layers": 2}),
    "vocabulary missing": changed(HUB_ORIGINAL, text_vocab_size=...),
    "vocabulary is a word": changed(HUB_ORIGINAL, text_vocab_size="many"),
    "vocabulary is null": changed(HUB_ORIGINAL, text_vocab_size=None),
    "vocabulary is infinite": changed(HUB_ORIGINAL, text_vocab_size=math.inf),
    "vocabulary is zero": changed(HUB_ORIGINAL, text_vocab_size=0),
    "no codebooks": changed(HUB_ORIGINAL, audio_num_codebooks=0),
    "negative codebooks": changed(HUB_ORIGINAL, audio_num_codebooks=-1),
    "depth decoder is null": changed(HUB_TRANSFORMERS, depth_decoder_config=None),
    "depth decoder is text": changed(HUB_TRANSFORMERS, depth_decoder_config="yes"),
    "rope scaling is text": changed(HUB_TRANSFORMERS, rope_scaling="llama3"),
    "rope scaling unknown": changed(HUB_TRANSFORMERS, rope_scaling={"rope_type": "yarn", "factor": 2.0}),
    "no heads": changed(HUB_TRANSFORMERS, num_attention_heads=0, head_dim=...),
    "no key heads": changed(HUB_TRANSFORMERS, num_key_value_heads=0),
    "odd groups": changed(HUB_TRANSFORMERS, num_key_value_heads=5),
    "odd heads": changed(HUB_TRANSFORMERS, head_dim=63),
    "negative layers": changed(HUB_TRANSFORMERS, num_hidden_layers=-2),
    "no positions": changed(HUB_TRANSFORMERS, max_position_embeddings=0),
    "a billion layers": changed(HUB_TRANSFORMERS, num_hidden_layers=10**9),
    "a billion codebooks": changed(HUB_ORIGINAL, audio_num_codebooks=10**9),
    "a billion positions": changed(HUB_TRANSFORMERS, max_position_embeddings=10**9),
    "vocabulary beyond memory": changed(HUB_ORIGINAL, text_vocab_size=10**12),
    "vocabulary is true": changed(HUB_ORIGINAL, text_vocab_size=True),
    "vocabulary is a numeral": changed(HUB_ORIGINAL, text_vocab_size="128256"),
    "vocabulary is broken": changed(HUB_ORIGINAL, text_vocab_size=128256.5),
    "vocabulary is not a number": changed(HUB_ORIGINAL, text_vocab_size=math.nan),
    **{
        f"norm_eps {value!r}": changed(HUB_TRANSFORMERS, rms_norm_eps=value)
        for value in (0, -1e-5, 1.0, math.nan, math.inf, "1e-5", None, True)
    },
    **{
        f"rope_theta {value!r}": changed(HUB_TRANSFORMERS, rope_theta=value)
        for value in (0, -1.0, 1.0, math.nan, math.inf, 1e30, "500000")
    },
    **{
        f"rope scaling {key} {value!r}": changed(
            HUB_TRANSFORMERS, rope_scaling={**HUB_TRANSFORMERS["rope_scaling"], key: value}
        )
        for key, value in [
            ("factor", 0),
            ("factor", math.nan),
            ("low_freq_factor", 0),
            ("high_freq_factor", -1),
            ("low_freq_factor", 4.0),
            ("original_max_position_embeddings", 0),
        ]
    },
    **{
        f"sampling {key} {value!r}": changed(HUB_ORIGINAL, sampling={key: value})
        for key, value in [
            ("temperature", -0.1),
            ("temperature", math.nan),
            ("temperature", math.inf),
            ("temperature", 99),
            ("temperature", "hot"),
            ("temperature", None),
            ("top_k", 0),
            ("top_k", 2.5),
            ("top_k", "50"),
        ]
    },
    "sampling is a list": changed(HUB_ORIGINAL, sampling=[0.9]),
    "depth lacks a size": changed(HUB_TRANSFORMERS, depth_decoder_config=changed(DEPTH, hidden_size=...)),
}


@pytest.mark.parametrize("config", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_config_is_a_checkpoint_error(config: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        parse(config)


def test_an_unknown_flavor_is_named_with_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match=r"llama-7B.*llama-1B, llama-100M"):
        parse(BROKEN["unknown flavor"])


def test_a_missing_key_is_named() -> None:
    with pytest.raises(CheckpointError, match="text_vocab_size"):
        parse(BROKEN["vocabulary missing"])


def test_a_config_that_is_no_csm_says_what_it_lacks() -> None:
    with pytest.raises(CheckpointError, match=r"neither backbone_flavor .* nor a depth_decoder_config"):
        parse(BROKEN["other model"])


def test_untied_embeddings_are_read_from_transformers_config() -> None:
    assert not parse({**HUB_TRANSFORMERS, "tie_codebooks_embeddings": False}).tied_audio_embeddings
