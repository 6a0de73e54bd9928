from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.voices import ClipName, parse_name
from csm_repl.voices.names import explain_miss


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("reference.wav", ClipName(0, None, 1)),
        ("reference0.wav", ClipName(0, None, 1)),
        ("reference12.flac", ClipName(12, None, 1)),
        ("reference1-anna.wav", ClipName(1, "anna", 1)),
        ("reference1-anna-2.wav", ClipName(1, "anna", 2)),
        ("reference1-2.wav", ClipName(1, None, 2)),
        ("reference-anna.mp3", ClipName(0, "anna", 1)),
        ("reference1-mary-jane.WAV", ClipName(1, "mary-jane", 1)),
        ("reference1-r2d2.ogg", ClipName(1, "r2d2", 1)),
        ("reference1-4you-3.m4a", ClipName(1, "4you", 3)),
        ("REFERENCE1-Anna.Wav", ClipName(1, "Anna", 1)),
        (unicodedata.normalize("NFD", "reference1-zoë.wav"), ClipName(1, "zoë", 1)),
    ],
)
def test_names_that_match(filename: str, expected: ClipName) -> None:
    assert parse_name(filename) == expected


@pytest.mark.parametrize(
    "filename",
    [
        "reference.txt",
        "reference.wav.bak",
        "reference1000.wav",
        "reference 1.wav",
        "reference1 (copy).wav",
        "reference1-.wav",
        "reference1--anna.wav",
        "reference1-2-3.wav",
        "referenceanna.wav",
        "my reference.wav",
        "._reference1.wav",
        ".csm-repl-0011223344556677.part",
        "reference1-a\x1b[31m.wav",
        "reference1-a\nb.wav",
        "reference1-\udcff.wav",
        "reference１.wav",
    ],
)
def test_names_that_do_not(filename: str) -> None:
    assert parse_name(filename) is None


@given(st.text(max_size=30))
def test_any_name_is_answered(text: str) -> None:
    assert parse_name(text) is None or text.lower().startswith("reference")
    found = parse_name(f"reference7-{text}.wav")
    assert found is None or found.speaker == 7


@pytest.mark.parametrize(
    ("filename", "better"),
    [
        ("reference_15.wav", "reference15.wav"),
        ("reference 1.wav", "reference1.wav"),
        ("Reference (2).WAV", "reference2.wav"),
        ("reference1 (copy).wav", "reference1-copy.wav"),
        ("reference1_anna.wav", "reference1-anna.wav"),
        ("reference1--anna.wav", "reference1-anna.wav"),
        ("reference1.wav.wav", "reference1.wav"),
        ("ref1.wav", "reference1.wav"),
        ("references1.wav", "reference1.wav"),
        ("reference1-2-3.wav", "reference1.wav"),
        ("reference1000.wav", "reference7.wav"),
        ("anna.wav", "reference7-anna.wav"),
        ("my voice.mp3", "reference7-my-voice.mp3"),
        ("12.wav", "reference12.wav"),
        ("録音.m4a", "reference7-録音.m4a"),
        ("reference1.WAV.txt", "reference1.txt"),
        ("reference1.txt.txt", "reference1.txt"),
        ("reference2-bob.mp3.txt", "reference2-bob.txt"),
    ],
)
def test_a_name_that_was_meant_has_a_better_one(filename: str, better: str) -> None:
    assert parse_name(filename) is None
    miss = explain_miss(filename, 7)
    assert miss is not None
    assert miss.better == better
    assert miss.better in miss.remedy
    assert parse_name(better) or better.endswith(".txt")


@pytest.mark.parametrize("filename", ["reference1.wma", "reference-anna.mp4", "reference2.oga"])
def test_sound_of_other_kinds_is_named_with_what_to_do(filename: str) -> None:
    miss = explain_miss(filename, 7)
    assert miss is not None
    assert "are not read." in miss.cause
    assert miss.remedy == f"Convert it to {filename.rsplit('.', 1)[0]}.wav."
    assert miss.better == ""


@pytest.mark.parametrize(
    "filename",
    ["README.md", "notes.txt", ".DS_Store", "._reference1.wav", "reference.wav.part", "film.mp4",
     "reference9.txt", "reference1.json", ".csm-repl-0011223344556677.part", "reference_15.txt"],
)  # fmt: skip
def test_a_name_that_was_not_meant_says_nothing(filename: str) -> None:
    assert explain_miss(filename, 7) is None


def test_a_better_name_is_nobodys() -> None:
    names = {"reference1.wav", "reference1-2.wav", "reference_1.wav"}
    miss = explain_miss("reference_1.wav", 7, names)
    assert miss is not None
    assert miss.better == "reference1-3.wav"
    both = explain_miss("reference1.wav.txt", 7, {"reference1.txt"})
    assert both is not None
    assert "delete one" in both.remedy


@given(st.text(max_size=20), st.sampled_from([".wav", ".txt", ".wma", ".aac.txt", ""]))
def test_every_name_that_is_missed_gets_one_that_is_taken(text: str, ending: str) -> None:
    miss = explain_miss(text + ending, 7)
    if miss is not None and miss.better and not miss.better.endswith(".txt"):
        assert parse_name(miss.better)
