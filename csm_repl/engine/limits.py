"""What can be done: prompts within the model's positions, slots in the device's memory, by this process."""

from __future__ import annotations

import os

import torch

from csm_repl.engine.request import PromptTooLongError
from csm_repl.errors import DeviceError, OutOfMemoryError
from csm_repl.model.csm import CSM
from csm_repl.model.device import free_bytes
from csm_repl.model.kv_cache import KVCache

__all__ = ["check_memory", "check_process", "check_prompt", "slot_bytes"]

SPARE_SHARE = 0.1
"""Of the free memory, for what the passes need beside keys and values."""


def slot_bytes(model: CSM) -> int:
    """Bytes of keys and values of one slot."""
    config, meta = model.config, torch.device("meta")
    sizes = ((config.backbone, config.max_positions), (config.decoder, config.n_codebooks))
    return sum(KVCache(size, n, device=meta, dtype=model.dtype).n_bytes for size, n in sizes)


def check_prompt(prompt: torch.Tensor, model: CSM) -> None:
    """Raises ValueError for what is no prompt, PromptTooLongError for one without room behind it."""
    n_columns, n_positions = model.config.n_codebooks + 1, model.config.max_positions
    if prompt.ndim != 2 or prompt.shape[1] != n_columns or len(prompt) == 0:
        raise ValueError(f"a prompt must be [S > 0, {n_columns}], not {list(prompt.shape)}")
    if len(prompt) >= n_positions:
        raise PromptTooLongError(f"{len(prompt)} positions leave no room in {n_positions}")


def check_memory(model: CSM, n_slots: int) -> None:
    free = free_bytes(model.device)
    if free is None:
        return
    each = slot_bytes(model)
    n_fit = int(free * (1 - SPARE_SHARE)) // each
    if n_slots > n_fit == 0:
        raise OutOfMemoryError(
            f"Keys and values of {model.config.max_positions} positions need {each / 1e9:.1f} GB; "
            f"{free / 1e9:.1f} GB are free on {model.device}.",
            "Close other programs, or use a shorter --context.",
        )
    if n_slots > n_fit:
        raise OutOfMemoryError(
            f"{n_slots} takes side by side need {n_slots * each / 1e9:.1f} GB for keys and values; "
            f"{free / 1e9:.1f} GB are free on {model.device}.",
            f"Use at most {n_fit} (--batch {n_fit}).",
        )


def check_process(loaded_by: int) -> None:
    """Raises DeviceError in a process that was forked from the one that loaded the model.

    A fork has none of the threads that PyTorch computes with, and would wait for them without an end.
    """
    if os.getpid() != loaded_by:
        raise DeviceError(
            f"The model was loaded by process {loaded_by}; this one, a fork of it, cannot compute with it.",
            "Load the model in the process that speaks: start it with multiprocessing's 'spawn' method, or "
            "fork before loading.",
        )
