"""The transcript: numbering, undo, and what stays in the context."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.session.context import plan_context
from csm_repl.session.conversation import Conversation, ConversationTurn, Piece
from csm_repl.session.numbers import TakeNumber


def piece(n_text: int = 3, n_frames: int = 5) -> Piece:
    return Piece("Hi.", tuple(range(n_text)), torch.zeros(4, n_frames, dtype=torch.int64))


def spoken(conversation: Conversation, line: int, *pieces: Piece, position: int = 0) -> ConversationTurn:
    turn = ConversationTurn(
        line=line,
        position=position,
        speaker=0,
        voice="anna",
        text="Hi.",
        pieces=pieces or (piece(),),
        seconds=0.4,
        seed=1,
        ended="end",
    )
    conversation.append(turn)
    return turn


def test_a_piece_takes_text_frames_and_the_closing_frame():
    assert piece(3, 5).n_positions == 9


def test_pieces_with_equal_content_are_different_segments():
    assert len({piece(), piece()}) == 2


@given(st.lists(st.integers(1, 3), max_size=8))
def test_undo_takes_back_line_by_line(turns_per_line):
    conversation = Conversation()
    lines = []
    for n_turns in turns_per_line:
        line = conversation.last_line + 1
        lines.append([spoken(conversation, line, position=position) for position in range(n_turns)])
    for line_turns in reversed(lines):
        assert conversation.undo() == line_turns
    assert conversation.undo() == []
    assert len(conversation) == 0


def test_numbers_are_never_given_twice():
    conversation = Conversation()
    spoken(conversation, 1)
    spoken(conversation, 2)
    conversation.undo()
    assert conversation.last_line == 2
    with pytest.raises(ValueError, match=r"turn 2\.1 is there already"):
        spoken(conversation, 2)
    spoken(conversation, 3)
    conversation.clear()
    assert conversation.turns == ()
    assert conversation.last_line == 3


def test_a_line_that_is_over_gets_no_further_turn():
    conversation = Conversation()
    spoken(conversation, 2)
    spoken(conversation, 2, position=2)
    with pytest.raises(ValueError, match=r"turn 2\.2 is there already"):
        spoken(conversation, 2, position=1)
    spoken(conversation, 4)
    with pytest.raises(ValueError, match="line 2 is over"):
        spoken(conversation, 2, position=3)


def test_turns_have_the_numbers_of_their_files():
    conversation = Conversation()
    first, second, alone = (
        spoken(conversation, line, position=position) for line, position in ((1, 0), (1, 2), (2, 1))
    )
    first.n_turns = second.n_turns = 2
    assert [str(turn.number) for turn in conversation.turns] == ["1.1", "1.3", "2"]
    assert [turn.number.stem for turn in conversation.turns] == ["001-1", "001-3", "002"]
    found = {"1": [first, second], "1.3": [second], "1.2": [], "2": [alone], "2.1": [alone], "3": []}
    assert {text: conversation.find(TakeNumber.parse(text)) for text in found} == found


def test_dropped_turns_stay_in_the_transcript_and_leave_the_context():
    conversation = Conversation()
    first, second = spoken(conversation, 1), spoken(conversation, 2)
    conversation.drop([first.pieces[0], ("a reference",)])
    assert conversation.turns == (first, second)
    assert conversation.kept == (second,)
    assert [span.key for span in conversation.spans()] == list(second.pieces)
    conversation.undo()
    assert conversation.kept == ()


def test_a_long_turn_leaves_the_context_piece_by_piece():
    conversation = Conversation()
    turn = spoken(conversation, 1, piece(), piece(), piece())
    conversation.drop([turn.pieces[0]])
    assert turn.in_context
    assert turn.context_pieces == turn.pieces[1:]
    conversation.drop([turn.pieces[2]])
    assert not turn.in_context
    assert turn.context_pieces == ()
    conversation.drop([turn.pieces[0]])
    assert turn.n_pieces_out == 3


@given(st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=3), max_size=30), st.integers(1, 60))
def test_the_context_is_always_a_suffix_of_what_was_said(frames_per_turn, needed):
    conversation = Conversation()
    for frames in frames_per_turn:
        plan = plan_context(conversation.spans(), needed=needed, speakers={0}, limit=200)
        conversation.drop(span.key for span, _ in plan.dropped)
        assert tuple(conversation.spans()) == plan.kept
        spoken(conversation, conversation.last_line + 1, *(piece(1, n) for n in frames))
    said = [p for turn in conversation.turns for p in turn.pieces]
    heard = [span.key for span in conversation.spans()]
    assert heard == said[len(said) - len(heard) :]


def test_context_and_transcript_import_no_torch():
    code = "import sys, csm_repl.session.conversation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
