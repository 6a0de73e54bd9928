from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.errors import LineError
from csm_repl.text.duration import expected_seconds
from csm_repl.text.pauses import Pause, find_pauses, split_pauses, without_last_pauses, without_pauses
from tests.support.texts import assert_work_grows_with_the_length_only


@pytest.mark.parametrize(
    ("mark", "seconds"),
    [
        ("[pause 0.5]", 0.5),
        ("[pause]", 0.5),
        ("[Pause 2]", 2.0),
        ("[pause 2s]", 2.0),
        ("[pause 2 s]", 2.0),
        ("[pause 1.5 seconds]", 1.5),
        ("[pause 250ms]", 0.25),
        ("[pause: 1]", 1.0),
        ("[pause=1]", 1.0),
        ("[ pause .5 ]", 0.5),
        ("[pause 0]", 0.0),
        ("[PAUSE 60]", 60.0),
    ],
)
def test_a_pause_says_how_long_it_is(mark: str, seconds: float) -> None:
    assert split_pauses(f"Hi {mark} there.") == ["Hi", Pause(seconds), "there."]


@pytest.mark.parametrize(
    "text",
    [
        "[pauses]",
        "[pause for effect]",
        "(pause 1)",
        "[pause 1",
        "pause 1]",
        "[pause -1]",
        "[pause 1 h]",
        "[a]",
    ],
)
def test_what_is_no_pause_is_left_alone(text: str) -> None:
    assert split_pauses(text) == [text]
    assert find_pauses(text) == []


def test_pauses_stand_anywhere_in_a_turn() -> None:
    text = "[pause 1]Hi[pause 2] [pause 3] there [pause 4]"
    assert split_pauses(text) == [Pause(1), "Hi", Pause(2), Pause(3), "there", Pause(4)]
    assert [text[start:end] for start, end, _ in find_pauses(text)] == [f"[pause {n}]" for n in (1, 2, 3, 4)]
    assert without_pauses(text) == "Hi there"
    assert without_last_pauses(text) == "[pause 1]Hi[pause 2] [pause 3] there"


@pytest.mark.parametrize("mark", ["[pause 61]", "[pause 99999 s]", "[pause 60001ms]"])
def test_a_pause_that_nobody_means_is_refused(mark: str) -> None:
    with pytest.raises(LineError, match="longer than 60 seconds"):
        find_pauses(f"Hi {mark}")


def test_a_pause_counts_into_the_length_that_is_expected() -> None:
    whole = expected_seconds("Hello there. [pause 2] How are you?")
    assert whole == expected_seconds("Hello there.") + 2 + expected_seconds("How are you?")


@given(
    st.lists(st.sampled_from(["[pause 1]", "[pause", "]", "[", "pause", " 1", "a ", "."]), max_size=12).map(
        "".join
    )
)
def test_no_word_is_lost(text: str) -> None:
    parts = split_pauses(text)
    words = "".join(part for part in parts if isinstance(part, str))
    assert "".join(words.split()) == "".join(re.sub(r"\[pause(?: 1\.?)?\]", "", text).split())


def test_work_grows_with_the_length_only() -> None:
    for piece in ("[pause 1]", "[pause ", "[ ", "[pause 1 "):
        assert_work_grows_with_the_length_only(without_pauses, piece * 2000)
        assert_work_grows_with_the_length_only(without_last_pauses, piece * 2000 + "]")
