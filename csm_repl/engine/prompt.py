"""How a conversation becomes positions of the backbone.

A position has `n_codebooks + 1` columns: the codes of a frame, then a text id; -1 marks a column that does
not count. A segment is its text, its frames and one all-zero frame; the turn to be spoken is its text alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

__all__ = [
    "build_prompt",
    "end_position",
    "frame_positions",
    "segment_positions",
    "spoken_text",
    "text_positions",
]


def spoken_text(speaker: int, text: str) -> str:
    """What the tokenizer is given for a turn; BOS and EOS come around it."""
    return f"[{speaker}]{text}"


def text_positions(ids: Sequence[int], n_codebooks: int) -> torch.Tensor:
    """Text ids -> int64 [n, n_codebooks + 1]."""
    positions = torch.full((len(ids), n_codebooks + 1), -1, dtype=torch.int64)
    positions[:, -1] = torch.as_tensor(list(ids), dtype=torch.int64)
    return positions


def frame_positions(codes: torch.Tensor) -> torch.Tensor:
    """Codes int64 [K, T] -> int64 [T, K + 1]."""
    n_codebooks, n_frames = codes.shape
    positions = torch.full((n_frames, n_codebooks + 1), -1, dtype=torch.int64)
    positions[:, :-1] = codes.T
    return positions


def end_position(n_codebooks: int) -> torch.Tensor:
    """The all-zero frame that closes a segment's audio, [1, n_codebooks + 1]."""
    return frame_positions(torch.zeros(n_codebooks, 1, dtype=torch.int64))


def segment_positions(ids: Sequence[int], codes: torch.Tensor) -> torch.Tensor:
    """A closed segment: text ids and codes [K, T] -> [len(ids) + T + 1, K + 1]."""
    n_codebooks = codes.shape[0]
    return torch.cat([text_positions(ids, n_codebooks), frame_positions(codes), end_position(n_codebooks)])


def build_prompt(
    context: Iterable[tuple[Sequence[int], torch.Tensor]],
    ids: Sequence[int],
    n_codebooks: int,
    *,
    begun: torch.Tensor | None = None,
) -> torch.Tensor:
    """A whole prompt.

    Args:
        context: closed segments before the turn, as (text ids, codes [K, T]).
        ids: text ids of the turn to be spoken.
        n_codebooks: K.
        begun: codes [K, T] of the turn that exist already; generation goes on after them.

    Returns:
        int64 [S, K + 1].
    """
    parts = [segment_positions(segment_ids, codes) for segment_ids, codes in context]
    parts.append(text_positions(ids, n_codebooks))
    if begun is not None:
        parts.append(frame_positions(begun))
    return torch.cat(parts)
