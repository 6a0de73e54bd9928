"""Weights under the published names: read from either layout as the original's, and named for transformers.

The engine runs fused parameters (see `checkpoint`); training and export need every published tensor by
itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from csm_repl.files.checkpoint import Checkpoint
from csm_repl.files.config import ModelConfig
from csm_repl.files.layouts import ORIGINAL, TRANSFORMERS, Part, recipes
from csm_repl.model.weights.tensors import check_parts, get_tensor, open_weights

__all__ = [
    "DEPTH_EMBEDDINGS",
    "half_to_pairs",
    "named_parts",
    "original_shapes",
    "pairs_to_half",
    "read_published",
    "to_transformers",
]

DEPTH_EMBEDDINGS = "depth_embeddings.weight"
"""The depth decoder's own table of audio embeddings, in models whose tables are not tied. The original
layout has no name for it: there the backbone's table serves both."""


def original_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The original's name -> shape, of every tensor of a model."""
    return {name: part.shape for name, part in named_parts(config, TRANSFORMERS)}


def read_published(checkpoint: Checkpoint, *, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint on the CPU, under the original layout's names.

    Args:
        checkpoint: in either layout.
        dtype: what they are cast to; None: as stored.

    Raises:
        CheckpointError: a file is corrupt, a tensor is missing or has another shape than the config says.
    """
    state: dict[str, torch.Tensor] = {}
    with open_weights(checkpoint) as source:
        stored = dict(check_parts(recipes(checkpoint.config, checkpoint.layout), source, checkpoint))
        for name, part in named_parts(checkpoint.config, checkpoint.layout):
            tensor = get_tensor(source, stored[part])
            if part.half_rotated_heads:
                tensor = half_to_pairs(tensor, part.half_rotated_heads)
            # A copy: the source's memory is mapped, and what is trained must be writable.
            state[name] = tensor.to(dtype=dtype or tensor.dtype, copy=True)
    return state


def to_transformers(state: Mapping[str, torch.Tensor], config: ModelConfig) -> dict[str, torch.Tensor]:
    """Tensors under the original's names -> the same model under transformers' names."""
    named: dict[str, torch.Tensor] = {}
    for name, part in named_parts(config, TRANSFORMERS):
        tensor = state[name]
        if part.half_rotated_heads:
            tensor = pairs_to_half(tensor, part.half_rotated_heads)
        # Of tied tensors transformers looks for the one that the other is tied to, which is named last.
        named[part.names[-1]] = tensor
    return named


def half_to_pairs(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """Rows of a q or k projection [H * Dh, D] from half-rotation order to neighbouring pairs."""
    return weight.unflatten(0, (n_heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()


def pairs_to_half(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    """The inverse of `half_to_pairs`."""
    return weight.unflatten(0, (n_heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def named_parts(config: ModelConfig, layout: str) -> Iterator[tuple[str, Part]]:
    """Every published tensor of `layout` with the original's name of it.

    Recipes of both layouts put the same tensors in the same order into a parameter of ours.
    """
    originals = {recipe.target: recipe for recipe in recipes(config, ORIGINAL)}
    for recipe in recipes(config, layout):
        if recipe.target in originals:
            for original, part in zip(originals[recipe.target].parts, recipe.parts, strict=True):
                yield original.names[0], part
        else:
            (part,) = recipe.parts
            yield DEPTH_EMBEDDINGS, part
