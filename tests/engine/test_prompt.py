"""The frame layout of a prompt (tests/golden/README.md)."""

from __future__ import annotations

import torch

from csm_repl.engine import (
    build_prompt,
    end_position,
    frame_positions,
    segment_positions,
    spoken_text,
    text_positions,
)

CODES = torch.tensor([[11, 12], [21, 22]])


def test_text_rows_have_their_id_in_the_last_column_alone() -> None:
    assert text_positions([7, 8], 2).tolist() == [[-1, -1, 7], [-1, -1, 8]]


def test_audio_rows_have_codes_and_no_text() -> None:
    assert frame_positions(CODES).tolist() == [[11, 21, -1], [12, 22, -1]]


def test_a_segment_is_text_audio_and_the_all_zero_frame() -> None:
    expected = [[-1, -1, 7], [11, 21, -1], [12, 22, -1], [0, 0, -1]]
    assert segment_positions([7], CODES).tolist() == expected


def test_the_closing_frame_counts_as_audio() -> None:
    assert end_position(2).tolist() == [[0, 0, -1]]


def test_a_segment_without_audio_is_closed_all_the_same() -> None:
    assert segment_positions([7], CODES[:, :0]).tolist() == [[-1, -1, 7], [0, 0, -1]]


def test_the_turn_to_be_spoken_is_open() -> None:
    rows = build_prompt([([7], CODES)], [9], 2)
    assert rows.tolist() == [*segment_positions([7], CODES).tolist(), [-1, -1, 9]]


def test_a_begun_turn_is_not_closed() -> None:
    rows = build_prompt([], [9], 2, begun=CODES)
    assert rows.tolist() == [[-1, -1, 9], [11, 21, -1], [12, 22, -1]]


def test_the_speaker_stands_in_brackets_before_the_text() -> None:
    assert spoken_text(3, "Hi there.") == "[3]Hi there."
