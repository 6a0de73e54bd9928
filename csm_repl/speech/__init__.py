"""Turns to sound: what a turn hears, how it is split, its frames, and its samples."""

from csm_repl.speech.pieces import ceiling_frames, room_frames, split_turn
from csm_repl.speech.planner import Heard, PlannedContext, Planner
from csm_repl.speech.request import (
    Context,
    ContextPlan,
    Cue,
    FixedContext,
    TakeTimings,
    TurnPiece,
    TurnRequest,
    TurnResult,
)
from csm_repl.speech.speech import FrameMade, Sound, Speech, SpeechEvent, TurnFailed, TurnOver
from csm_repl.speech.stages import MakeStage, Stage, tail_trimmer

__all__ = [
    "Context",
    "ContextPlan",
    "Cue",
    "FixedContext",
    "FrameMade",
    "Heard",
    "MakeStage",
    "PlannedContext",
    "Planner",
    "Sound",
    "Speech",
    "SpeechEvent",
    "Stage",
    "TakeTimings",
    "TurnFailed",
    "TurnOver",
    "TurnPiece",
    "TurnRequest",
    "TurnResult",
    "ceiling_frames",
    "room_frames",
    "split_turn",
    "tail_trimmer",
]
