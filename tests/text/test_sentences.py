"""Where long turns are cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.text.sentences import split_sentences
from tests.support.texts import LONG, RUNS, TEXTS, assert_work_grows_with_the_length_only, squeezed, unhurried


@pytest.mark.parametrize(
    ("text", "max_chars", "pieces"),
    [
        ("", 10, []),
        (" \n ", 10, []),
        (" One. Two. ", 99, ["One. Two."]),
        ("One. Two. Three.", 10, ["One. Two.", "Three."]),
        ("Is it? Yes! Well… maybe.", 8, ["Is it?", "Yes!", "Well…", "maybe."]),
        ('He said "hi." She left.', 18, ['He said "hi."', "She left."]),
        ("„Hallo.“ Dann ging er.", 15, ["„Hallo.“", "Dann ging er."]),
        ("你好。“走吧！”他说。", 6, ["你好。", "“走吧！”", "他说。"]),
        ("One, two; on the other hand", 19, ["One, two;", "on the other hand"]),
        ("It was late—very late, and dark", 22, ["It was late—very late,", "and dark"]),
        ("one two three four", 8, ["one two", "three", "four"]),
        ("Well, this has no other mark in it", 20, ["Well, this has no", "other mark in it"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("a👩\u200d🚀b", 3, ["a", "👩\u200d🚀", "b"]),
        ("xxe\u0301y", 3, ["xx", "e\u0301y"]),
    ],
)
def test_long_text_is_cut_at_the_best_place_that_fits(text: str, max_chars: int, pieces: list[str]) -> None:
    assert split_sentences(text, max_chars) == pieces


NO_ENDS = """
I met Mr. Smith|I saw Mrs. Jones|ask Dr. Who|in St. Ives|Nuts, e.g. almonds|i.e. you|cats vs. dogs
nuts etc. and
by J. R. R. Tolkien|by J.R.R. Tolkien|the U.S. Army|costs 3.5 dollars|Chanel No. 5 is|see pp. 3 to 5
"""


@pytest.mark.parametrize("text", re.split(r"[|\n]", NO_ENDS.strip()))
def test_abbreviations_and_decimals_end_no_sentence(text: str) -> None:
    assert split_sentences(f"Yes. {text} now. Then more.", len(text) + 5)[:2] == ["Yes.", f"{text} now."]


def test_a_real_end_after_what_only_looks_like_an_abbreviation_is_one() -> None:
    pieces = split_sentences("So am I. I ate a fig. Oh no. Bye.", 12)
    assert pieces == ["So am I.", "I ate a fig.", "Oh no. Bye."]


@unhurried
@given(TEXTS, st.integers(1, 60))
def test_splitting_loses_nothing_and_keeps_the_limit(text: str, max_chars: int) -> None:
    pieces = split_sentences(text, max_chars)
    assert squeezed(" ".join(pieces)) == squeezed(text)
    assert all(piece == piece.strip() and 0 < len(piece) <= max_chars for piece in pieces)


@unhurried
@given(st.lists(st.text("ab.,!", min_size=1, max_size=9), max_size=40), st.integers(9, 60))
def test_words_that_fit_are_never_cut(words: list[str], max_chars: int) -> None:
    assert " ".join(split_sentences(" ".join(words), max_chars)).split() == words


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_chars"):
        split_sentences("Hi.", 0)


@pytest.mark.parametrize("max_chars", [50, 200])
def test_work_grows_with_the_length_only(max_chars: int) -> None:
    for text in LONG:
        assert_work_grows_with_the_length_only(lambda text: split_sentences(text, max_chars), text)


@pytest.mark.parametrize("char", RUNS)
def test_a_long_run_of_one_character_is_split_whole(char: str) -> None:
    """Long enough that an expression that goes back over it would not come to an end."""
    text = char * 100_000 + "a"
    assert squeezed("".join(split_sentences(text, 200))) == squeezed(text)
