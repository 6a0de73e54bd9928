"""Which codec a model folder asks for.

Without a `codec.json` it is Mimi at Kyutai's sizes. With one, `{"codec": "mimi", "config": {...}}` gives
other sizes in moshi's form.
"""

from __future__ import annotations

from pathlib import Path

import torch

from csm_repl.audio import SAMPLE_RATE
from csm_repl.codec.base import Codec
from csm_repl.codec.mimi import MimiCodec
from csm_repl.errors import CheckpointError
from csm_repl.model.checkpoint import read_config

__all__ = ["load_codec"]


def load_codec(weights: Path, description: Path | None, *, n_codebooks: int, device: torch.device) -> Codec:
    """Loads the codec.

    Args:
        weights: its weights file.
        description: the model folder's `codec.json`, or None.
        n_codebooks: how many codebooks the language model speaks.
        device: where it runs.

    Raises:
        CheckpointError: unknown codec, or weights that cannot be loaded.
    """
    config = None
    if description is not None:
        content = read_config(description)
        kind = content.get("codec")
        if kind != "mimi":
            raise CheckpointError(
                f"{description} asks for the codec {kind!r}, which this version does not have.",
                "Update csm-repl, or use a model whose codec is mimi.",
            )
        config = content.get("config")
    codec = MimiCodec.load(weights, n_codebooks=n_codebooks, device=device, config=config)
    if codec.sample_rate != SAMPLE_RATE:
        raise CheckpointError(
            f"The codec in {weights} works at {codec.sample_rate} Hz and everything else at {SAMPLE_RATE}.",
            "Use a codec of that rate.",
        )
    return codec
