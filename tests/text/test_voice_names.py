from __future__ import annotations

import unicodedata

import pytest

from csm_repl.text.voice_names import Roster, VoiceName, could_be_name, name_typed


@pytest.mark.parametrize("typed", ["Zoë", "ZOË", unicodedata.normalize("NFD", "zoë"), " Zoë ", "Ｚoë"])
def test_case_unicode_form_and_outer_space_of_a_name_do_not_matter(typed: str) -> None:
    roster = Roster({3: "Zoë"})
    assert roster.find(typed) == VoiceName("Zoë", 3)
    named = roster.begin(f"{typed.strip()}: Hi.")
    assert named is not None
    assert named.voice.speaker == 3


def test_of_two_speakers_with_one_name_the_first_has_it() -> None:
    assert Roster({2: "Ada", 1: "ada", 0: None}).find("ADA") == VoiceName("ada", 1)


def test_a_name_may_hold_a_colon() -> None:
    named = Roster({0: "a:b"}).begin("A:B: hi")
    assert named is not None
    assert (named.voice.name, named.end) == ("a:b", 4)


def test_a_long_turn_is_not_searched_for_colons() -> None:
    assert Roster({0: "x" * 79, 1: "y" * 90}).begin("y" * 90 + ": hi") is None


def test_there_are_no_names_among_voices_without_one() -> None:
    assert not Roster({0: None, 1: None})
    assert not list(Roster({0: None}).voices)


@pytest.mark.parametrize(
    ("turn", "name"),
    [
        ("Carol: Hi.", "Carol"),
        ("Dr. Anna Smith: Hi.", "Dr. Anna Smith"),
        ("O'Neil: Hi.", "O'Neil"),
        ("HAL 9000: Hi.", "HAL 9000"),
        ("Anna-Lena : Hi.", "Anna-Lena"),
        ("Carol:Hi.", ""),
        ("Note: this matters.", ""),
        ("Question: why?", ""),
        ("carol: Hi.", ""),
        ("He said: hi.", ""),
        ("At 10:30 we leave.", ""),
        ("https://example.com", ""),
        ("One two three four five: six", ""),
    ],
)
def test_what_looks_like_a_name_is_told_from_labels_and_sentences(turn: str, name: str) -> None:
    assert name_typed(turn) == name


def test_a_small_letter_will_do_where_names_are_expected() -> None:
    assert could_be_name("ben")
    assert not could_be_name("ben", capital=True)
    assert not could_be_name("he said")
    assert not could_be_name("note")
