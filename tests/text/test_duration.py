"""The ceiling on a take's length, against a synthesiser's durations."""

from __future__ import annotations

import shutil
import subprocess
import wave
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.text import ceiling_seconds, expected_seconds

SENTENCES = [
    "Yes.",
    "Hi!",
    "Oh, no.",
    "I see that Yala! How rare are they?",
    "It was 2024.",
    "Room 5, please, and hurry up.",
    "The train leaves at 10:30 from platform 12.",
    "Well, that's forty-two dollars and seventeen cents.",
    "The quick brown fox jumps over the lazy dog.",
    "Whether the weather be fine, or whether the weather be not, we'll weather the weather.",
    "Strengths, twelfths, sixths and rhythms.",
    "I owe you a yo-yo.",
    "She said: wait... wait a moment, would you? And then, after a while, she laughed.",
    "In 1999, about 35% of 4,200 people paid $12.50 each.",
    "Internationalisation of telecommunications infrastructure necessitates collaboration.",
    "You know, when I was a child we used to walk along the river every evening, my brother and I, and "
    "talk about what we would become, and neither of us ever guessed it right.",
    "A, B, C, D, E, F, G.",
    "CSM-1B & Mimi: 24 kHz @ 12.5 Hz.",
    "See www.example.com/index for more.",
    "WWW.",
    "HTTP, HTML, CSS & SQL",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10.",
]
NORMAL_WPM, HALF_WPM = 170, 85

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")


def spoken_seconds(text: str, words_per_minute: int, folder: Path) -> float:
    path = folder / "spoken.wav"
    subprocess.run(["espeak-ng", "-s", str(words_per_minute), "-w", str(path), text], check=True, timeout=30)
    with wave.open(str(path)) as file:
        return file.getnframes() / file.getframerate()


@needs_espeak
@pytest.mark.parametrize("text", SENTENCES)
def test_half_speed_speech_stays_below_the_ceiling(text: str, tmp_path: Path) -> None:
    assert spoken_seconds(text, HALF_WPM, tmp_path) < ceiling_seconds(text)


@needs_espeak
@pytest.mark.parametrize("text", SENTENCES)
def test_normal_speech_is_within_a_factor_of_two_of_the_expectation(text: str, tmp_path: Path) -> None:
    seconds = spoken_seconds(text, NORMAL_WPM, tmp_path)
    assert seconds / 2 <= expected_seconds(text) <= seconds * 2


@given(st.text(), st.text())
def test_more_text_never_lowers_the_ceiling(text: str, more: str) -> None:
    assert ceiling_seconds(text + more) >= ceiling_seconds(text)


@given(st.text(), st.text(min_size=1))
def test_more_text_takes_longer(text: str, more: str) -> None:
    assert expected_seconds(text + more) > expected_seconds(text)


@given(st.text())
def test_the_ceiling_is_above_the_expectation(text: str) -> None:
    assert ceiling_seconds(text) > expected_seconds(text)


def test_babble_is_cut_within_seconds_for_a_short_text() -> None:
    assert ceiling_seconds("Hi!") < 5


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("2024", "twenty twenty-four"),
        ("5%", "five percent"),
        ("你好吗", "nee how ma"),
        ("12 + 30", "twelve plus thirty"),
    ],
)
def test_signs_count_about_as_what_is_said_for_them(written: str, spelled: str) -> None:
    assert 0.6 < expected_seconds(written) / expected_seconds(spelled) < 1.6
