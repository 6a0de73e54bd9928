"""What is written beside a take, and what the model is called."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from csm_repl.events import ScriptLine, TurnDone
from csm_repl.loaded import ModelInfo
from csm_repl.settings import Settings, max_seconds_text
from csm_repl.speech import TakeTimings
from csm_repl.text.normalise import Replacement

__all__ = ["joined_meta", "turn_meta", "versions"]


@functools.cache
def versions() -> dict[str, str]:
    """Installed versions of what shapes the sound."""
    found = {}
    for name in ("csm-repl", "torch", "moshi"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def turn_meta(
    *,
    text: str,
    said: str,
    replacements: Sequence[Replacement],
    speaker: int,
    voice: str,
    seed: int,
    settings: Settings,
    model: ModelInfo,
    ended: str,
    seconds: float,
    n_frames: int,
    timings: TakeTimings,
    script: ScriptLine | None,
    part: str,
) -> dict[str, Any]:
    """The JSON beside a take; with it the take can be made again."""
    return {
        "text": text,
        "said": said,
        "replacements": list(map(asdict, replacements)),
        "speaker": speaker,
        "voice": voice,
        "seed": seed,
        "temperature": settings.temperature,
        "top_k": settings.top_k,
        "max_seconds": max_seconds_text(settings.max_seconds),
        "trim_tail": settings.trim_tail,
        "ended": ended,
        "seconds": round(seconds, 4),
        "frames": n_frames,
        **_model(model),
        "context": {"prompt_positions": timings.n_prompt, "prefilled_positions": timings.n_prefilled},
        "timings": {
            "elapsed_s": round(timings.elapsed_s, 4),
            "first_audio_s": round(timings.first_audio_s, 4),
            "prefill_s": round(timings.prefill_s, 4),
            "real_time_factor": round(timings.elapsed_s / seconds, 4) if seconds else None,
        },
        **_script(script, part),
        "created": _now(),
    }


def joined_meta(
    turns: Sequence[TurnDone], model: ModelInfo, script: ScriptLine | None, part: str
) -> dict[str, Any]:
    """The JSON beside a joined line."""
    return {
        "text": " || ".join(turn.text for turn in turns),
        "seconds": round(sum(turn.seconds for turn in turns), 4),
        **_model(model),
        "turns": [
            {
                "file": turn.file.name,
                "number": turn.number,
                "text": turn.text,
                "speaker": turn.speaker,
                "voice": turn.voice,
                "seed": turn.seed,
                "ended": turn.ended,
                "seconds": round(turn.seconds, 4),
            }
            for turn in turns
        ],
        **_script(script, part),
        "created": _now(),
    }


def _script(script: ScriptLine | None, part: str) -> dict[str, Any]:
    return {
        "script": {"file": script.file, "line": script.line} if script is not None else None,
        "part": part or None,
    }


def _model(model: ModelInfo) -> dict[str, Any]:
    return {
        "model": model.name,
        "revision": model.revision,
        "adapter": model.adapter,
        "device": model.device,
        "dtype": model.dtype,
        "quantize": model.quantize,
        "versions": versions(),
    }


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
