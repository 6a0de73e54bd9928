"""Planning is a function of values: it can be done twice, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from csm_repl.loaded import LoadedModel
from csm_repl.session.context import describe
from csm_repl.speech import ContextPlan, Heard, PlannedContext, Planner
from csm_repl.studio import Studio
from tests.support.speaking import Room, Script
from tests.support.studio import MakeStudio, say

TEXT = "What has to be said now."


@pytest.fixture
def studio(make_studio: MakeStudio, micro_checkpoint: Path) -> Studio:
    """One voice and three turns of a second in a context of 96 positions."""
    studio = make_studio(model=str(micro_checkpoint), max_seconds="0.8")
    (studio.voices.root / "reference1-anna.wav").unlink()
    for text in ("One.", "Two.", "Three."):
        say(studio, text)
    return studio


def heard_by(studio: Studio) -> Heard:
    return Heard(tuple(studio.voices.clips), tuple(studio.conversation.spans()))


def plan(studio: Studio, context: PlannedContext, room: int) -> ContextPlan:
    return context.plan([], studio.planner.ids(0, TEXT), None, room)


def facts(plan: ContextPlan) -> tuple[list[list[int]], tuple, frozenset]:
    return plan.prompt.tolist(), plan.dropped, plan.left_out


@pytest.mark.parametrize("room", [1, 20, 40, 90])
def test_planning_twice_gives_the_same_and_changes_nothing(studio: Studio, room: int) -> None:
    heard = heard_by(studio)
    context = PlannedContext(studio.planner, heard, 0, frozenset({0}))
    before = (heard.clips, heard.spans, heard.left_out, studio.conversation.kept, studio.context_used)
    first, second = (plan(studio, context, room) for _ in range(2))
    assert facts(first) == facts(second)
    assert len(first.prompt) <= studio.engine.max_positions
    assert context.heard is heard
    after = (heard.clips, heard.spans, heard.left_out, studio.conversation.kept, studio.context_used)
    assert after == before
    # Another planner of the same model has nothing to remember.
    fresh = Planner(
        studio.planner._tokenizer,
        n_codebooks=4,
        n_positions=studio.planner.n_positions,
        frame_rate=studio.codec.frame_rate,
    )
    assert facts(plan(studio, PlannedContext(fresh, heard, 0, frozenset({0})), room)) == facts(first)


def test_what_leaves_is_told_and_the_context_after_it_is_another_value(studio: Studio) -> None:
    heard = heard_by(studio)
    context = PlannedContext(studio.planner, heard, 0, frozenset({0}))
    found = plan(studio, context, 60)
    assert found.gone
    after = context.after(found)
    assert isinstance(after, PlannedContext)
    assert context.heard is heard
    assert len(heard.spans) > len(after.heard.spans)
    # What is gone leaves once: the next plan says nothing of it and has the same prompt.
    again = plan(studio, after, 60)
    assert torch.equal(again.prompt, found.prompt)
    assert not again.gone & found.gone


def test_a_plan_that_fits_lets_nothing_go(make_studio: MakeStudio) -> None:
    studio = make_studio()
    say(studio, "One.")
    context = PlannedContext(studio.planner, heard_by(studio), 0, frozenset({0}))
    found = plan(studio, context, 100)
    assert (found.dropped, found.left_out) == ((), frozenset())
    assert isinstance(context.after(found), PlannedContext)
    assert len(found.prompt) == studio.context_used + len(studio.planner.ids(0, TEXT))


def test_pieces_of_a_long_turn_that_leave_for_its_next_ones_are_no_news(micro: LoadedModel) -> None:
    result = Room(micro).alone(Script("A piece.", n_pieces=6))
    assert result.n_pieces_out > 0
    assert len(result.dropped) == result.n_pieces_out
    assert describe(result.dropped, (), {}) == ""
