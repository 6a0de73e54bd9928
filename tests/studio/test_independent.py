"""Lines of their own, one by one: they hear the voices, and no line before them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from csm_repl.events import Table, TurnDone
from csm_repl.studio import Studio
from csm_repl.studio.reading import run_line
from tests.support.studio import MakeStudio, of_type, say


@pytest.fixture
def independent(make_studio: MakeStudio) -> MakeStudio:
    return lambda **flags: make_studio(independent=True, **flags)


def test_an_independent_line_hears_the_voices_and_no_earlier_line(
    independent: Callable[..., Studio], make_studio: MakeStudio
) -> None:
    studio, ordinary = independent(), make_studio()
    lengths = [
        [
            of_type(say(each, text), TurnDone)[0].meta["context"]["prompt_positions"]
            for text in ("One.", "Two.")
        ]
        for each in (studio, ordinary)
    ]
    assert lengths[0][0] == lengths[0][1] == lengths[1][0] < lengths[1][1]


def test_the_turns_of_an_independent_line_hear_each_other(independent: Callable[..., Studio]) -> None:
    first, second = of_type(say(independent(), "One.||Two."), TurnDone)
    n_first = first.meta["context"]["prompt_positions"]
    # The second hears the first one's text, frames and closing frame, and its own text is as long.
    assert (
        second.meta["context"]["prompt_positions"] == n_first + len("[0]One.") + 2 + first.meta["frames"] + 1
    )


def test_an_independent_line_is_in_the_history_and_outside_the_context(
    independent: Callable[..., Studio],
) -> None:
    studio = independent()
    before = studio.context_used
    say(studio, "One.||Two.")
    say(studio, "Three.")
    turns = studio.conversation.turns
    assert [(str(turn.number), turn.text, turn.in_context) for turn in turns] == [
        ("1.1", "One.", False), ("1.2", "Two.", False), ("2", "Three.", False),
    ]  # fmt: skip
    assert studio.context_used == before
    [history] = of_type(say(studio, "$HISTORY$"), Table)
    assert [row["in_context"] for row in history.records if not row["reference"]] == [False] * 3


def test_a_line_takes_all_its_seeds_before_it_is_spoken(independent: Callable[..., Studio]) -> None:
    studio = independent(seed="10")
    events = run_line(studio, "One.||Two.||Three.")
    while not isinstance(next(events), TurnDone):
        pass
    events.close()  # type: ignore[attr-defined]
    [turn] = of_type(say(studio, "Next."), TurnDone)
    assert turn.seed == 13


def test_retry_speaks_an_independent_line_again(independent: Callable[..., Studio]) -> None:
    studio = independent()
    say(studio, "One.||Two.")
    say(studio, "$RETRY$")
    assert [turn.text for turn in studio.conversation.turns] == ["One.", "Two."]
