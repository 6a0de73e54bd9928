"""Inference: prompt layout, sampling, prefix cache, frames."""

from csm_repl.engine.ceiling import ceiling_seconds, expected_seconds
from csm_repl.engine.engine import Engine, EngineStats, Generation, PromptTooLongError
from csm_repl.engine.prompt import audio_rows, end_row, prompt_rows, segment_rows, spoken_text, text_rows
from csm_repl.engine.sampling import Sampler, SamplingOptions

__all__ = [
    "Engine",
    "EngineStats",
    "Generation",
    "PromptTooLongError",
    "Sampler",
    "SamplingOptions",
    "audio_rows",
    "ceiling_seconds",
    "end_row",
    "expected_seconds",
    "prompt_rows",
    "segment_rows",
    "spoken_text",
    "text_rows",
]
