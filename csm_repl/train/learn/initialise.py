"""The network of a run: from a checkpoint in either layout, or new. Knows nothing about data."""

from __future__ import annotations

import torch

from csm_repl.errors import OutOfMemoryError
from csm_repl.model.checkpoint import Checkpoint
from csm_repl.model.config import ModelConfig
from csm_repl.model.device import out_of_memory
from csm_repl.model.published import read_published
from csm_repl.train.learn.network import TrainableCSM, initial_state

__all__ = ["load_network", "new_network"]


def new_network(config: ModelConfig, *, seed: int, device: torch.device) -> TrainableCSM:
    """A model with random weights; the same seed gives the same weights on every machine."""
    return _place(TrainableCSM(config, initial_state(config, seed=seed)), device)


def load_network(checkpoint: Checkpoint, *, device: torch.device) -> TrainableCSM:
    """A published model, float32 and trainable in all its parts.

    Raises:
        CheckpointError: a file is corrupt, a tensor is missing or has another shape than the config says.
        OutOfMemoryError: it does not fit.
    """
    try:
        state = read_published(checkpoint, dtype=torch.float32)
    except (RuntimeError, MemoryError) as error:
        raise _too_small(error, torch.device("cpu")) from error
    return _place(TrainableCSM(checkpoint.config, state), device)


def _place(network: TrainableCSM, device: torch.device) -> TrainableCSM:
    try:
        return network.to(device)
    except (RuntimeError, MemoryError) as error:
        raise _too_small(error, device) from error


def _too_small(error: Exception, device: torch.device) -> Exception:
    if not out_of_memory(error):
        return error
    return OutOfMemoryError(
        f"The model does not fit into the memory of {device}.", "Close other programs, or use another device."
    )
