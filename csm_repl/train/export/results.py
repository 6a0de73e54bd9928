"""Which weights a run trains, and what its results are: a whole model, or an adapter and its base."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch

from csm_repl.audio import output_error
from csm_repl.files.adapters import find_adapter
from csm_repl.files.checkpoint import Checkpoint, find_checkpoint
from csm_repl.files.config import ModelConfig
from csm_repl.files.hub import ModelFiles
from csm_repl.files.json_files import read_config
from csm_repl.files.layouts import recipes
from csm_repl.model.weights.adapters import apply_adapter, read_adapter
from csm_repl.model.weights.published import read_published
from csm_repl.model.weights.tensors import open_weights
from csm_repl.train.events import Note
from csm_repl.train.export.model_folder import natural_layout, write_model
from csm_repl.train.export.peft import write_peft
from csm_repl.train.learn.initialise import load_network, new_network
from csm_repl.train.learn.lora import adapted_state, add_lora, write_adapter
from csm_repl.train.learn.network import TrainableCSM
from csm_repl.train.options import TrainOptions
from csm_repl.train.run_folder import RunFolder

__all__ = ["Weights", "link_folder", "open_network"]


class Weights(Protocol):
    """A network with what is trained of it."""

    network: TrainableCSM

    def state(self, network: TrainableCSM) -> Mapping[str, torch.Tensor]:
        """The whole model's tensors as they are now, under the original layout's names."""
        ...

    def write(self, network: TrainableCSM, folder: Path) -> None:
        """What is trained, as it is now."""
        ...

    def results(self, folder: RunFolder) -> Iterator[Path | Note]:
        """Makes the run's results from its best weights: the folders that were made, and what to tell."""
        ...


def open_network(
    files: ModelFiles,
    config: ModelConfig,
    checkpoint: Checkpoint | None,
    options: TrainOptions,
    device: torch.device,
    *,
    base_model: str,
) -> Weights:
    """The network of a run.

    Args:
        files: tokenizer and codec.
        config: sizes.
        checkpoint: the weights to start from; None: new ones.
        options: mode and LoRA's sizes.
        device: where it goes.
        base_model: what to call the weights that an adapter belongs to.

    Raises:
        CheckpointError, OutOfMemoryError: it cannot be loaded, or does not fit.
        UsageError: an unknown LoRA target.
    """
    if checkpoint is None:
        # Small, and not rounded: loading it casts it.
        network = new_network(config, seed=options.seed, device=device)
        return WholeModel(network, files, torch.float32)
    network = load_network(checkpoint, device=device)
    if options.mode == "lora":
        return AdaptedModel(network, files, checkpoint, options, base_model)
    return WholeModel(network, files, stored_dtype(checkpoint))


class WholeModel:
    """All weights are trained; they are stored as `dtype`."""

    def __init__(self, network: TrainableCSM, files: ModelFiles, dtype: torch.dtype) -> None:
        self.network = network
        self._files = files
        self._dtype = dtype
        self._layout = natural_layout(network.config)

    def state(self, network: TrainableCSM) -> Mapping[str, torch.Tensor]:
        return network.state_dict()

    def write(self, network: TrainableCSM, folder: Path) -> None:
        write_model(
            folder, network.state_dict(), network.config, self._files, layout=self._layout, dtype=self._dtype
        )

    def results(self, folder: RunFolder) -> Iterator[Path | Note]:
        if self._layout == "transformers":
            link_folder(folder.best, folder.transformers)
            yield folder.transformers
            return
        link_folder(folder.best, folder.model)
        yield folder.model
        if has_mimi(self._files):
            state = read_published(find_checkpoint(folder.best))
            yield from _write_transformers(folder, state, self.network.config, self._files, self._dtype)


class AdaptedModel:
    """LoRA adapters are trained, the base model stays as it is."""

    def __init__(
        self,
        network: TrainableCSM,
        files: ModelFiles,
        checkpoint: Checkpoint,
        options: TrainOptions,
        base_model: str,
    ) -> None:
        self.network = network
        self._files = files
        self._checkpoint = checkpoint
        self._base_model = base_model
        is_bf16 = options.dtype == "bfloat16" or (
            options.dtype == "auto" and network.device.type == "cuda" and torch.cuda.is_bf16_supported()
        )
        # Autocast would cast the matrices for every product anyway.
        self._spec = add_lora(network, options, frozen=torch.bfloat16 if is_bf16 else None)

    def state(self, network: TrainableCSM) -> Mapping[str, torch.Tensor]:
        return adapted_state(network, self._spec)

    def write(self, network: TrainableCSM, folder: Path) -> None:
        write_adapter(folder, network, self._spec, base_model=self._base_model)

    def results(self, folder: RunFolder) -> Iterator[Path | Note]:
        link_folder(folder.best, folder.adapter)
        yield folder.adapter
        base = read_published(self._checkpoint)
        dtype = base["codebook0_head.weight"].dtype
        # Summed in float32, and rounded once.
        config = self._checkpoint.config
        learnt = read_adapter(find_adapter(folder.adapter), config)
        if has_mimi(self._files):
            write_peft(folder.adapter_peft, learnt, config, base_model=self._base_model)
            yield folder.adapter_peft
        merged = apply_adapter({name: tensor.float() for name, tensor in base.items()}, learnt)
        del base
        if natural_layout(config) == "original":
            write_model(folder.model, merged, config, self._files, layout="original", dtype=dtype)
            yield folder.model
        if has_mimi(self._files):
            yield from _write_transformers(folder, merged, config, self._files, dtype)


def stored_dtype(checkpoint: Checkpoint) -> torch.dtype:
    """In which a checkpoint keeps its matrices."""
    [head] = [
        part
        for recipe in recipes(checkpoint.config, checkpoint.layout)
        for part in recipe.parts
        if recipe.target == "codebook0_head.weight"
    ]
    with open_weights(checkpoint) as source:
        name = next(name for name in head.names if source.shape(name) is not None)
        return source.get(name).dtype


def has_mimi(files: ModelFiles) -> bool:
    """Whether the model's codec has a place in transformers."""
    return files.codec_config is None or read_config(files.codec_config).get("codec") == "mimi"


def _write_transformers(
    folder: RunFolder,
    state: Mapping[str, torch.Tensor],
    config: ModelConfig,
    files: ModelFiles,
    dtype: torch.dtype,
) -> Iterator[Path | Note]:
    notice = write_model(folder.transformers, state, config, files, layout="transformers", dtype=dtype)
    if notice:
        yield Note(notice)
    yield folder.transformers


def link_folder(source: Path, target: Path) -> None:
    """The files of `source` in `target` too, without taking their space twice where the disk can do that.

    Raises:
        OutputError: it cannot be done.
    """
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(source.iterdir()):
            new = target / path.name
            if new.exists() and new.samefile(path):
                continue
            temporary = target / f".{path.name}.part"
            temporary.unlink(missing_ok=True)
            try:
                os.link(path, temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(path, temporary)
            temporary.replace(new)
    except OSError as error:
        raise output_error(target, error) from error
