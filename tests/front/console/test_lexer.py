from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prompt_toolkit.document import Document

from csm_repl.front.console.lexer import LineLexer, fragments, speaker_style
from csm_repl.front.printers.rich import speaker_color
from csm_repl.studio.commands import command_names
from csm_repl.text.voice_names import Roster


def _styles(text: str, primary: int = 0) -> list[tuple[str, str]]:
    return fragments(text, command_names(), primary)


def test_every_turn_has_the_colour_of_its_speaker() -> None:
    anna, ben = speaker_style(0), speaker_style(1)
    assert anna != ben
    assert _styles("Hi.||Ho.||Hey.0") == [
        (anna, "Hi."),
        ("class:separator", "||"),
        (ben, "Ho."),
        ("class:separator", "||"),
        (anna, "Hey."),
        (f"{anna} class:offset", "0"),
    ]


def test_a_blank_turn_counts() -> None:
    assert _styles("||Hi.")[-1] == (speaker_style(1), "Hi.")


def test_the_primary_speaker_is_added() -> None:
    assert _styles("Hi.||Ho.-1", primary=2)[0] == (speaker_style(2), "Hi.")
    assert _styles("Hi.||Ho.-1", primary=2)[2] == (speaker_style(1), "Ho.")


def test_a_speaker_below_0_is_marked() -> None:
    assert _styles("Hi.-1") == [("class:impossible", "Hi."), ("class:impossible class:offset", "-1")]


@pytest.mark.parametrize("text", ["$CLEAR$", "$clear$", "$FOO$", "$CLAER$"])
def test_a_command_does_not_look_like_speech(text: str) -> None:
    assert _styles(text) == [("class:command", text)]


def test_arguments_are_told_from_the_command() -> None:
    styles = [style for style, _ in _styles("$SET seed 5$")]
    assert styles[0] == styles[-1] == "class:command"
    assert "class:command-args" in styles


def test_the_colours_are_the_printers() -> None:
    assert speaker_style(0) == f"fg:ansi{speaker_color(0)}"
    # `bright_blue` of rich is `brightblue` here.
    assert speaker_style(4) == "fg:ansibrightblue"


def test_every_row_is_a_line_with_the_speaker_that_the_rows_before_it_leave() -> None:
    rows = ["Hi.||Ho.", "$SWAP$", "Now ben.", "$back", "Still ben.", "$BACK$", "$BACK$", "Anna."]
    get_line = LineLexer(command_names(), lambda: 0).lex_document(Document("\n".join(rows)))
    anna, ben = speaker_style(0), speaker_style(1)
    # Not in their order: a screen asks only for the rows that it shows.
    assert get_line(7)[0][0] == anna
    assert get_line(0)[-1][0] == ben
    assert [get_line(number)[0][0] for number in range(7)] == [
        anna,
        "class:command",
        ben,
        "class:command",
        ben,
        "class:command",
        "class:command",
    ]


@given(st.text(alphabet=st.sampled_from("ab|$1-. \n🙂日\x1b"), max_size=40))
def test_no_character_is_lost_and_lines_stay_lines(text: str) -> None:
    assert "".join(piece for _, piece in _styles(text)) == text
    get_line = LineLexer(command_names(), lambda: 0).lex_document(Document(text))
    shown = ["".join(piece for _, piece, *_ in get_line(n)) for n in range(text.count("\n") + 1)]
    assert "\n".join(shown) == text
    assert get_line(text.count("\n") + 1) == []


def test_a_named_turn_has_the_colour_of_its_voice() -> None:
    voices = Roster({0: "Anna", 3: "Ben"})
    anna, ben, third = speaker_style(0), speaker_style(3), speaker_style(3)
    assert fragments("ben: Hi.||Anna: Ho. 1||Hey.", command_names(), 1, voices=voices) == [
        (f"{ben} class:name", "ben:"),
        (ben, " Hi."),
        ("class:separator", "||"),
        (f"{anna} class:name", "Anna:"),
        (anna, " Ho. 1"),
        ("class:separator", "||"),
        (third, "Hey."),
    ]


def test_comments_and_headings_do_not_look_like_speech() -> None:
    assert _styles("# Hi.||Ho.") == [("class:comment", "# Hi.||Ho.")]
    assert _styles("## Act one") == [("class:heading", "## Act one")]


def test_a_voice_that_comes_is_coloured_from_then_on() -> None:
    names: dict[int, str | None] = {}
    lexer = LineLexer(command_names(), lambda: 0, voices=lambda: Roster(names))
    get_line = lexer.lex_document(Document("Ben: Hi."))
    assert get_line(0)[0][0] == speaker_style(0)
    names[2] = "ben"
    assert get_line(0)[0][0] == f"{speaker_style(2)} class:name"
