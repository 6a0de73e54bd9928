"""Keys, through a pipe instead of a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from csm_repl.front.console.history import PrivateHistory
from csm_repl.front.console.prompt import LeftByInterruptError, LinePrompt
from csm_repl.front.jobs import Interrupts
from tests.support.terminal import ALT_ENTER, CTRL_C, CTRL_D, CTRL_R, ENTER, paste

Read = Callable[..., str]


@pytest.fixture
def keyboard() -> Iterator[PipeInput]:
    with create_pipe_input() as pipe:
        yield pipe


@pytest.fixture
def read(studio: Any, keyboard: PipeInput) -> Read:
    """Types keys at a new prompt and returns the line."""

    def call(keys: str, history: History | None = None, clock: Callable[[], float] | None = None) -> str:
        interrupts = Interrupts(clock) if clock else Interrupts()
        prompt = LinePrompt(
            studio,
            "auto",
            interrupts.note,
            history=history or InMemoryHistory(),
            input=keyboard,
            output=DummyOutput(),
        )
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


def test_a_paste_stays_in_the_line_until_enter(read: Read) -> None:
    assert read(paste("one\r\ntwo\n$CLEAR$") + "!" + ENTER) == "one\ntwo\n$CLEAR$!"


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


def test_the_history_is_remembered_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "csm-repl" / "history"
    history = PrivateHistory(path)
    for line in ("one", "two\nlines", "two\nlines", "  ", "日本語 \udcff"):
        history.append_string(line)
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(PrivateHistory(path).load_history_strings()) == ["日本語 ?", "two\nlines", "one"]


def test_a_history_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "history"
    PrivateHistory(path).append_string("one")
    path.chmod(0o644)
    assert list(PrivateHistory(path).load_history_strings()) == ["one"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_usable_file_the_history_lasts_as_long_as_the_program(tmp_path: Path) -> None:
    blocker = tmp_path / "state"
    blocker.write_text("a file where a folder should be")
    history = PrivateHistory(blocker / "csm-repl" / "history")
    assert list(history.load_history_strings()) == []
    history.append_string("one")
    assert history.get_strings() == ["one"]
