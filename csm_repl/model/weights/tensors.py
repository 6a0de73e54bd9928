"""Published tensors, mapped and checked; safetensors files, shards of them, or a `ckpt.pt`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from csm_repl.errors import CheckpointError
from csm_repl.files.checkpoint import Checkpoint
from csm_repl.files.json_files import DOWNLOAD_AGAIN
from csm_repl.files.layouts import Part, Recipe

__all__ = ["TensorSource", "check_parts", "get_tensor", "open_weights"]


class TensorSource(Protocol):
    """Published tensors by name; `get` may be a view of mapped memory."""

    def shape(self, name: str) -> tuple[int, ...] | None: ...

    def get(self, name: str) -> torch.Tensor: ...


class _SafetensorsSource:
    def __init__(self, files: tuple[Path, ...], stack: contextlib.ExitStack) -> None:
        from safetensors import SafetensorError, safe_open

        self._where: dict[str, Any] = {}
        for path in files:
            try:
                handle = stack.enter_context(safe_open(path, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{path} is truncated or corrupt: {error}.", DOWNLOAD_AGAIN) from error
            for name in handle.keys():  # noqa: SIM118 - a handle is no mapping
                self._where[name] = handle

    def shape(self, name: str) -> tuple[int, ...] | None:
        handle = self._where.get(name)
        return None if handle is None else tuple(handle.get_slice(name).get_shape())

    def get(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._where[name].get_tensor(name)
        return tensor


class _PickleSource:
    """`ckpt.pt`, read with `weights_only=True`: tensors and nothing else come out of it."""

    def __init__(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises half a dozen kinds here, with pages of advice
            raise CheckpointError(
                f"{path} is truncated, corrupt or holds more than tensors.", DOWNLOAD_AGAIN
            ) from error
        if isinstance(state, dict) and isinstance(state.get("model"), dict):
            state = state["model"]
        if not isinstance(state, dict):
            raise CheckpointError(f"{path} holds no dictionary of tensors.", DOWNLOAD_AGAIN)
        self._tensors = {str(name): value for name, value in state.items() if torch.is_tensor(value)}

    def shape(self, name: str) -> tuple[int, ...] | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else tuple(tensor.shape)

    def get(self, name: str) -> torch.Tensor:
        return self._tensors[name]


@contextlib.contextmanager
def open_weights(checkpoint: Checkpoint) -> Iterator[TensorSource]:
    """The published tensors of a checkpoint, mapped while the block runs."""
    with contextlib.ExitStack() as stack:
        if checkpoint.weights[0].suffix == ".pt":
            yield _PickleSource(checkpoint.weights[0])
        else:
            yield _SafetensorsSource(checkpoint.weights, stack)


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
