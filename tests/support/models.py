"""Sizes of tiny models."""

from __future__ import annotations

from typing import Any

from tools.random_checkpoint import TINY_FLAVORS

MICRO_FLAVORS: dict[str, Any] = {
    "backbone_flavor": {
        "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 32, "max_seq_len": 96,
        "intermediate_dim": 48,
    },
    "decoder_flavor": {
        "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "embed_dim": 16, "max_seq_len": 96,
        "intermediate_dim": 32,
    },
    "text_vocab_size": 300,
    "audio_vocab_size": 2051,
    "audio_num_codebooks": 4,
}  # fmt: skip
"""Four codebooks and 96 positions: a take costs a few milliseconds."""
QUICK_FLAVORS: dict[str, Any] = {**TINY_FLAVORS, "audio_num_codebooks": 4}
"""Four codebooks and all 2048 positions."""
