"""Keys, through a pipe instead of a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from csm_repl.front.console import terminal
from csm_repl.front.console.prompt import LeftByInterruptError, LinePrompt
from csm_repl.front.jobs import Interrupts
from tests.support.terminal import ALT_ENTER, CTRL_C, CTRL_D, CTRL_R, ENTER, F1, paste

Read = Callable[..., str]


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


@pytest.fixture
def open_prompt(studio: Any, keyboard: PipeInput) -> Callable[..., LinePrompt]:
    def call(
        history: History | None = None, clock: Callable[[], float] = lambda: 0.0, **answers: Any
    ) -> LinePrompt:
        return LinePrompt(
            studio,
            "auto",
            Interrupts(clock),
            history or InMemoryHistory(),
            on_interrupt=answers.get("on_interrupt", lambda: None),
            on_help=answers.get("on_help", lambda: None),
            input=keyboard,
            output=DummyOutput(),
        )

    return call


@pytest.fixture
def read(open_prompt: Callable[..., LinePrompt], keyboard: PipeInput) -> Read:
    """Types keys at a new prompt and returns the line."""

    def call(keys: str, *arguments: Any, **options: Any) -> str:
        prompt = open_prompt(*arguments, **options)
        keyboard.send_text(keys)
        return prompt.read()

    return call


def test_enter_submits(read: Read) -> None:
    assert read("Hello." + ENTER) == "Hello."


def test_alt_enter_makes_a_new_line(read: Read) -> None:
    assert read("a" + ALT_ENTER + "b" + ENTER) == "a\nb"


def test_alt_enter_makes_a_new_line_in_vi_as_well(read: Read, studio: Any) -> None:
    studio.set("editing_mode", "vi")
    assert read("a" + ALT_ENTER + "b" + ENTER) == "a\nb"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_paste_stays_in_the_line_until_enter(read: Read, end: str) -> None:
    assert read(paste(f"one{end}two{end}{end}$CLEAR$") + "!" + ENTER) == "one\ntwo\n\n$CLEAR$!"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n"])
def test_the_end_of_a_pasted_line_does_not_submit_it(read: Read, end: str) -> None:
    assert read(paste(f"Hello{end}") + " there." + ENTER) == "Hello there."


def test_a_paste_goes_into_a_half_typed_line_as_if_it_were_typed(read: Read) -> None:
    before_the_end = "\x1b[D"
    assert read("Say  now." + before_the_end * 5 + paste("one\ntwo\n") + ENTER) == "Say one\ntwo\n now."
    assert read("Say " + paste("one\ntwo\n") + ENTER) == "Say one\ntwo"


def test_a_long_paste_arrives_whole(read: Read) -> None:
    lines = "\n".join(f"Line number {number}." for number in range(2_000))
    assert read(paste(lines) + ENTER) == lines


def test_lines_that_were_typed_ahead_can_be_taken(
    open_prompt: Callable[..., LinePrompt], keyboard: PipeInput
) -> None:
    prompt = open_prompt()
    keyboard.send_text("one\r\rtwoo\x7f\nthree" + paste("\nfour\n") + "\x1b[1;1R" + ENTER + "fi")
    assert prompt.take_waiting() == ["one", "two", "three", "four"]
    keyboard.send_text("ve" + ENTER)
    assert prompt.read() == "five"
    assert prompt.take_waiting() == []


def test_what_was_held_back_from_the_shell_is_read_first(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_held", bytearray("été ".encode()))
    assert read("now" + ENTER) == "été now"
    assert read("again" + ENTER) == "again"


def test_ctrl_d_on_an_empty_line_leaves(read: Read) -> None:
    with pytest.raises(EOFError):
        read(CTRL_D)


def test_ctrl_d_deletes_a_character_elsewhere(read: Read) -> None:
    assert read("ab\x01" + CTRL_D + ENTER) == "b"


def test_ctrl_c_clears_the_line(read: Read) -> None:
    assert read("gone" + CTRL_C + "kept" + ENTER) == "kept"


def test_ctrl_c_twice_leaves(read: Read) -> None:
    with pytest.raises(LeftByInterruptError):
        read("gone" + CTRL_C + CTRL_C)


def test_ctrl_c_twice_within_more_than_two_seconds_stays(read: Read) -> None:
    times = iter([10.0, 12.1])
    assert read(CTRL_C + CTRL_C + "still here" + ENTER, clock=lambda: next(times)) == "still here"


@pytest.mark.parametrize("typed", ["x", "x\x7f", "\x1b[D", paste("x")])
def test_anything_typed_between_makes_the_second_ctrl_c_a_first_one(read: Read, typed: str) -> None:
    assert read(CTRL_C + typed + CTRL_C + "still here" + ENTER) == "still here"
    with pytest.raises(LeftByInterruptError):
        read(CTRL_C + typed + CTRL_C + CTRL_C)


def test_a_ctrl_c_before_the_prompt_and_one_at_it_leave(studio: Any, keyboard: PipeInput) -> None:
    interrupts = Interrupts(lambda: 0.0)
    prompt = LinePrompt(
        studio,
        "auto",
        interrupts,
        InMemoryHistory(),
        on_interrupt=lambda: None,
        on_help=lambda: None,
        input=keyboard,
        output=DummyOutput(),
    )
    interrupts.note()
    keyboard.send_text(CTRL_C)
    with pytest.raises(LeftByInterruptError):
        prompt.read()
    interrupts.note()
    keyboard.send_text("typed" + CTRL_C + "a line" + ENTER)
    assert prompt.read() == "a line"


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("$CLEAR$", "$CLEAR$"),
        ("$clear", "$clear$"),
        ("$set seed 5", "$set seed 5$"),
        ("$FOO", "$FOO"),
        ("$SET seed 5||Hello", "$SET seed 5||Hello"),
        ("$5", "$5"),
        ("It costs $SET", "It costs $SET"),
    ],
)
def test_enter_writes_the_dollar_sign_that_ends_a_command(read: Read, typed: str, line: str) -> None:
    assert read(typed + ENTER) == line


def test_f1_shows_the_help_and_the_line_stays(read: Read) -> None:
    shown: list[str] = []
    assert read("Half" + F1 + " a line" + ENTER, on_help=lambda: shown.append("help")) == "Half a line"
    assert shown == ["help"]


@pytest.mark.parametrize("mode", ["emacs", "vi"])
def test_ctrl_r_searches_the_history(read: Read, studio: Any, mode: str) -> None:
    studio.set("editing_mode", mode)
    history = InMemoryHistory(["What a day.", "Good night."])
    assert read(CTRL_R + "DAY" + ENTER + ENTER, history=history) == "What a day."


def test_ctrl_c_leaves_the_search_first(read: Read) -> None:
    history = InMemoryHistory(["What a day."])
    assert read(CTRL_R + "day" + CTRL_C + "typed" + ENTER, history=history) == "typed"


def test_a_change_of_the_editing_mode_takes_effect(read: Read, studio: Any) -> None:
    assert read("b\x1b\x01a" + ENTER) == "ab"
    studio.set("editing_mode", "vi")
    assert read("b\x1bia" + ENTER) == "ab"


def test_bytes_that_are_no_text_do_no_harm(read: Read, keyboard: PipeInput) -> None:
    keyboard.send_bytes(b"a\xffb")
    assert read(ENTER) == "a?b"
