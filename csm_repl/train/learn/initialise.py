"""The network that a run starts from: a checkpoint in either layout, or random weights."""

from __future__ import annotations

import math

import torch

from csm_repl.errors import OutOfMemoryError
from csm_repl.files.checkpoint import Checkpoint
from csm_repl.files.config import ModelConfig
from csm_repl.model.device import out_of_memory
from csm_repl.model.weights.published import original_shapes, read_published
from csm_repl.train.learn.network import TrainableCSM

__all__ = ["initial_state", "load_network", "new_network"]


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


def initial_state(config: ModelConfig, *, seed: int) -> dict[str, torch.Tensor]:
    """Weights to train from scratch, float32, under the original layout's names.

    Matrices are normal with 0.64 / sqrt(fan-in), which is the usual 0.02 at a width of 1024; what is added
    to the residual stream is smaller by sqrt(2 * layers), so that the stream's size does not depend on the
    depth. A text embedding is as large as the sum of a frame's K codes. Heads start near zero: the first loss
    is that of a uniform guess.
    """
    generator = torch.Generator().manual_seed(seed)
    residual = {"backbone": config.backbone.n_layers, "decoder": config.decoder.n_layers}
    state: dict[str, torch.Tensor] = {}
    for name, shape in original_shapes(config).items():
        if len(shape) == 1:
            state[name] = torch.ones(shape)
            continue
        if name == "text_embeddings.weight":
            std = math.sqrt(config.n_codebooks / shape[1])
        elif name.endswith("embeddings.weight"):
            std = 1 / math.sqrt(shape[1])
        elif name in {"codebook0_head.weight", "audio_head"}:
            std = 0.1 / math.sqrt(shape[1])
        else:
            std = 0.64 / math.sqrt(shape[1])
        if name.endswith(("output_proj.weight", "w2.weight")):
            std /= math.sqrt(2 * residual[name.split(".")[0]])
        state[name] = torch.empty(shape).normal_(0.0, std, generator=generator)
    return state


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
