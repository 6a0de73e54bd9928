"""A model with all that speaking needs, opened in one way for everybody."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from csm_repl.codec import Codec, MimiCodec, load_codec
from csm_repl.engine import Engine, open_engine
from csm_repl.errors import OutOfMemoryError
from csm_repl.events import Say
from csm_repl.files.adapters import find_adapter
from csm_repl.files.checkpoint import CODEC_PREFIX, find_checkpoint
from csm_repl.files.config import ModelConfig
from csm_repl.files.hub import ModelFiles
from csm_repl.files.json_files import read_config
from csm_repl.files.text_front import open_front
from csm_repl.model.device import Placement, less_memory, numbers_text, out_of_memory
from csm_repl.model.layers import native
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.model.weights.adapters import read_adapter
from csm_repl.model.weights.convert import load_csm
from csm_repl.model.weights.tensors import get_tensor, open_weights

__all__ = ["LoadedModel", "ModelInfo", "open_codec", "open_model", "open_tokenizer"]


@dataclass(frozen=True)
class ModelInfo:
    """What to call a model in files and messages."""

    name: str
    revision: str | None
    device: str
    dtype: str
    quantize: str
    """What is in use: none, int8, fp8 or int4, and never auto."""
    n_parameters: int
    """Of backbone, depth decoder, embeddings and heads; the codec is not in it."""
    adapter: str | None = None
    """The name of the adapter that was added to the weights."""

    @property
    def numbers(self) -> str:
        """As users see it: `bfloat16`, or `bfloat16 with int8 weights`."""
        return numbers_text(self.dtype, self.quantize)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """An engine with its model, and the tokenizer and codec that belong to it."""

    engine: Engine
    codec: Codec
    tokenizer: Tokenizer
    config: ModelConfig
    info: ModelInfo


def open_tokenizer(files: ModelFiles, config: ModelConfig) -> Tokenizer:
    """Raises CheckpointError: it is missing or another model's."""
    front = open_front(files.folder)
    return Tokenizer(files.tokenizer, vocab_size=config.text_vocab_size, front=front)


def open_codec(files: ModelFiles, config: ModelConfig, device: torch.device) -> Codec:
    """Raises CheckpointError: it is missing, unknown, or another model's."""
    if files.codec is not None:
        return load_codec(files.codec, files.codec_config, n_codebooks=config.n_codebooks, device=device)
    sizes = read_config(files.folder / "config.json").get("codec_config") or {}
    with open_weights(find_checkpoint(files.folder)) as source:
        return MimiCodec.load_inside(
            files.folder,
            lambda name: get_tensor(source, CODEC_PREFIX + name),
            sizes,
            n_codebooks=config.n_codebooks,
            device=device,
        )


def open_model(
    files: ModelFiles,
    placement: Placement,
    *,
    adapter: Path | None = None,
    n_positions: int | None = None,
    n_slots: int = 1,
    compile: bool = False,
    native_kernels: bool = True,
    cache_dir: Path | None = None,
    weight_cache: bool = True,
    say: Say = lambda _: None,
) -> LoadedModel:
    """Loads a model.

    Args:
        files: where it lies.
        placement: device, dtype and quantisation.
        adapter: the folder of an adapter that is added to its weights, of csm-repl or of PEFT.
        n_positions: of the context; None: as many as it was trained with.
        n_slots: how many turns can be spoken side by side.
        compile: whether its blocks are compiled; for CUDA only.
        native_kernels: whether C makes the frames on a CPU, where there is a compiler.
        cache_dir: where converted weights and compiled code are kept.
        weight_cache: whether converted weights are.
        say: receives a sentence before what takes time.

    Raises:
        ModelError: the files are not usable.
        OutOfMemoryError: it does not fit into the device's memory.
    """
    checkpoint = find_checkpoint(files.folder)
    # A wrong tokenizer or codec is found in a moment; loading the weights takes many.
    tokenizer = open_tokenizer(files, checkpoint.config)
    learnt = None if adapter is None else read_adapter(find_adapter(adapter), checkpoint.config)
    started = time.perf_counter()
    if native_kernels and native.kernels_exist(placement.device, placement.dtype):
        _prepare_kernels(say)
    added = ""
    if learnt is not None:
        made_for = learnt.files.base_model
        added = f" with the adapter {learnt.files.name}" + (f", made for {made_for}," if made_for else "")
    say(f"Loading {files.name}{added} ({placement.numbers} on {placement.device}).")
    trained = checkpoint.config.max_positions
    if n_positions is not None and n_positions > trained:
        say(
            f"A context of {n_positions} positions is beyond the {trained} that this model was made for: "
            "it runs, and may speak worse the longer the conversation gets."
        )
    try:
        codec = open_codec(files, checkpoint.config, placement.device)
        model = load_csm(
            checkpoint,
            device=placement.device,
            dtype=placement.dtype,
            quantize=placement.quantize,
            adapter=learnt,
            n_positions=n_positions,
            cache_dir=cache_dir if weight_cache else None,
            native=native_kernels,
            say=say,
        )
        engine = open_engine(model, n_slots, compile=compile, cache_dir=cache_dir, say=say)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"The model does not fit into the memory of {placement.device}.",
            less_memory(placement.device),
        ) from error
    say(f"Ready in {time.perf_counter() - started:.1f} s.")
    info = ModelInfo(
        name=files.name,
        revision=files.revision,
        device=str(placement.device),
        dtype=placement.dtype_name,
        quantize=placement.quantize,
        n_parameters=checkpoint.n_parameters,
        adapter=None if learnt is None else learnt.files.name,
    )
    return LoadedModel(engine, codec, tokenizer, model.config, info)


def _prepare_kernels(say: Say) -> None:
    """Compiles the native kernels where that has not been done, and says what takes time or is missing."""
    if native.needs_compiling():
        say("Compiling the kernels for this CPU, once.")
    built = native.library()
    if built.library is None:
        say(
            f"{built.reason} PyTorch's kernels are used, which are slower. --no-native chooses them without "
            "this notice."
        )
