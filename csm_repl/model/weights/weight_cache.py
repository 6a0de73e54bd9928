"""Converted weights on disk, so that the second start maps them instead of converting again.

One file per model folder, dtype and way of storing quantised weights, keyed by the sizes and times of the
published files. Losing the cache costs a conversion and nothing else: every failure here is logged and
passed over. Each tensor has a checksum in the file, which a disk that lies or a copy that broke off would not
pass; comparing them reads every weight once, as the first frame would.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch

from csm_repl.events import Say
from csm_repl.files.checkpoint import Checkpoint
from csm_repl.model.quantize import storage_id, storage_name
from csm_repl.paths import remove_leftovers, unfinished_path

__all__ = ["WeightCache", "write_safetensors"]

_FORMAT = 3
"""Counts up when the fused parameters change their names or their order, or the file its layout."""
_MIN_BYTES = 64 * 2**20
"""Smaller models convert faster than a file is found."""
_SPARE_BYTES = 2 * 2**30
_ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector that a kernel may read at once."""
_DTYPES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.float8_e4m3fn: "F8_E4M3",
}

log = logging.getLogger(__name__)


class WeightCache:
    """The cached file of one model in one form.

    Args:
        root: the program's cache folder.
        checkpoint: where the weights come from.
        expected: a state dict with the names, shapes and dtypes that a file must have, on the meta device.
        dtype: of what is not quantised.
        quantize: none, int8, fp8 or int4.
        kernels: what will multiply the weights (see `quantize.choose_kernels`).
        adapter: the weights of an adapter that was added to them.
        say: receives a sentence where the file is damaged.
    """

    def __init__(
        self,
        root: Path,
        checkpoint: Checkpoint,
        expected: Mapping[str, torch.Tensor],
        *,
        dtype: torch.dtype,
        quantize: str = "none",
        kernels: str = "cpu",
        adapter: Path | None = None,
        say: Say = lambda _: None,
    ) -> None:
        self._say = say
        files = [path.resolve() for path in checkpoint.weights]
        source = str(files[0])
        if adapter is not None:
            files.append(adapter.resolve())
            source += f"+{files[-1]}"
        kind = str(dtype).removeprefix("torch.")
        facts = [
            _FORMAT,
            [(path.stat().st_size, path.stat().st_mtime_ns) for path in files],
            checkpoint.config,
        ]
        if quantize != "none":
            # In front, so that no family's name is the beginning of another's.
            kind = f"{storage_name(quantize, kernels)}.{kind}"
            facts.append(storage_id(quantize, kernels))
        whose = hashlib.sha256(source.encode()).hexdigest()[:16]
        state = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        self._expected = _kinds(expected)
        self._folder = root / "weights"
        self._family = f"{whose}-{kind}-"
        self.path = self._folder / f"{self._family}{state}.safetensors"

    def load(self, device: torch.device) -> dict[str, torch.Tensor] | None:
        """The converted parameters, mapped where they stay on the CPU; None: not there, or not whole."""
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

        remove_leftovers(self._folder)
        try:
            if not self.path.is_file():
                return None
            with safe_open(self.path, framework="pt") as handle:
                written = handle.metadata() or {}
            state = load_file(self.path, device=str(device))
            self._check(state, written)
        except (OSError, SafetensorError, ValueError) as error:
            log.warning("converted weights %s are unusable: %s", self.path, error)
            self._say("The converted weights on the disk are damaged, so they are made again.")
            return None
        return state

    def _check(self, state: Mapping[str, torch.Tensor], written: Mapping[str, str]) -> None:
        if _kinds(state) != self._expected:
            raise ValueError("they are of another model")
        for name, tensor in state.items():
            if written.get(name) != _checksum(tensor):
                raise ValueError(f"{name} is not what was written")

    def store(self, state: Mapping[str, torch.Tensor]) -> None:
        n_bytes = sum(tensor.nbytes for tensor in state.values())
        if n_bytes < _MIN_BYTES:
            return
        temporary = unfinished_path(self._folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for old in self._folder.glob(f"{self._family}*.safetensors"):
                old.unlink()
            if shutil.disk_usage(self._folder).free < n_bytes + _SPARE_BYTES:
                log.info("no room to keep converted weights in %s", self._folder)
                return
            write_safetensors(state, temporary)
            temporary.replace(self.path)
        except Exception as error:  # whatever it is, the weights are in memory
            log.warning("converted weights were not kept: %s", error)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_safetensors(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes a safetensors file tensor by tensor; nearly all tensors start at multiples of 64 bytes.

    It is on the disk when this returns. The metadata has a checksum of each tensor (see `_checksum`).

    safetensors' own writer copies all tensors to the heap first, and starts them wherever the header ends.
    The format allows no gaps, so tensors of odd sizes come last.
    """
    header: dict[str, object] = {
        "__metadata__": {name: _checksum(tensor.detach()) for name, tensor in state.items()}
    }
    end = 0
    names = sorted(state, key=lambda name: state[name].nbytes % _ALIGNMENT != 0)
    for name in names:
        tensor, start = state[name], end
        end = start + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            flat = state[name].detach().cpu().contiguous().view(-1)
            file.write(flat.view(torch.uint8).numpy().data)
        file.flush()
        # Before the file gets its name: after a loss of power it would else be there without its content.
        os.fsync(file.fileno())


def _checksum(tensor: torch.Tensor) -> str:
    """The sum of a tensor's bytes as 64-bit integers, which wraps around: as fast as memory is read."""
    flat = tensor.contiguous().view(-1).view(torch.uint8)
    n_whole = len(flat) // 8 * 8
    total = int(flat[:n_whole].view(torch.int64).sum()) if n_whole else 0
    return f"{(total + int(flat[n_whole:].sum())) % 2**64:016x}"


def _kinds(state: Mapping[str, torch.Tensor]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.items()}
