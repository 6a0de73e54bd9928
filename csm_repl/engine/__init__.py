"""Inference: prompt layout, sampling, prefix cache, and one engine that makes the frames of all takes."""

from csm_repl.engine.core import Engine, EngineStats
from csm_repl.engine.graphs import open_engine
from csm_repl.engine.prompt import (
    build_prompt,
    end_position,
    frame_positions,
    segment_positions,
    spoken_text,
    text_positions,
)
from csm_repl.engine.request import Ended, Frame, PromptTooLongError, TakeEnded, TakeRequest
from csm_repl.engine.sampling import SamplingOptions, TakeNoise
from csm_repl.engine.take import Generation

__all__ = [
    "Ended",
    "Engine",
    "EngineStats",
    "Frame",
    "Generation",
    "PromptTooLongError",
    "SamplingOptions",
    "TakeEnded",
    "TakeNoise",
    "TakeRequest",
    "build_prompt",
    "end_position",
    "frame_positions",
    "open_engine",
    "segment_positions",
    "spoken_text",
    "text_positions",
]
