"""Converted weights on disk, so that the second start maps them instead of converting again.

One file per model folder and dtype, keyed by the sizes and times of the published files. Losing the
cache costs a conversion and nothing else: every failure here is logged and passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from csm_repl.model.layouts import recipes

if TYPE_CHECKING:
    from csm_repl.model.checkpoint import Checkpoint

__all__ = ["WeightCache"]

_FORMAT = 1
"""Counts up when the fused parameters change their names or their order."""
_MIN_BYTES = 64 * 2**20
"""Smaller models convert faster than a file is found."""
_SPARE_BYTES = 2 * 2**30

log = logging.getLogger(__name__)


class WeightCache:
    def __init__(self, root: Path, checkpoint: Checkpoint, dtype: torch.dtype) -> None:
        files = [path.resolve() for path in checkpoint.weights]
        kind = str(dtype).removeprefix("torch.")
        whose = hashlib.sha256(str(files[0]).encode()).hexdigest()[:16]
        stats = [(path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        state = hashlib.sha256(repr((_FORMAT, stats, checkpoint.config)).encode()).hexdigest()[:16]
        self._shapes = {
            recipe.target: recipe.shape for recipe in recipes(checkpoint.config, checkpoint.layout)
        }
        self._dtype = dtype
        self._folder = root / "weights"
        self._family = f"{whose}-{kind}-"
        self.path = self._folder / f"{self._family}{state}.safetensors"

    def load(self, device: torch.device) -> dict[str, torch.Tensor] | None:
        """The converted parameters, mapped where they stay on the CPU; None: not there."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            if not self.path.is_file():
                return None
            state = load_file(self.path, device=str(device))
        except (OSError, SafetensorError) as error:
            log.warning("converted weights %s are unusable: %s", self.path, error)
            return None
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if shapes != self._shapes or {tensor.dtype for tensor in state.values()} != {self._dtype}:
            log.warning("converted weights %s are of another model", self.path)
            return None
        return state

    def store(self, state: dict[str, torch.Tensor]) -> None:
        from safetensors.torch import save_file

        n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        if n_bytes < _MIN_BYTES:
            return
        temporary = self.path.with_suffix(f".tmp-{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in self._folder.glob(f"{self._family}*.safetensors"):
                old.unlink()
            if shutil.disk_usage(self._folder).free < n_bytes + _SPARE_BYTES:
                log.info("no room to keep converted weights in %s", self._folder)
                return
            save_file(state, temporary)
            temporary.replace(self.path)
        except Exception as error:  # safetensors wraps disk errors in its own kinds
            log.warning("converted weights were not kept: %s", error)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
