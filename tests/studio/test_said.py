"""What is said for what is typed, in the studio: echo, sidecar, the user's table, signs without tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from csm_repl.errors import LineError
from csm_repl.events import Echo, Notice, TurnDone
from tests.support.studio import MakeStudio, of_type, say


def test_the_echo_and_the_sidecar_have_both_what_was_typed_and_what_is_said(make_studio: MakeStudio) -> None:
    studio = make_studio()
    events = say(studio, "It costs $5 in 2024.||Fine, thanks!")
    [echo] = of_type(events, Echo)
    assert [turn.text for turn in echo.turns] == ["It costs $5 in 2024.", "Fine, thanks!"]
    assert [turn.said for turn in echo.turns] == ["It costs five dollars in twenty twenty-four.", ""]
    turns = of_type(events, TurnDone)
    meta = json.loads(turns[0].file.with_suffix(".json").read_text())
    assert (meta["text"], meta["said"]) == (
        "It costs $5 in 2024.",
        "It costs five dollars in twenty twenty-four.",
    )
    # The model hears of it what was said, and people read what was typed.
    entry = studio.conversation.turns[0]
    assert entry.text == "It costs $5 in 2024."
    assert entry.pieces[0].text == "It costs five dollars in twenty twenty-four."


def test_off_gives_the_text_to_the_model_as_typed(make_studio: MakeStudio) -> None:
    studio = make_studio()
    studio.set("normalize", "off")
    [echo] = of_type(say(studio, "It costs $5."), Echo)
    assert echo.turns[0].said == ""
    assert studio.conversation.turns[0].pieces[0].text == "It costs $5."


@pytest.mark.parametrize("text", ["😀", "[laughs]", "*sighs*", "Hello.||🎉🎉"])
def test_a_turn_of_which_nothing_is_left_is_named(make_studio: MakeStudio, text: str) -> None:
    studio = make_studio()
    with pytest.raises(LineError, match=f"Turn {1 + text.count('||')} has nothing"):
        say(studio, text)
    assert len(studio.conversation) == 0


def test_the_users_table_wins_and_is_read_again_when_it_changes(
    make_studio: MakeStudio, voices_folder: Path
) -> None:
    studio = make_studio()
    table = voices_folder / "pronounce.txt"

    def said(text: str) -> tuple[str, list[str]]:
        events = say(studio, text)
        [echo] = of_type(events, Echo)
        return echo.turns[0].said, [notice.text for notice in of_type(events, Notice)]

    assert said("The GPU and CSM.")[0] == "The G P U and C S M."
    table.write_text("# mine\nCSM = see ess em\nGPU = gee pee you\nno equals sign\n")
    text, notices = said("The GPU and CSM.")
    assert text == "The gee pee you and see ess em."
    assert any("pronounce.txt: line 4 has no '='" in notice for notice in notices)
    assert not any("pronounce" in notice for notice in said("CSM again.")[1])
    # As it stands: the rules have no say in it.
    table.write_text("CSM = C.S.M. No. 1\n")
    assert said("The CSM costs $5.")[0] == "The C.S.M. No. 1 costs five dollars."
    table.unlink()
    assert said("CSM.")[0] == "C S M."


def test_signs_that_the_model_has_no_tokens_for_are_said_once_a_line(
    make_studio: MakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make_studio()
    monkeypatch.setattr(
        studio.planner, "unwritable", lambda text: "".join(dict.fromkeys(c for c in text if ord(c) > 0x400))
    )
    events = say(studio, "Well 你好 there.||And 好 too.")
    notices = [event.text for event in of_type(events, Notice) if "no tokens" in event.text]
    assert notices == ["This model has no tokens for 你 好, and leaves them out."]
    with pytest.raises(LineError, match="Turn 2 has nothing that can be spoken: '你好'"):
        say(studio, "Hello.||你好")
