"""`csm-repl doctor` and `csm-repl voices`: what is there and what is missing, without loading a model."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from csm_repl.errors import CsmReplError, ExitCode
from csm_repl.front.voice_list import voice_faults, voice_list
from csm_repl.settings import Settings, specs
from csm_repl.studio.commands import setting_text, voices_table
from csm_repl.terminal import show, show_json, tell

if TYPE_CHECKING:
    from csm_repl.model.device import Placement

__all__ = ["Finding", "examine", "run_doctor", "run_voices"]

Verdict = Literal["ok", "note", "problem"]
_PACKAGES = (
    "csm-repl",
    "torch",
    "torchaudio",
    "moshi",
    "huggingface_hub",
    "tokenizers",
    "openai-whisper",
    "pydub",
    "soundfile",
    "prompt_toolkit",
    "rich",
    "numpy",
)
_MARKS = {"ok": "ok", "note": "--", "problem": "!!"}


@dataclass(frozen=True)
class Finding:
    subject: str
    verdict: Verdict
    text: str
    exit_code: ExitCode = ExitCode.OK
    """What a problem means for a run."""


def run_doctor(settings: Settings) -> ExitCode:
    """Prints all findings; the exit code is that of the worst problem, as a run would meet it."""
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not settings.json and not (settings.quiet and finding.verdict != "problem"):
            show(f"{_MARKS[finding.verdict]}  {finding.subject:<12} {finding.text}")
    code = next((f.exit_code for f in findings if f.exit_code), ExitCode.OK)
    if settings.json:
        rows = [{"subject": f.subject, "verdict": f.verdict, "text": f.text} for f in findings]
        show_json({"ok": code == ExitCode.OK, "findings": rows}, indent=1)
    elif not settings.quiet:
        show("Everything is there." if code == ExitCode.OK else "Fix what is marked !! first.")
    return code


def run_voices(settings: Settings) -> ExitCode:
    """Lists the references folder; exit code 1 if it or a clip in it cannot be used."""
    from csm_repl.front.printers import JsonPrinter
    from csm_repl.studio.open import open_voices

    voices = open_voices(settings)
    voices.refresh()
    whisper = settings.whisper_model != "off"
    if settings.json:
        if voices.problem:
            tell(voices.problem)
        JsonPrinter(sys.stdout, sys.stderr).handle(voices_table(voices), 0)
    else:
        # Elsewhere than on a terminal nothing gives way, for whoever pages or searches.
        size = shutil.get_terminal_size()
        height = size.lines - 1 if sys.stdout.isatty() else None
        for line in voice_list(voices, whisper=whisper, width=size.columns, height=height):
            show(line)
    bad = [clip for clip in voices.unusable if not (clip.needs_words and whisper)]
    return ExitCode.SOME_LINES_FAILED if bad or voices.problem else ExitCode.OK


def examine(settings: Settings) -> Iterator[Finding]:
    """Looks at everything that a run needs, in the order in which a run needs it."""
    yield from _software()
    yield from _device(settings)
    yield from _output(settings)
    yield from _model(settings)
    yield from _voices(settings)
    yield from _sound()
    yield from _settings(settings)


def _software() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.platform()}")
    missing, found = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    yield Finding("packages", "ok", ", ".join(found))
    if missing:
        yield Finding(
            "packages",
            "problem",
            f"missing: {', '.join(missing)}. Install csm-repl again: pip install csm-repl",
            ExitCode.USAGE,
        )


def _device(settings: Settings) -> Iterator[Finding]:
    import torch

    from csm_repl.model.device import choose_placement, free_bytes

    try:
        placement = choose_placement(settings.device, settings.dtype, settings.quantize)
    except CsmReplError as error:
        yield Finding("device", "problem", str(error), error.exit_code)
        return
    reason = f" ({placement.reason})" if placement.reason else ""
    yield Finding("device", "ok", f"{placement.device}, {placement.numbers}{reason}")
    if placement.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(placement.device)
        what = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB GPU memory free"
        yield _memory(free, what)
    else:
        yield _kernels(settings, placement)
        available = free_bytes(torch.device("cpu")) or _physical_memory()
        if available is not None:
            yield _memory(available, f"{available / 2**30:.1f} GiB available, {os.cpu_count()} CPU cores")


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _kernels(settings: Settings, placement: Placement) -> Finding:
    from csm_repl.model.layers import native

    if not settings.native or not native.kernels_exist(placement.device, placement.dtype):
        return Finding("kernels", "ok", "PyTorch's")
    built = native.library()
    if built.library is not None:
        return Finding("kernels", "ok", built.reason)
    return Finding(
        "kernels",
        "note",
        f"{built.reason} Frames are slower without them; install gcc (Debian: apt install gcc)",
    )


def _memory(n_bytes: int, text: str) -> Finding:
    # CSM-1B in bf16 is 3.2 GB of weights, Mimi 0.4, caches and work space 0.4.
    if n_bytes < 4.2 * 2**30:
        return Finding("memory", "note", f"{text}; CSM-1B in bfloat16 needs about 4.2 GiB")
    return Finding("memory", "ok", text)


def _output(settings: Settings) -> Iterator[Finding]:
    from csm_repl.outputs.takes import TakeFolder

    try:
        TakeFolder(settings.output).check_writable()
    except CsmReplError as error:
        yield Finding("output", "problem", str(error), error.exit_code)
        return
    free = shutil.disk_usage(settings.output).free
    yield Finding("output", "ok", f"{settings.output}, {free / 1e9:.0f} GB free")


def _model(settings: Settings) -> Iterator[Finding]:
    from csm_repl.files.checkpoint import find_checkpoint
    from csm_repl.files.hub import hub_login
    from csm_repl.studio.open import find_wanted_model

    yield Finding("hub", "ok", hub_login(settings.hf_token))
    try:
        # Offline: a check-up must not start a download.
        files, unavailable = find_wanted_model(settings, offline=True)
        checkpoint = find_checkpoint(files.folder)
    except CsmReplError as error:
        yield Finding("model", "problem", str(error), error.exit_code)
        return
    if unavailable is not None:
        yield Finding("CSM-1B", "note", f"{unavailable} Until then the built-in voice speaks.")
    size = sum(path.stat().st_size for path in checkpoint.weights) / 1e9
    where = f"revision {files.revision}" if files.revision else str(files.folder)
    yield Finding("model", "ok", f"{files.name}, {checkpoint.layout} layout, {size:.2f} GB, {where}")
    yield Finding("codec", "ok", files.codec.name if files.codec else "inside the model's weights")
    yield Finding("tokenizer", "ok", str(files.tokenizer.name))


def _voices(settings: Settings) -> Iterator[Finding]:
    from csm_repl.studio.open import open_voices

    voices = open_voices(settings)
    voices.refresh()
    if voices.problem:
        yield Finding("voices", "note", voices.problem)
    elif voices.clips:
        names = ", ".join(f"{n} {name}" if name else str(n) for n, name in voices.speakers.items())
        yield Finding("voices", "ok", f"{settings.references}: {names}")
    else:
        yield Finding(
            "voices", "note", f"no usable clips in {settings.references}; speakers get random voices"
        )
    for text in voice_faults(voices, whisper=settings.whisper_model != "off"):
        yield Finding("voices", "note", text)


def _sound() -> Iterator[Finding]:
    from csm_repl.audio.player import output_device

    name, problem = output_device()
    yield Finding("playback", "note" if problem else "ok", problem or name)
    ffmpeg = shutil.which("ffmpeg")
    text = ffmpeg or "not found: .m4a, .aac and .webm clips cannot be read (the other formats can)"
    yield Finding("ffmpeg", "ok" if ffmpeg else "note", text)


def _settings(settings: Settings) -> Iterator[Finding]:
    for item in specs():
        origin = settings.origin(item.name)
        if origin != "default":
            value = getattr(settings, item.name)
            shown = "(set)" if item.name == "hf_token" else setting_text(item, value)
            yield Finding("setting", "ok", f"{item.dashed} = {shown} (from {origin})")
    n_default = sum(settings.origin(item.name) == "default" for item in specs())
    yield Finding("setting", "ok", f"{n_default} others have their defaults")
