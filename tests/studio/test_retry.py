"""`$RETRY$` and `$UNDO$` after everything that can have come before them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csm_repl.errors import LineError, OutputError
from csm_repl.events import Event, LineDone, Notice, ScriptLine, Stopped, TurnDone, Withdrawn
from csm_repl.outputs.takes import LineFiles
from csm_repl.studio import Studio
from csm_repl.studio.reading import run_line
from tests.support.studio import MakeStudio, of_type, say


@pytest.fixture
def studio(make_studio: MakeStudio) -> Studio:
    return make_studio(max_seconds="0.3")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes every take of one text fail from now on."""

    def arm(text: str) -> None:
        save = LineFiles.save_turn

        def broken(self: LineFiles, samples: Any, rate: int, meta: Any, *rest: Any, **named: Any) -> Path:
            if meta["text"] == text:
                raise OutputError("The disk is full.", "Make room.")
            return save(self, samples, rate, meta, *rest, **named)

        monkeypatch.setattr(LineFiles, "save_turn", broken)

    return arm


def told(studio: Studio, text: str) -> list[Event]:
    """The events of a line that fails."""
    events: list[Event] = []
    with pytest.raises((LineError, OutputError)):
        events.extend(run_line(studio, text))
    return events


def stopped(studio: Studio, text: str, when: Callable[[Event], bool]) -> list[Event]:
    line, events = run_line(studio, text), []
    for event in line:
        events.append(event)
        if when(event):
            break
    events.append(line.throw(KeyboardInterrupt))  # type: ignore[attr-defined]
    return [*events, *line]


def texts(studio: Studio) -> list[tuple[str, str]]:
    return [(str(turn.number), turn.text) for turn in studio.conversation.turns]


def test_a_retry_withdraws_the_old_takes_once_there_is_a_new_one(studio: Studio) -> None:
    [first] = of_type(say(studio, "One.||Two."), LineDone)
    events = say(studio, "$RETRY$")
    assert [type(event) for event in events][-2:] == [LineDone, Withdrawn]
    assert of_type(events, Withdrawn) == [Withdrawn(tuple(turn.file for turn in first.turns))]
    assert texts(studio) == [("2.1", "One."), ("2.2", "Two.")]


def test_a_retry_that_fails_leaves_the_line_as_it_was(studio: Studio, failing: Callable[[str], None]) -> None:
    say(studio, "One.")
    say(studio, "Two.")
    used = studio.context_used
    failing("Two.")
    for _ in range(2):
        events = told(studio, "$RETRY$")
        assert not of_type(events, Withdrawn)
        assert [notice.text for notice in of_type(events, Notice)] == ["Line 2 stays as it was."]
        assert texts(studio) == [("1", "One."), ("2", "Two.")]
        assert studio.context_used == used


def test_a_retry_that_is_stopped_leaves_the_line_as_it_was(studio: Studio) -> None:
    say(studio, "One.||Two.")
    events = stopped(studio, "$RETRY$", lambda event: type(event).__name__ == "TurnStarted")
    assert of_type(events, Stopped)
    assert events[-1] == Notice("Line 1 stays as it was.")
    assert texts(studio) == [("1.1", "One."), ("1.2", "Two.")]
    say(studio, "$RETRY$")
    assert [number for number, _ in texts(studio)] == ["3.1", "3.2"]


def test_a_retry_that_is_stopped_after_a_turn_keeps_that_turn_in_place_of_the_line(studio: Studio) -> None:
    say(studio, "One.||Two.")
    events = stopped(studio, "$RETRY$", lambda event: isinstance(event, TurnDone))
    assert of_type(events, Withdrawn)
    assert texts(studio) == [("2.1", "One.")]
    say(studio, "$RETRY$")
    assert texts(studio) == [("3.1", "One."), ("3.2", "Two.")]


def test_after_a_failed_line_a_retry_does_not_touch_the_line_before(
    studio: Studio, failing: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(studio, "One.")
    failing("Bad.")
    told(studio, "Bad.")
    told(studio, "$RETRY$")
    assert texts(studio) == [("1", "One.")]
    monkeypatch.undo()
    events = say(studio, "$RETRY$")
    assert not of_type(events, Withdrawn)
    assert [text for _, text in texts(studio)] == ["One.", "Bad."]


def test_after_an_undo_the_line_before_is_the_last_one(studio: Studio) -> None:
    for text in ("One.||||Three.", "Last."):
        say(studio, text)
    assert [event.text for event in of_type(say(studio, "$UNDO$"), Notice)] == [
        "Dropped line 2 (1 turn) from the context. The files stay."
    ]
    turns = of_type(say(studio, "$RETRY$"), TurnDone)
    assert [(turn.number, turn.speaker) for turn in turns] == [("3.1", 0), ("3.3", 2)]
    say(studio, "$UNDO$")
    for command in ("$UNDO$", "$RETRY$"):
        with pytest.raises(LineError):
            say(studio, command)


def test_after_a_clear_there_is_nothing_to_do_again(studio: Studio) -> None:
    say(studio, "One.")
    say(studio, "$CLEAR$")
    for command in ("$UNDO$", "$RETRY$"):
        with pytest.raises(LineError):
            say(studio, command)


def test_after_a_load_the_last_saved_line_is_made_again(studio: Studio) -> None:
    say(studio, "$SWAP$")
    say(studio, "One.||Two.0")
    say(studio, "$SAVE talk$")
    say(studio, "Something else.")
    say(studio, "$LOAD talk$")
    turns = of_type(say(studio, "$RETRY$"), TurnDone)
    assert [(turn.text, turn.speaker) for turn in turns] == [("One.", 1), ("Two.", 1)]
    assert [text for _, text in texts(studio)] == ["One.", "Two."]


def test_a_take_says_where_its_line_was_read_and_so_does_its_retry(studio: Studio) -> None:
    place = {"file": "talk.txt", "line": 12}
    made = of_type(run_line(studio, "One.||Two.", ScriptLine("talk.txt", 12)), LineDone)
    made += of_type(say(studio, "$RETRY$"), LineDone)
    for line in made:
        for file in (line.file, *(turn.file for turn in line.turns)):
            assert json.loads(file.with_suffix(".json").read_text())["script"] == place
    [typed] = of_type(say(studio, "Typed."), LineDone)
    assert json.loads(typed.file.with_suffix(".json").read_text())["script"] is None


@pytest.mark.parametrize("again", [[], ["$SAVE more$", "$LOAD more$"]])
def test_takes_of_this_run_leave_the_exports_after_they_were_saved_and_loaded(
    make_studio: MakeStudio, again: list[str]
) -> None:
    studio = make_studio(tracks=True)
    first, last = (of_type(say(studio, text), TurnDone) for text in ("One.", "Two.||Three."))
    for line in ["$SAVE talk$", "$LOAD talk$", *again]:
        say(studio, line)
    assert of_type(say(studio, "$UNDO$"), Withdrawn) == [Withdrawn(tuple(turn.file for turn in last))]
    (track,) = studio.finish()
    assert track.read_bytes() == first[0].file.read_bytes()
