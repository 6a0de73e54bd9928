"""Which codec a model folder asks for.

Without a `codec.json` it is Mimi at Kyutai's sizes. With one, `{"codec": "mimi", "config": {...}}` gives
other sizes in moshi's form, and `{"codec": "istft", "config": {...}}` is the small codec of the built-in
voice with the values of `CodecSizes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from csm_repl.audio import SAMPLE_RATE
from csm_repl.codec.base import Codec
from csm_repl.codec.istft import IstftCodec
from csm_repl.codec.mimi import MimiCodec
from csm_repl.errors import CheckpointError
from csm_repl.files.json_files import read_config

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
    content: Mapping[str, Any] = {"codec": "mimi"} if description is None else read_config(description)
    kind, config = content.get("codec"), content.get("config")
    codec: Codec
    if kind == "mimi":
        codec = MimiCodec.load(weights, n_codebooks=n_codebooks, device=device, config=config)
    elif kind == "istft":
        codec = IstftCodec.load(weights, n_codebooks=n_codebooks, device=device, config=config or {})
    else:
        raise CheckpointError(
            f"{description} asks for the codec {kind!r}, which this version does not have.",
            "Update csm-repl, or use a model whose codec is mimi or istft.",
        )
    if codec.sample_rate != SAMPLE_RATE:
        raise CheckpointError(
            f"The codec in {weights} works at {codec.sample_rate} Hz and everything else at {SAMPLE_RATE}.",
            "Use a codec of that rate.",
        )
    return codec
