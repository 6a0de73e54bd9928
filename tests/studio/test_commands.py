from __future__ import annotations

import json
from pathlib import Path

import pytest

from csm_repl.errors import LineError
from csm_repl.events import LineDone, Notice, PlayFile, Quit, Table, TurnDone
from csm_repl.settings import specs
from csm_repl.studio import Studio
from csm_repl.studio.commands import COMMANDS
from csm_repl.studio.reading import bare_word_hint
from tests.support.studio import MakeStudio, of_type, say


@pytest.fixture
def studio(make_studio: MakeStudio) -> Studio:
    return make_studio()


def _table(studio: Studio, line: str) -> Table:
    [table] = of_type(say(studio, line), Table)
    return table


def _notice(studio: Studio, line: str) -> str:
    return " ".join(notice.text for notice in of_type(say(studio, line), Notice))


def test_the_registry_has_the_products_commands() -> None:
    wanted = "CLEAR SWAP BACK HISTORY EXIT HELP VOICES STATUS SET UNDO RETRY PLAY SAVE LOAD"
    assert set(COMMANDS) == set(wanted.split())


def test_help_lists_the_registry(studio: Studio) -> None:
    assert [row[0] for row in _table(studio, "$HELP$").rows] == [item.usage for item in COMMANDS.values()]


@pytest.mark.parametrize("line", ["$CLEAR$", "$clear$", "  $Clear$  "])
def test_clear_works_in_any_case_and_keeps_references_and_primary(studio: Studio, line: str) -> None:
    say(studio, "$SWAP$")
    say(studio, "Hello.")
    assert "1 turn" in _notice(studio, line)
    assert len(studio.conversation) == 0
    assert studio.primary == 1
    assert len(studio.voices.clips) == 2


@pytest.mark.parametrize("line", ["$FOO$", "$CLAER$", "$hist$", "$CLEAR", "EXIT$", "Hello.||$CLEAR$"])
def test_a_mistyped_command_is_never_spoken(studio: Studio, line: str) -> None:
    with pytest.raises(LineError):
        say(studio, line)
    assert len(studio.conversation) == 0


def test_a_mistyped_command_is_answered_with_the_nearest_name(studio: Studio) -> None:
    with pytest.raises(LineError, match=r"Did you mean \$HISTORY\$"):
        say(studio, "$HISTROY$")


def test_swap_and_back_say_whose_voice_it_is(studio: Studio) -> None:
    assert "voice of anna" in _notice(studio, "$SWAP$")
    assert "no reference" in _notice(studio, "$SWAP$")
    assert "voice of anna" in _notice(studio, "$BACK$")


def test_back_never_goes_below_0(studio: Studio) -> None:
    _notice(studio, "$BACK$")
    assert studio.primary == 0


def test_history_has_references_first_then_every_turn_of_every_line(studio: Studio) -> None:
    say(studio, "One.||Two.")
    say(studio, "Three.")
    records = _table(studio, "$HISTORY$").records
    assert [record["text"] for record in records] == [
        "The first voice.", "The second voice.", "One.", "Two.", "Three.",
    ]  # fmt: skip
    assert [record["number"] for record in records] == [None, None, "1.1", "1.2", "2"]
    assert [Path(record["file"]).name for record in records[2:]] == ["001-1.wav", "001-2.wav", "002.wav"]
    assert all(Path(record["file"]).exists() for record in records)


def test_voices_shows_usable_and_unusable_clips(studio: Studio, voices_folder: Path) -> None:
    (voices_folder / "reference2.wav").write_bytes(b"")
    records = _table(studio, "$VOICES$").records
    assert [record["usable"] for record in records] == [True, True, False]
    assert records[2]["problem"]


def test_status_shows_settings_with_their_origin(studio: Studio) -> None:
    say(studio, "$SET temperature 0.5$")
    rows = {row[0]: row for row in _table(studio, "$STATUS$").rows}
    assert rows["temperature"] == ("temperature", "0.5", "$SET$")
    assert rows["seed"] == ("seed", "1", "--seed")
    assert rows["top-k"] == ("top-k", "50", "default")
    assert "/ 2048" in rows["context"][1]


def _context(studio: Studio) -> str:
    return next(row[1] for row in _table(studio, "$STATUS$").rows if row[0] == "context")


def test_status_shows_the_context_as_it_is_after_a_clear(studio: Studio) -> None:
    references = _context(studio)
    assert references == f"{studio.context_used} / 2048 positions"
    say(studio, "Hello.")
    assert _context(studio) != references
    say(studio, "$CLEAR$")
    assert _context(studio) == references


def test_set_says_old_and_new_value_and_takes_effect(studio: Studio) -> None:
    assert _notice(studio, "$SET max-seconds 0.08$") == "max-seconds: auto -> 0.08"
    [turn] = of_type(say(studio, "This take will be short."), TurnDone)
    assert turn.meta["frames"] == 1


@pytest.mark.parametrize(
    "line",
    [
        "$SET temperature hot$",
        "$SET tempo 3$",
        "$SET device cpu$",
        "$SET top-k 0$",
    ],
)
def test_set_with_bad_arguments_changes_nothing(studio: Studio, line: str) -> None:
    before = studio.settings
    with pytest.raises(LineError) as caught:
        say(studio, line)
    assert caught.value.remedy
    assert studio.settings == before


def test_set_without_a_value_tells_the_present_one(studio: Studio) -> None:
    assert _notice(studio, "$SET temperature$").startswith("temperature is 0.9 (default)")


def test_set_alone_lists_the_live_settings_with_value_and_origin(studio: Studio) -> None:
    say(studio, "$SWAP$")
    say(studio, "$SET temperature 0.5$")
    rows = {row[0]: row[1:3] for row in _table(studio, "$SET$").rows}
    assert rows["temperature"] == ("0.5", "$SET$")
    assert rows["speaker"] == ("1", "$SWAP$")
    assert rows["top-k"] == ("50", "default")
    assert set(rows) == {item.dashed for item in specs() if item.live}


def test_speakers_have_an_end_upwards_too(studio: Studio) -> None:
    with pytest.raises(LineError, match="speaker must be between 0 and 999"):
        say(studio, f"$SET speaker {10**30}$")
    say(studio, "$SET speaker 999$")
    assert "already 999, the last one" in _notice(studio, "$SWAP$")
    assert studio.primary == 999
    with pytest.raises(LineError, match=r"Turn 2 would be spoken by speaker 1000, and the last one is 999"):
        say(studio, "One.||Two.")
    assert studio.takes.folder is None


@pytest.mark.parametrize("primary", [10**30, -1, "1", True, None, [1]])
def test_a_saved_primary_speaker_that_is_none_is_passed_over(studio: Studio, primary: object) -> None:
    say(studio, "$SWAP$")
    say(studio, "One.")
    say(studio, "$SAVE talk$")
    file = studio.takes.root / "saved" / "talk" / "session.json"
    data = json.loads(file.read_text())
    data["header"].update(primary=primary, model=["x" * 10_000])
    file.write_text(json.dumps(data))
    say(studio, "$BACK$")
    told = _notice(studio, "$LOAD talk$")
    assert studio.primary == 0
    assert len(told) < 300


def test_set_seed_restarts_the_count(studio: Studio) -> None:
    say(studio, "$SET seed 500$")
    assert [turn.seed for turn in of_type(say(studio, "A.||B."), TurnDone)] == [500, 501]


def test_undo_drops_the_last_lines_turns_and_files_stay(studio: Studio) -> None:
    say(studio, "One.")
    [done] = of_type(say(studio, "Two.||Three."), LineDone)
    _notice(studio, "$UNDO$")
    assert [turn.text for turn in studio.conversation.turns] == ["One."]
    assert done.file.exists()


def test_undo_of_nothing_is_an_error(studio: Studio) -> None:
    with pytest.raises(LineError):
        say(studio, "$UNDO$")


def test_retry_makes_the_last_line_again_with_new_seeds_and_new_files(studio: Studio) -> None:
    [first] = of_type(say(studio, "One.||Two."), LineDone)
    [again] = of_type(say(studio, "$RETRY$"), LineDone)
    assert [turn.text for turn in again.turns] == ["One.", "Two."]
    assert {turn.seed for turn in again.turns}.isdisjoint(turn.seed for turn in first.turns)
    assert first.file.exists()
    assert again.file != first.file
    assert len(studio.conversation) == 2


def test_retry_keeps_the_speakers_after_a_swap(studio: Studio) -> None:
    say(studio, "One.")
    say(studio, "$SWAP$")
    [again] = of_type(say(studio, "$RETRY$"), LineDone)
    assert [turn.speaker for turn in again.turns] == [0]


def test_play_names_the_file_of_a_take(studio: Studio) -> None:
    [first] = of_type(say(studio, "One."), LineDone)
    [second] = of_type(say(studio, "Two."), LineDone)
    assert of_type(say(studio, "$PLAY 1$"), PlayFile) == [PlayFile(first.file)]
    assert of_type(say(studio, "$PLAY$"), PlayFile) == [PlayFile(second.file)]


def test_play_takes_the_numbers_of_the_history(studio: Studio) -> None:
    [line] = of_type(say(studio, "One.||||Three."), LineDone)
    say(studio, "Alone.")
    for record in _table(studio, "$HISTORY$").records[2:]:
        [played] = of_type(say(studio, f"$PLAY {record['number']}$"), PlayFile)
        assert str(played.file) == record["file"]
    assert of_type(say(studio, "$PLAY 1$"), PlayFile) == [PlayFile(line.file)]
    assert of_type(say(studio, "$PLAY 1.3$"), PlayFile) == [PlayFile(line.turns[1].file)]
    with pytest.raises(LineError, match=r"There is no turn 1\.2\. This session has lines 1 to 2"):
        say(studio, "$PLAY 1.2$")


def test_after_a_load_the_numbers_are_those_of_the_saved_session(make_studio: MakeStudio) -> None:
    first, second = make_studio(), make_studio()
    for text in ("One.||Two.", "Three.", "Four."):
        say(first, text)
    say(first, "$SAVE talk$")
    saved = first.takes.root / "saved" / "talk"
    say(second, "Something else.")
    say(second, "$LOAD talk$")
    numbers = [record["number"] for record in _table(second, "$HISTORY$").records[2:]]
    assert numbers == ["1.1", "1.2", "2", "3"]
    assert _played(second, "$PLAY 1$") == [saved / "001-1.wav", saved / "001-2.wav"]
    assert _played(second, "$PLAY 1.2$") == [saved / "001-2.wav"]
    assert _played(second, "$PLAY$") == _played(second, "$PLAY 3$") == [saved / "003.wav"]
    [turn] = of_type(say(second, "Five."), TurnDone)
    assert (turn.number, turn.file.name) == ("4", "004.wav")
    assert _played(second, "$PLAY$") == [turn.file]
    assert _table(second, "$HISTORY$").records[-1]["number"] == "4"


def _played(studio: Studio, line: str) -> list[Path]:
    return [event.file for event in of_type(say(studio, line), PlayFile)]


@pytest.mark.parametrize(
    "number", ["x", "0", "-1", "1.0", "1.", ".1", "1.2.3", "1,2", "٣", "9" * 10_000, "1." + "9" * 10_000]
)
def test_what_is_no_number_of_a_line_is_answered_with_how_they_look(studio: Studio, number: str) -> None:
    with pytest.raises(
        LineError, match=r"takes the number of a line or of a turn, not .*For example 7"
    ) as caught:
        say(studio, f"$PLAY {number}$")
    assert len(str(caught.value)) < 250


def test_play_says_what_there_is(studio: Studio) -> None:
    with pytest.raises(LineError, match="No line has been spoken yet"):
        say(studio, "$PLAY$")
    [turn] = of_type(say(studio, "One."), TurnDone)
    with pytest.raises(LineError, match=r"There is no line 9\. This session has line 1;"):
        say(studio, "$PLAY 9$")
    turn.file.unlink()
    with pytest.raises(LineError, match="The sound of line 1 is gone"):
        say(studio, "$PLAY 1$")


def test_exit_asks_to_leave(studio: Studio) -> None:
    assert of_type(say(studio, "$exit$"), Quit)


def test_a_command_without_arguments_refuses_some(studio: Studio) -> None:
    with pytest.raises(LineError, match="takes no arguments"):
        say(studio, "$CLEAR everything$")


def test_save_and_load_go_on_where_it_stopped(make_studio: MakeStudio) -> None:
    first = make_studio()
    say(first, "$SWAP$")
    say(first, "One.||Two.")
    say(first, "$SAVE talk$")
    second = make_studio()
    assert "2 turns" in _notice(second, "$LOAD talk$")
    assert second.primary == 1
    for studio in (first, second):
        studio.set("seed", 77)
    a, b = (of_type(say(studio, "Three."), LineDone)[0] for studio in (first, second))
    assert a.file.read_bytes() == b.file.read_bytes()


def test_save_refuses_a_name_that_is_taken_or_leads_elsewhere(studio: Studio) -> None:
    say(studio, "One.")
    say(studio, "$SAVE talk$")
    for line in ("$SAVE talk$", "$SAVE ../talk$", "$SAVE$"):
        with pytest.raises(LineError):
            say(studio, line)


def test_a_line_without_text_does_nothing(studio: Studio) -> None:
    assert [say(studio, line) for line in ("", "   ", "||", " || || ")] == [[], [], [], []]


@pytest.mark.parametrize(
    ("text", "usage"),
    [
        ("?", "$HELP$"),
        ("help", "$HELP$"),
        (" Exit ", "$EXIT$"),
        ("quit", "$EXIT$"),
        ("quit()", "$EXIT$"),
        ("/clear", "$CLEAR$"),
        (":q", "$EXIT$"),
        ("HISTORY", "$HISTORY$"),
        ("undo", "$UNDO$"),
    ],
)
def test_the_bare_word_of_a_command_is_answered_with_the_command(text: str, usage: str) -> None:
    hint = bare_word_hint(text)
    assert hint is not None
    assert usage in hint


@pytest.mark.parametrize("text", ["", "help.", "Help me!", "hello", "exit 1", "exit||help", "$EXIT$", "??"])
def test_other_lines_are_no_bare_words(text: str) -> None:
    assert bare_word_hint(text) is None
