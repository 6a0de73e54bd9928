from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.voices import ClipName, parse_name


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
