from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from prompt_toolkit.formatted_text import to_plain_text
from prompt_toolkit.utils import get_cwidth

from csm_repl.console.toolbar import Toolbar, context_used
from csm_repl.session.conversation import Conversation, ConversationTurn, Piece


def _shown(studio: Any, columns: int = 100) -> str:
    return to_plain_text(Toolbar(studio, lambda: columns)())


def test_it_says_what_the_next_take_is_made_with(studio: Any) -> None:
    studio.set("seed", 7)
    studio.set("temperature", 0.5)
    assert _shown(studio).startswith(" 0 anna  context 0/2048  cpu  seed 7  temp 0.5")


@pytest.mark.parametrize("columns", [1, 20, 40, 60, 80, 200])
def test_it_fits_any_width(studio: Any, columns: int) -> None:
    studio.voices.names[0] = "日本語" * 30
    assert get_cwidth(_shown(studio, columns).rstrip()) <= columns


def test_a_narrow_terminal_loses_what_weighs_least(studio: Any) -> None:
    assert _shown(studio, 54).rstrip() == " 0 anna  context 0/2048  cpu  seed random  temp 0.9"


def test_a_voice_without_a_name_is_not_numbered_twice(studio: Any) -> None:
    studio.primary = 7
    assert _shown(studio).startswith(" speaker 7  ")


def test_a_message_stands_alone(studio: Any) -> None:
    toolbar = Toolbar(studio, lambda: 60)
    toolbar.message = "Ctrl-C again leaves."
    assert to_plain_text(toolbar()) == " Ctrl-C again leaves. "


def test_the_context_counts_references_and_kept_turns(studio: Any) -> None:
    studio.voices.clips = (SimpleNamespace(speaker=0), SimpleNamespace(speaker=1))
    piece = Piece("Hi.", (1, 2, 3), torch.zeros(4, 10, dtype=torch.int64))
    studio.conversation = Conversation()
    studio.conversation.append(
        ConversationTurn(1, 1, 0, 0, "anna", "Hi.", (piece,), seconds=0.8, seed=1, ended="end")
    )
    # Two clips of 100 positions, 3 of text, 10 frames and the closing one.
    assert context_used(studio) == 214
    studio.conversation.drop([piece])
    assert context_used(studio) == 200
    studio.engine.max_positions = 150
    assert context_used(studio) == 150
