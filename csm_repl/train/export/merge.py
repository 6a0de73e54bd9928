"""A base model and an adapter -> a whole model in either layout."""

from __future__ import annotations

from pathlib import Path

import torch

from csm_repl.files.adapters import AdapterFiles
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.hub import ModelFiles
from csm_repl.model.weights.adapters import apply_adapter, read_adapter
from csm_repl.model.weights.published import read_published
from csm_repl.train.export.model_folder import Layout, write_model

__all__ = ["merge_adapter"]


def merge_adapter(
    files: ModelFiles, adapter: AdapterFiles, out: Path, *, layout: Layout, dtype: torch.dtype | None = None
) -> str | None:
    """Writes the merged model into `out`.

    Args:
        files: the base model.
        adapter: of csm-repl or of PEFT.
        out: made if need be; must not be the base model's folder.
        layout: of the result.
        dtype: of the weights; None: the base model's. The sum is computed in float32 in any case.

    Returns:
        A sentence for the user about what the result cannot do, or None.

    Raises:
        CheckpointError: the base or the adapter is damaged, or they do not fit each other.
        TrainingError: the result could not be written.
    """
    checkpoint = find_checkpoint(files.folder)
    learnt = read_adapter(adapter, checkpoint.config)
    state = read_published(checkpoint)
    dtype = dtype or state["codebook0_head.weight"].dtype
    wide = {name: tensor.float() for name, tensor in state.items()}
    del state
    merged = apply_adapter(wide, learnt)
    return write_model(out, merged, checkpoint.config, files, layout=layout, dtype=dtype)
