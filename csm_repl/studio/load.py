"""From settings to a studio that is ready to speak."""

from __future__ import annotations

import time
from collections.abc import Callable

from csm_repl.codec import load_codec
from csm_repl.engine import open_batch_engine, open_engine
from csm_repl.errors import HubError, OutOfMemoryError, UsageError
from csm_repl.model import native
from csm_repl.model.builtin import BUILTIN_MODEL, builtin_folder
from csm_repl.model.checkpoint import find_checkpoint, load_csm
from csm_repl.model.config import ModelConfig
from csm_repl.model.device import choose_placement, less_memory, out_of_memory
from csm_repl.model.hub import ModelFiles, find_model
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.session.takes import TakeFolder
from csm_repl.settings import Settings
from csm_repl.studio.metadata import ModelInfo
from csm_repl.studio.studio import Studio
from csm_repl.voices import PrepareOptions, VoiceFolder, WhisperTranscriber, default_cache_dir

__all__ = ["find_wanted_model", "open_studio", "open_voices", "with_recommended_sampling"]

Say = Callable[[str], None]


def open_studio(settings: Settings, *, say: Say = lambda _: None) -> Studio:
    """Loads everything that speaking needs. The voices' clips are taken up with the first refresh.

    Args:
        settings: what to load and where.
        say: receives a sentence before what takes time.

    Raises:
        UsageError: the output folder cannot be written, or `compile` without a CUDA device.
        DeviceError: the chosen device is missing, its memory too small, or it runs no quantised weights.
        ModelError: the model is not there or not usable.
    """
    if settings.quiet:
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
    takes = TakeFolder(settings.output)
    takes.check_writable()
    placement = choose_placement(settings.device, settings.dtype, settings.quantize)
    if placement.reason:
        say(placement.reason)
    if settings.compile and placement.device.type != "cuda":
        raise UsageError(
            f"--compile is for CUDA devices, and the device is {placement.device}.",
            "Leave it out, or use --device cuda.",
        )
    files, unavailable = find_wanted_model(settings, say=say)
    if unavailable is not None:
        say(
            f"The small built-in voice speaks, because CSM-1B is not here: {unavailable} "
            f"--model {BUILTIN_MODEL} chooses the built-in voice without this notice."
        )
    checkpoint = find_checkpoint(files.folder)
    settings = with_recommended_sampling(settings, checkpoint.config)
    # A wrong tokenizer or codec is found in a moment; loading the weights takes many.
    tokenizer = Tokenizer(files.tokenizer, vocab_size=checkpoint.config.text_vocab_size)
    started = time.perf_counter()
    if settings.native and native.kernels_exist(placement.device, placement.dtype):
        _prepare_kernels(say)
    say(f"Loading {files.name} ({placement.numbers} on {placement.device}).")
    cache_dir = default_cache_dir()
    try:
        codec = load_codec(
            files.codec,
            files.codec_config,
            n_codebooks=checkpoint.config.n_codebooks,
            device=placement.device,
        )
        model = load_csm(
            checkpoint,
            device=placement.device,
            dtype=placement.dtype,
            quantize=placement.quantize,
            cache_dir=cache_dir if settings.weight_cache else None,
            native=settings.native,
        )
        engine = open_engine(model, compile=settings.compile, cache_dir=cache_dir, say=say)
        batch_engine = None
        if settings.batch > 1:
            batch_engine = open_batch_engine(
                model, settings.batch, compile=settings.compile, cache_dir=cache_dir, say=say
            )
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"The model does not fit into the memory of {placement.device}.",
            less_memory(placement.device),
        ) from error
    say(f"Ready in {time.perf_counter() - started:.1f} s.")
    return Studio(
        engine=engine,
        codec=codec,
        tokenizer=tokenizer,
        voices=_voices(settings, device=str(placement.device), encode=codec.encode, codec_id=codec.id),
        takes=takes,
        settings=settings,
        model=ModelInfo(
            name=files.name,
            revision=files.revision,
            device=str(placement.device),
            dtype=placement.dtype_name,
            quantize=placement.quantize,
            n_parameters=checkpoint.n_parameters,
        ),
        batch_engine=batch_engine,
    )


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


def find_wanted_model(
    settings: Settings, *, offline: bool = False, say: Say = lambda _: None
) -> tuple[ModelFiles, HubError | None]:
    """The files of the model that the settings ask for.

    Without a choice of the user it is CSM-1B, or the built-in model where that cannot be had; then the
    second value says why. An explicit choice never falls back.
    """
    try:
        files = find_model(
            settings.model,
            revision=settings.revision,
            offline=offline or settings.offline,
            token=settings.hf_token,
            say=say,
        )
    except HubError as error:
        if settings.origin("model") != "default" or not builtin_folder().is_dir():
            raise
        return find_model(BUILTIN_MODEL), error
    return files, None


def with_recommended_sampling(settings: Settings, config: ModelConfig) -> Settings:
    """The model's own temperature and top-k, where the user chose none."""
    for name, value in (("temperature", config.temperature), ("top_k", config.top_k)):
        if value is not None and settings.origin(name) == "default":
            settings = settings.with_value(name, value, "the model")
    return settings


def open_voices(settings: Settings) -> VoiceFolder:
    """The voices' folder without a model: clips are checked, not encoded, and nothing is transcribed."""
    return _voices(settings, device="cpu", encode=None, codec_id="none")


def _voices(settings: Settings, *, device: str, encode, codec_id: str) -> VoiceFolder:  # type: ignore[no-untyped-def]
    transcriber = None
    if encode is not None:
        transcriber = WhisperTranscriber(settings.whisper_model, device, offline=settings.offline)
    return VoiceFolder(
        settings.references,
        options=PrepareOptions.from_settings(settings),
        encode=encode,
        codec_id=codec_id,
        transcriber=transcriber,
        cache_dir=default_cache_dir(),
    )
