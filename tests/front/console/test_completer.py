from __future__ import annotations

from typing import Any

import pytest
from prompt_toolkit.completion import CompleteEvent, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import to_plain_text

from csm_repl.front.console.completer import CommandCompleter, begins_command, closed_command, is_left_open
from csm_repl.settings import specs
from csm_repl.studio.commands import COMMANDS


def _completions(studio: Any, text: str, after: str = "") -> list[Completion]:
    document = Document(text + after, len(text))
    return list(CommandCompleter(studio).get_completions(document, CompleteEvent()))


def _results(studio: Any, text: str) -> list[str]:
    """The lines that come out."""
    found = _completions(studio, text)
    return [text[: len(text) + completion.start_position] + completion.text for completion in found]


def test_a_dollar_offers_every_command_with_its_description(studio: Any) -> None:
    found = _completions(studio, "$")
    assert [to_plain_text(item.display) for item in found] == [item.usage for item in COMMANDS.values()]
    assert [to_plain_text(item.display_meta) for item in found] == [item.help for item in COMMANDS.values()]


@pytest.mark.parametrize("typed", ["$cle", "$CLE", "  $Cle"])
def test_case_does_not_matter(studio: Any, typed: str) -> None:
    assert [result.strip() for result in _results(studio, typed)] == ["$CLEAR$"]


def test_a_command_with_arguments_is_left_open(studio: Any) -> None:
    assert "$SET " in _results(studio, "$s")


def test_a_command_that_works_without_arguments_is_closed(studio: Any) -> None:
    assert _results(studio, "$pla") == ["$PLAY$"]
    assert _results(studio, "$hel") == ["$HELP$"]


def test_only_what_still_needs_arguments_is_left_open(studio: Any) -> None:
    for typed in ("$SE", "$SET ", "$SET te"):
        assert all(is_left_open(result) for result in _results(studio, typed) if "SET" in result)
    for typed in ("$cle", "$SET play "):
        assert not any(is_left_open(result) for result in _results(studio, typed))


def test_a_line_of_several_rows_is_no_open_command() -> None:
    assert closed_command("$SET seed 5") == "$SET seed 5$"
    assert closed_command("$CLEAR\nHello.") == "$CLEAR\nHello."


def test_set_offers_the_live_settings(studio: Any) -> None:
    live = [item.dashed for item in specs() if item.live]
    assert _results(studio, "$SET ") == [f"$SET {name} " for name in live]
    assert _results(studio, "$set$ temp") == ["$set$ temperature "]


@pytest.mark.parametrize(
    ("typed", "results"),
    [
        ("$SET play ", ["$SET play on$", "$SET play off$"]),
        ("$SET max-seconds ", ["$SET max-seconds off$", "$SET max-seconds auto$"]),
        ("$SET seed r", ["$SET seed random$"]),
        ("$SET editing-mode v", ["$SET editing-mode vi$"]),
        ("$SET temperature ", []),
        ("$SET device ", []),
        ("$SET nothing ", []),
    ],
)
def test_values_are_those_that_the_setting_takes(studio: Any, typed: str, results: list[str]) -> None:
    assert _results(studio, typed) == results


def test_load_offers_what_is_saved(studio: Any) -> None:
    folder = studio.takes.root / "saved" / "interview"
    folder.mkdir(parents=True)
    (folder / "session.json").write_text("{}")
    assert _results(studio, "$load int") == ["$load interview$"]


def test_a_dollar_that_is_there_already_is_not_written_twice(studio: Any) -> None:
    assert [item.text for item in _completions(studio, "$SET seed ran", after="$")] == ["random"]


@pytest.mark.parametrize("text", ["", "Hello $", "Hi.||$cle", "$5", "cle", "$CLEAR$", "$FOO ", "$PLAY "])
def test_nothing_else_is_completed(studio: Any, text: str) -> None:
    assert _completions(studio, text) == []


def test_only_a_beginning_command_opens_the_menu_by_itself() -> None:
    assert begins_command("$")
    assert begins_command("$SET te")
    assert not begins_command("The price is $")
    assert not begins_command("$CLEAR$")


@pytest.mark.parametrize(
    ("typed", "results"),
    [
        ("a", ["anna: "]),
        ("AN", ["anna: "]),
        ("  be", ["  ben: "]),
        ("Hello.||b", ["Hello.||ben: "]),
        ("Hello.\nb", ["Hello.\nben: "]),
        ("Hello a", []),
        ("ben: a", []),
        ("x", []),
        ("Hello.||", []),
    ],
)
def test_the_name_that_a_turn_begins_with_is_completed(studio: Any, typed: str, results: list[str]) -> None:
    assert _results(studio, typed) == results


def test_a_name_says_whose_it_is_and_gets_one_colon(studio: Any) -> None:
    [found] = _completions(studio, "be")
    assert to_plain_text(found.display_meta) == "speaker 1"
    assert _completions(studio, "be", after=": Hi.") == []


def test_names_do_not_open_the_menu_by_themselves() -> None:
    assert not begins_command("ann")
