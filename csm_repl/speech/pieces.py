"""How much a turn may take, and where one that is too long for one go is split. Pure arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable

from csm_repl.text.duration import ceiling_seconds
from csm_repl.text.sentences import split_sentences

__all__ = ["MIN_PIECE_POSITIONS", "PIECE_POSITIONS", "ceiling_frames", "room_frames", "split_turn"]

PIECE_POSITIONS = 1024
"""Text and reply of one piece, at most: half of the context, so that what was said before stays in it."""
MIN_PIECE_POSITIONS = 160
"""However full of references the context is, a piece gets this much."""


def ceiling_frames(text: str, max_seconds: float | None, frame_rate: float) -> int | None:
    """After how many frames a take is cut; None: never.

    Args:
        max_seconds: the user's ceiling; None: judged from the text; infinity: none.
    """
    seconds = ceiling_seconds(text) if max_seconds is None else max_seconds
    return None if math.isinf(seconds) else max(1, round(seconds * frame_rate))


def room_frames(text: str, frame_rate: float) -> int:
    """Positions to keep free for a reply: judged from the text, whatever the user's ceiling."""
    return math.ceil(ceiling_seconds(text) * frame_rate)


def split_turn(text: str, n_positions: Callable[[str], int], limit: int) -> list[str]:
    """`text` in pieces of at most `limit` positions, where its sentences allow.

    Args:
        n_positions: positions that a text and its reply need.
    """
    needed = n_positions(text)
    if needed <= limit:
        return [text]
    max_chars = max(1, len(text) * limit // needed)
    while True:
        pieces = split_sentences(text, max_chars)
        if max_chars <= 8 or all(n_positions(piece) <= limit for piece in pieces):
            return pieces
        max_chars = max_chars * 4 // 5
