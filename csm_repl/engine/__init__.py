"""Inference: prompt layout, sampling, prefix cache, frames; takes one by one or side by side."""

from csm_repl.engine.batch import BatchEngine, BatchItem, BatchRun, RowEnded, RowFrame, RowGeneration
from csm_repl.engine.ceiling import ceiling_seconds, expected_seconds
from csm_repl.engine.engine import Engine, EngineStats, Generation, PromptTooLongError, new_sampler
from csm_repl.engine.graphs import AnyEngine, open_batch_engine, open_engine
from csm_repl.engine.prompt import audio_rows, end_row, prompt_rows, segment_rows, spoken_text, text_rows
from csm_repl.engine.sampling import Sampler, SamplingOptions

__all__ = [
    "AnyEngine",
    "BatchEngine",
    "BatchItem",
    "BatchRun",
    "Engine",
    "EngineStats",
    "Generation",
    "PromptTooLongError",
    "RowEnded",
    "RowFrame",
    "RowGeneration",
    "Sampler",
    "SamplingOptions",
    "audio_rows",
    "ceiling_seconds",
    "end_row",
    "expected_seconds",
    "new_sampler",
    "open_batch_engine",
    "open_engine",
    "prompt_rows",
    "segment_rows",
    "spoken_text",
    "text_rows",
]
