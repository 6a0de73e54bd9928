"""Published tensors, mapped and checked; safetensors files, shards of them, or a `ckpt.pt`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from csm_repl.errors import CheckpointError
from csm_repl.files.checkpoint import Checkpoint
from csm_repl.files.json_files import DOWNLOAD_AGAIN
from csm_repl.files.layouts import Part, Recipe

__all__ = ["TensorSource", "check_parts", "get_tensor", "open_files", "open_weights"]


class TensorSource(Protocol):
    """Published tensors by name; `get` may be a view of mapped memory."""

    def names(self) -> Iterable[str]: ...

    def shape(self, name: str) -> tuple[int, ...] | None: ...

    def get(self, name: str) -> torch.Tensor: ...


class _SafetensorsSource:
    def __init__(self, files: tuple[Path, ...], stack: contextlib.ExitStack, remedy: str) -> None:
        from safetensors import SafetensorError, safe_open

        self._where: dict[str, tuple[Any, str]] = {}
        """The file of each tensor, and its name there."""
        for path in files:
            try:
                handle = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{path} is truncated or corrupt: {error}.", remedy) from error
            for name in handle.keys():  # noqa: SIM118 - a handle is no mapping
                self._where[_plain_name(name)] = (handle, name)

    def names(self) -> Iterable[str]:
        return self._where

    def shape(self, name: str) -> tuple[int, ...] | None:
        if name not in self._where:
            return None
        handle, stored = self._where[name]
        return tuple(handle.get_slice(stored).get_shape())

    def get(self, name: str) -> torch.Tensor:
        handle, stored = self._where[name]
        tensor: torch.Tensor = handle.get_tensor(stored)
        return tensor


class _PickleSource:
    """`ckpt.pt`, read with `weights_only=True`: tensors and nothing else come out of it."""

    def __init__(self, path: Path, remedy: str) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises half a dozen kinds here, with pages of advice
            refused = _REFUSED.search(str(error))
            if refused is not None:
                raise CheckpointError(
                    f"{path} holds more than tensors: {refused[1]}, which could run code, is not loaded.",
                    "Save the model's state_dict() alone, as safetensors or with torch.save, and use that.",
                ) from error
            raise CheckpointError(f"{path} is truncated or corrupt.", remedy) from error
        state = _unwrapped(state)
        if state is None:
            raise CheckpointError(f"{path} holds no dictionary of tensors.", remedy)
        self._tensors = {_plain_name(name): value for name, value in state.items() if torch.is_tensor(value)}

    def names(self) -> Iterable[str]:
        return self._tensors

    def shape(self, name: str) -> tuple[int, ...] | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else tuple(tensor.shape)

    def get(self, name: str) -> torch.Tensor:
        return self._tensors[name]


_REFUSED = re.compile(r"GLOBAL ([\w.]+)")
_WRAPPERS = ("model", "model_state_dict", "state_dict", "module")
"""Under which trainers keep the tensors."""


def _unwrapped(state: object) -> dict[object, object] | None:
    """The dictionary of tensors in what a trainer has saved, at most a few levels down."""
    for _ in range(4):
        if not isinstance(state, dict) or any(torch.is_tensor(value) for value in state.values()):
            break
        inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), dict)), None)
        if inner is None:
            break
        state = inner
    return state if isinstance(state, dict) else None


def _plain_name(name: object) -> str:
    """Without what torch.compile puts before the names of a module, and distributed training before all."""
    plain = str(name).replace("_orig_mod.", "")
    while plain.startswith("module."):
        plain = plain.removeprefix("module.")
    return plain


def open_weights(checkpoint: Checkpoint) -> contextlib.AbstractContextManager[TensorSource]:
    """The published tensors of a checkpoint, mapped while the block runs."""
    return open_files(checkpoint.weights)


@contextlib.contextmanager
def open_files(files: tuple[Path, ...], *, remedy: str = DOWNLOAD_AGAIN) -> Iterator[TensorSource]:
    """The tensors of safetensors files or of one pickle, mapped while the block runs.

    Raises:
        CheckpointError: a file is corrupt, or holds more than tensors.
    """
    with contextlib.ExitStack() as stack:
        if files[0].suffix == ".safetensors":
            yield _SafetensorsSource(files, stack, remedy)
        else:
            yield _PickleSource(files[0], remedy)


def check_parts(
    plan: tuple[Recipe, ...], source: TensorSource, checkpoint: Checkpoint
) -> Iterator[tuple[Part, str]]:
    """Every part of `plan` with the name it is stored under; CheckpointError where one is missing or odd."""
    missing: list[str] = []
    wrong: list[str] = []
    for part in (part for recipe in plan for part in recipe.parts):
        name = next((name for name in part.names if source.shape(name) is not None), None)
        if name is None:
            missing.append(part.names[0])
        elif source.shape(name) != part.shape:
            wrong.append(f"{name} is {_size(source.shape(name))}, the config asks for {_size(part.shape)}")
        else:
            yield part, name
    if missing:
        raise CheckpointError(
            f"{checkpoint.folder} lacks {_some(missing)} (read as the {checkpoint.layout} layout).",
            DOWNLOAD_AGAIN,
        )
    if wrong:
        raise CheckpointError(
            f"The weights in {checkpoint.folder} do not fit its config.json: {_some(wrong)}.",
            "Use the config.json that was published with these weights.",
        )


def _size(shape: tuple[int, ...] | None) -> str:
    return "x".join(map(str, shape or ()))


def _some(items: list[str], limit: int = 3) -> str:
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(items[:limit]) + more


def get_tensor(source: TensorSource, name: str) -> torch.Tensor:
    """A published tensor; CheckpointError where it holds no floating point numbers."""
    tensor = source.get(name)
    if not tensor.is_floating_point():
        raise CheckpointError(
            f"{name} holds {tensor.dtype}, not floating point numbers.",
            "Quantised checkpoints of other programs cannot be read; use the original weights.",
        )
    return tensor
