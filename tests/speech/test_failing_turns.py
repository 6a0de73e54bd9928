"""A turn that cannot go on ends alone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from csm_repl.errors import LineError
from csm_repl.loaded import LoadedModel
from csm_repl.speech import ContextPlan, TurnFailed, TurnOver, TurnRequest
from tests.support.speaking import Room, Script, alike

ONE, TWO = Script("One.", 1), Script("Two.", 2)


class Unplannable:
    """A context that fails when it is planned."""

    min_room = 1

    def plan(self, *args: Any) -> ContextPlan:
        raise LineError("There is no room.")

    def after(self, plan: ContextPlan) -> Unplannable:
        return self


def with_context(request: TurnRequest, context: Any) -> TurnRequest:
    return TurnRequest(request.pieces, context, seed=request.seed)


def failed(room: Room, turn: int) -> TurnFailed:
    last = room.events[turn][-1]
    assert isinstance(last, TurnFailed)
    return last


@pytest.mark.parametrize("place", range(3))
def test_what_planning_raises_ends_its_own_turn(quick: LoadedModel, place: int) -> None:
    room, good = Room(quick, 3), [ONE, TWO]
    turns: list[int] = []
    for index in range(3):
        if index == place:
            bad = room.speech.submit(with_context(room.request(ONE), Unplannable()))
        else:
            turns.append(room.submit(good[len(turns)]))
    room.finish()
    assert str(failed(room, bad).error) == "There is no room."
    for turn, script in zip(turns, good, strict=True):
        alike(room.result(turn), room.alone(script))


def test_a_model_without_numbers_ends_only_the_turns_that_meet_it(quick: LoadedModel) -> None:
    room = Room(quick, 2)
    spoilt = set(room.planner.ids(0, "Bad words")) - set(room.planner.ids(0, "One."))
    table = quick.engine.model.text_embeddings
    before = table.clone()
    table[sorted(spoilt)] = math.nan
    try:
        bad, good = room.submit(Script("Bad words")), room.submit(ONE)
        room.finish()
        error = failed(room, bad).error
        assert isinstance(error, LineError)
        assert "NaN" in error.cause
        alike(room.result(good), room.alone(ONE))
        with pytest.raises(LineError, match="NaN"):
            list(room.speech.speak(room.request(Script("Bad words"))))
    finally:
        table.copy_(before)
    after = room.submit(Script("Bad words"))
    room.finish()
    assert isinstance(room.events[after][-1], TurnOver)


def test_a_failed_turn_can_still_be_stopped(quick: LoadedModel) -> None:
    room = Room(quick)
    turn = room.speech.submit(with_context(room.request(ONE), Unplannable()))
    room.speech._step()
    assert room.speech.n_open == 1
    result = room.speech.stop(turn)
    assert (result.ended, len(result.samples)) == ("interrupted", 0)
    assert [type(event) for event in room.speech.step()] == [TurnFailed]
    assert room.speech.n_open == 0
