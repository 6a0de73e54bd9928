"""Model folders in either layout, and which one suits a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from csm_repl.errors import UsageError
from csm_repl.files.config import ModelConfig
from csm_repl.files.hub import ModelFiles
from csm_repl.train.export.companions import companions
from csm_repl.train.export.original import original_config, write_original
from csm_repl.train.export.transformers import write_transformers

__all__ = ["Layout", "natural_layout", "write_model"]

Layout = Literal["original", "transformers"]


def write_model(
    out: Path,
    state: Mapping[str, torch.Tensor],
    config: ModelConfig,
    files: ModelFiles,
    *,
    layout: Layout,
    dtype: torch.dtype,
) -> str | None:
    """A model folder in either layout; returns what `write_transformers` has to say."""
    if layout == "transformers":
        return write_transformers(out, state, config, files, dtype=dtype)
    write_original(out, state, config, files=companions(files.folder, tokenizer=files.tokenizer), dtype=dtype)
    return None


def natural_layout(config: ModelConfig) -> Layout:
    """The original's, unless it has no words for this model."""
    try:
        original_config(config)
    except UsageError:
        return "transformers"
    return "original"
