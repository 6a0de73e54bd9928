"""Whose voice a clip is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.errors import UsageError
from csm_repl.train.data.sources.speakers import number_speakers, read_speakers, speaker_of


@pytest.mark.parametrize(
    ("path", "speaker"),
    [
        ("a.wav", ""),
        ("anna/a.wav", "anna"),
        ("p225/p225_001.wav", "p225"),
        ("anna/001/a.wav", "anna"),
        ("anna/ben/a.wav", "anna"),
        ("speaker1/a.wav", "speaker1"),
        ("1/a.wav", "1"),
        ("001/002/a.wav", "001"),
        ("1-anna/a.wav", "1-anna"),
        ("0-anna/001/a.wav", "0-anna"),
        ("0-anna/2-ben/a.wav", "0-anna"),
        ("studio/1-anna/part2/a.wav", "1-anna"),
        ("1034/121119/1034_121119_000000_000001.wav", "1034"),
        ("LibriTTS/train-clean-100/1034/121119/1034_121119_000000_000001.wav", "1034"),
        ("dev-other/84/121123/84-121123-0000.flac", "84"),
        ("121123/84-121123-0000.flac", "84"),
        ("VCTK-Corpus-0.92/wav48_silence_trimmed/p225/p225_001_mic1.flac", "p225"),
        ("wavs/LJ001-0001.wav", ""),
        ("train/anna/a.wav", "anna"),
        ("test/clips/a.wav", ""),
        ("session 2/a.wav", ""),
        ("2024-05-01/a.wav", ""),
        ("20240501/a.wav", ""),
        ("01-05-2024/a.wav", "01-05-2024"),
        ("reference3-anna.wav", "3-anna"),
        ("reference3.wav", "3"),
        ("reference.wav", "0"),
        ("wavs/reference3.wav", "3"),
        ("2/reference3.wav", "2"),
    ],
)
def test_the_topmost_folder_that_is_a_speakers_names_it(path: str, speaker: str) -> None:
    *folders, name = path.split("/")
    assert speaker_of(("data", *folders), name) == speaker


def test_the_datas_own_folder_counts_only_with_a_number() -> None:
    assert speaker_of(("2-anna",), "a.wav") == "2-anna"
    assert speaker_of(("anna",), "a.wav") == ""
    assert speaker_of(("anna", "ben"), "a.wav") == "ben"


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["anna"], [0]),
        (["anna", "ben", "anna"], [0, 1, 0]),
        (["p225", "p1000", "p226"], [0, 2, 1]),
        (["", "anna"], [0, 1]),
        (["0-anna", "ben", "1-carl"], [0, 2, 1]),
        (["0-anna", "0-ben", ""], [0, 0, 0]),
        (["speaker1", "Speaker_2", "spk3"], [1, 2, 3]),
        (["1", "01", "7"], [1, 1, 7]),
        (["1034", "84", "2277"], [1, 0, 2]),
        (["84", "174"], [84, 174]),
        (["Anna", "anna", "ANNA"], [0, 0, 0]),
        (["Ame\u0301lie", "Am\u00e9lie"], [0, 0]),
        (["9" * 80, "1"], [1, 0]),
    ],
)
def test_names_say_their_number_or_get_a_free_one_in_their_order(
    names: list[str], numbers: list[int]
) -> None:
    found = number_speakers(names, {})
    assert [found[name] for name in names] == numbers


def test_the_thousand_and_first_name_is_a_clear_error() -> None:
    assert max(number_speakers([f"n{n}" for n in range(1_000)], {}).values()) == 999
    with pytest.raises(UsageError, match=r"1,001 speakers, and there are numbers for 1,000"):
        number_speakers([f"n{n}" for n in range(1_001)], {})


@given(st.lists(st.text(max_size=6) | st.integers(0, 2_000).map(str), max_size=20), st.randoms())
def test_the_same_names_in_any_order_have_the_same_numbers(names: list[str], chance: random.Random) -> None:
    mixed = list(names)
    chance.shuffle(mixed)
    numbers = number_speakers(names, {})
    assert number_speakers(mixed, {}) == numbers
    assert all(0 <= number <= 999 for number in numbers.values())


@pytest.mark.parametrize(
    ("names", "known", "numbers"),
    [
        (["anna", "abel"], {"anna": 0}, [0, 1]),
        (["abel", "Anna"], {"anna": 0, "ben": 1}, [2, 0]),
        (["84", "90"], {"84": 0, "1034": 1}, [0, 2]),
        (["84"], {"84": 84}, [84]),
        (["", "ben"], {"anna": 0}, [1, 2]),
        (["", "ben"], {"": 0, "carl": 1}, [0, 2]),
        (["5-eve", "anna"], {"anna": 3}, [5, 3]),
    ],
)
def test_later_data_keep_the_numbers_that_are_known(
    names: list[str], known: dict[str, int], numbers: list[int]
) -> None:
    found = number_speakers(names, known)
    assert [found[name] for name in names] == numbers


def test_what_a_run_noted_is_read(tmp_path: Path) -> None:
    assert read_speakers(tmp_path / "speakers.json") == {}
    (tmp_path / "speakers.json").write_text('{"anna": 0, "am\u00e9lie": 12}')
    assert read_speakers(tmp_path / "speakers.json") == {"anna": 0, "am\u00e9lie": 12}


@pytest.mark.parametrize(
    "text", ["", "[]", "3", '{"anna": "0"}', '{"anna": 1000}', '{"anna": true}', "[" * 9_999]
)
def test_other_notes_are_a_clear_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "speakers.json").write_text(text)
    with pytest.raises(UsageError, match="remove it to number all speakers anew"):
        read_speakers(tmp_path / "speakers.json")
