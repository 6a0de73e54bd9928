"""A small conversation with its takes on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from csm_repl.audio import write_audio
from csm_repl.session.conversation import Conversation, ConversationTurn, Piece

K = 4


def _small(folder: Path, n_turns: int = 2) -> Conversation:
    """Turns with a piece of 3 frames each, their WAVs in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    conversation = Conversation()
    for number in range(1, n_turns + 1):
        wav = folder / f"take-{number}.wav"
        if not wav.exists():
            write_audio(wav, torch.full((10,), number / 8), 24_000)
        piece = Piece(f"Text {number}.", (1, 2), torch.full((K, 3), number))
        conversation.append(
            ConversationTurn(number, 0, 0, "anna", f"Text {number}.", (piece,), 0.24, 7, "end", wav)
        )
    return conversation


@pytest.fixture
def small() -> Callable[..., Conversation]:
    return _small
