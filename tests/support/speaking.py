"""A speech room on a tiny model, turns for it, and what came of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from csm_repl.engine import Engine
from csm_repl.loaded import LoadedModel
from csm_repl.speech import (
    Heard,
    MakeStage,
    PlannedContext,
    Planner,
    Sound,
    Speech,
    SpeechEvent,
    TurnOver,
    TurnPiece,
    TurnRequest,
    TurnResult,
)
from csm_repl.text.pauses import Pause
from tests.support.speech import ROUNDING

__all__ = ["Room", "Script", "alike", "sounds"]


@dataclass(frozen=True)
class Script:
    """A turn to be spoken, as a test writes it."""

    text: str
    seed: int = 0
    speaker: int = 0
    max_frames: int | None = None
    stages: tuple[MakeStage, ...] = ()
    n_pieces: int = 1
    """The text is said so many times."""
    pause_s: float | None = None
    """Silence before, between and after the pieces; None: there are no pauses."""


@dataclass
class Room:
    """A `Speech` of its own, and everything that it told."""

    model: LoadedModel
    n_slots: int = 1
    events: dict[int, list[SpeechEvent]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        self.speech = Speech(Engine(self.model.engine.model, self.n_slots), self.model.codec)
        self.planner = Planner(
            self.model.tokenizer,
            n_codebooks=self.speech.engine.n_codebooks,
            n_positions=self.speech.engine.max_positions,
            frame_rate=self.speech.codec.frame_rate,
        )

    def request(self, script: Script, heard: Heard | None = None) -> TurnRequest:
        ids = self.planner.ids(script.speaker, script.text)
        context = PlannedContext(
            self.planner, heard or Heard(()), script.speaker, frozenset({script.speaker}), min_room=1
        )
        pieces: list[TurnPiece | Pause] = [
            TurnPiece(f"{script.text} {n}", ids, 16, 12) for n in range(script.n_pieces)
        ]
        if script.pause_s is not None:
            pause = Pause(script.pause_s)
            pieces = [pause, *(each for piece in pieces for each in (piece, pause))]
        return TurnRequest(
            tuple(pieces), context, seed=script.seed, max_frames=script.max_frames, stages=script.stages
        )

    def submit(self, script: Script) -> int:
        return self.speech.submit(self.request(script))

    def step(self) -> list[SpeechEvent]:
        events = self.speech.step()
        for event in events:
            assert not any(isinstance(before, TurnOver) for before in self.events[event.turn])
            self.events[event.turn].append(event)
        return events

    def finish(self) -> None:
        while self.speech.n_open:
            self.step()

    def result(self, turn: int) -> TurnResult:
        """Of a turn that is over."""
        last = self.events[turn][-1]
        assert isinstance(last, TurnOver)
        return last.result

    def alone(self, script: Script) -> TurnResult:
        """What a room of its own makes of a turn."""
        room = Room(self.model)
        turn = room.submit(script)
        room.finish()
        return room.result(turn)


def alike(result: TurnResult, other: TurnResult) -> None:
    """The same turn, but for the rounding of what was decoded together."""
    assert torch.equal(result.codes, other.codes)
    torch.testing.assert_close(result.samples, other.samples, rtol=0, atol=ROUNDING)
    assert (result.cues, result.ended, result.n_pieces_out) == (other.cues, other.ended, other.n_pieces_out)
    assert [piece.text for piece in result.pieces] == [piece.text for piece in other.pieces]


def sounds(events: Iterable[Any]) -> torch.Tensor:
    """All samples of some events, joined."""
    return torch.cat([torch.zeros(0), *(event.samples for event in events if isinstance(event, Sound))])
