"""From a name or a path to a `Generator`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from csm_repl.api.checks import checked_integer
from csm_repl.api.generator import Generator
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.hub import DEFAULT_MODEL, find_model
from csm_repl.loaded import open_model
from csm_repl.model.device import choose_placement
from csm_repl.paths import default_cache_dir

__all__ = ["load_csm_1b", "load_csm_1b_local"]

_Path = str | os.PathLike[str]


def load_csm_1b(
    ckpt_path: _Path | torch.device | None = None,
    device: str | torch.device | None = None,
    *,
    model: _Path | None = None,
    revision: str | None = None,
    adapter: _Path | None = None,
    dtype: str = "auto",
    quantize: str = "none",
    native: bool = True,
    n_positions: int | None = None,
    offline: bool = False,
    token: str | None = None,
) -> Generator:
    """Loads a CSM: CSM-1B from the hub, or any other.

    The original's two ways of calling it both work: `load_csm_1b("cuda")`, and with a file or folder before
    the device, `load_csm_1b("ckpt.pt", "cuda")`.

    Args:
        ckpt_path: a model's folder or the weights in it. A device alone may stand in its place.
        device: auto (the default), cuda, cuda:N, mps or cpu; an explicit one never falls back.
        model: a name on the hub or a path, in the original's or transformers' layout; CSM-1B by default.
        revision: branch, tag or commit on the hub.
        adapter: an adapter's folder, of csm-repl or of PEFT, that is added to the model.
        dtype: auto, bfloat16, float16 or float32.
        quantize: weights of the layers: none, int8, int4, fp8 on a newer GPU, or auto (int8 on a CPU,
            else none).
        native: whether the native kernels make the frames on a CPU; they need a C compiler, once.
        n_positions: of the context, from 64 to 2**20; None: as many as the model was trained with.
        offline: never touch the network.
        token: access token of the hub.

    Raises:
        ValueError: both `ckpt_path` and `model` are given, one of them is no string or path, or
            `n_positions` is out of range.
        csm_repl.errors.ModelError: the model is not available; the message says what to do.
        csm_repl.errors.DeviceError: the device is not, or cannot run the kernels of quantised weights.
        csm_repl.errors.UsageError: there is no such dtype or quantisation, or not on this device.
    """
    if device is None and _is_device(ckpt_path):
        ckpt_path, device = None, str(ckpt_path)
    if ckpt_path is not None and model is not None:
        raise ValueError("give ckpt_path or model, not both")
    if n_positions is not None:
        n_positions = checked_integer(n_positions, "n_positions", 64, 2**20)
    name = "model" if ckpt_path is None else "ckpt_path"
    wanted = next(value for value in (ckpt_path, model, DEFAULT_MODEL) if value is not None)
    placement = choose_placement("auto" if device is None else str(device), dtype, quantize)
    files = find_model(_model_name(wanted, name), revision=revision, offline=offline, token=token)
    loaded = open_model(
        files,
        placement,
        adapter=None if adapter is None else Path(_model_name(adapter, "adapter")),
        n_positions=n_positions,
        native_kernels=native,
        cache_dir=default_cache_dir(),
    )
    return Generator(loaded)


def load_csm_1b_local(
    model_path: _Path, device: str | torch.device | None = None, audio_num_codebooks: int | None = None
) -> Generator:
    """As csm-streaming has it: loads the model that lies at `model_path`.

    Args:
        model_path: a model's folder or the weights in it.
        device: as in `load_csm_1b`.
        audio_num_codebooks: must be the model's, where it is given.

    Raises:
        ValueError: `model_path` is no string or path, or the model has other codebooks.
        csm_repl.errors.CsmReplError: as `load_csm_1b`.
    """
    generator = load_csm_1b(Path(_model_name(model_path, "model_path")), device)
    if audio_num_codebooks not in {None, generator.codec.n_codebooks}:
        raise ValueError(
            f"audio_num_codebooks is {audio_num_codebooks}, and this model has {generator.codec.n_codebooks}."
        )
    return generator


def _is_device(value: object) -> bool:
    if isinstance(value, torch.device):
        return True
    return isinstance(value, str) and re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value) is not None


def _model_name(value: object, argument: str) -> str:
    """What `find_model` takes: of a file with weights, its folder."""
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ValueError(f"{argument} must be a string or a path, not {type(value).__name__}.")
    path = Path(value).expanduser()
    if not path.is_file():
        return os.fspath(value)
    weights = find_checkpoint(path.parent).weights
    if path.name not in {file.name for file in weights}:
        raise ValueError(
            f"{argument} is {path}, and the model in that folder has its weights in "
            f"{', '.join(file.name for file in weights)}."
        )
    return str(path.parent)
