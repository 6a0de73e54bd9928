"""From settings to a studio that is ready to speak."""

from __future__ import annotations

from csm_repl.errors import HubError, UsageError
from csm_repl.events import Say
from csm_repl.files.adapters import find_adapter
from csm_repl.files.builtin import BUILTIN_MODEL, builtin_folder
from csm_repl.files.config import ModelConfig
from csm_repl.files.hub import ModelFiles, find_model
from csm_repl.loaded import open_model
from csm_repl.model.device import choose_placement
from csm_repl.outputs.takes import TakeFolder
from csm_repl.paths import default_cache_dir
from csm_repl.settings import Settings
from csm_repl.studio.studio import Studio
from csm_repl.voices import PrepareOptions, VoiceFolder, WhisperTranscriber

__all__ = ["find_wanted_model", "open_studio", "open_voices", "with_recommended_sampling"]


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
    model = open_model(
        files,
        placement,
        adapter=settings.adapter,
        n_positions=settings.context,
        n_slots=settings.batch,
        compile=settings.compile,
        native_kernels=settings.native,
        cache_dir=default_cache_dir(),
        weight_cache=settings.weight_cache,
        say=say,
    )
    codec = model.codec
    return Studio(
        model=model,
        voices=_voices(settings, device=str(placement.device), encode=codec.encode, codec_id=codec.id),
        takes=takes,
        settings=with_recommended_sampling(settings, model.config),
    )


def find_wanted_model(
    settings: Settings, *, offline: bool = False, say: Say = lambda _: None
) -> tuple[ModelFiles, HubError | None]:
    """The files of the model that the settings ask for.

    Without a choice of the user it is the one that the adapter was trained on, or CSM-1B, or the built-in
    model where that cannot be had; then the second value says why. An explicit choice never falls back.
    """
    wanted = settings.model
    if settings.adapter is not None and settings.origin("model") == "default":
        wanted = find_adapter(settings.adapter).base()
    try:
        files = find_model(
            wanted,
            revision=settings.revision,
            offline=offline or settings.offline,
            token=settings.hf_token,
            say=say,
        )
    except HubError as error:
        if settings.adapter or settings.origin("model") != "default" or not builtin_folder().is_dir():
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
