"""How a conversation becomes positions of the backbone.

A *row* has `n_codebooks + 1` columns: the codes of a frame, then a text id; -1 marks a column that does
not count. A segment is its text rows, its audio rows and one all-zero frame; the turn to be spoken is its
text rows alone. Knows nothing about models; the tokenizer's ids come from outside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

__all__ = ["audio_rows", "end_row", "prompt_rows", "segment_rows", "spoken_text", "text_rows"]


def spoken_text(speaker: int, text: str) -> str:
    """What the tokenizer is given for a turn; BOS and EOS come around it."""
    return f"[{speaker}]{text}"


def text_rows(ids: Sequence[int], n_codebooks: int) -> torch.Tensor:
    """Text ids -> rows int64 [n, n_codebooks + 1]."""
    rows = torch.full((len(ids), n_codebooks + 1), -1, dtype=torch.int64)
    rows[:, -1] = torch.as_tensor(list(ids), dtype=torch.int64)
    return rows


def audio_rows(codes: torch.Tensor) -> torch.Tensor:
    """Codes int64 [K, T] -> rows int64 [T, K + 1]."""
    n_codebooks, n_frames = codes.shape
    rows = torch.full((n_frames, n_codebooks + 1), -1, dtype=torch.int64)
    rows[:, :-1] = codes.T
    return rows


def end_row(n_codebooks: int) -> torch.Tensor:
    """The all-zero frame that closes a segment's audio, [1, n_codebooks + 1]."""
    return audio_rows(torch.zeros(n_codebooks, 1, dtype=torch.int64))


def segment_rows(ids: Sequence[int], codes: torch.Tensor) -> torch.Tensor:
    """A closed segment: text ids and codes [K, T] -> rows [len(ids) + T + 1, K + 1]."""
    n_codebooks = codes.shape[0]
    return torch.cat([text_rows(ids, n_codebooks), audio_rows(codes), end_row(n_codebooks)])


def prompt_rows(
    context: Iterable[tuple[Sequence[int], torch.Tensor]],
    ids: Sequence[int],
    n_codebooks: int,
    *,
    begun: torch.Tensor | None = None,
) -> torch.Tensor:
    """Rows of a whole prompt.

    Args:
        context: closed segments before the turn, as (text ids, codes [K, T]).
        ids: text ids of the turn to be spoken.
        n_codebooks: K.
        begun: codes [K, T] of the turn that exist already; generation goes on after them.

    Returns:
        int64 [S, K + 1].
    """
    parts = [segment_rows(segment_ids, codes) for segment_ids, codes in context]
    parts.append(text_rows(ids, n_codebooks))
    if begun is not None:
        parts.append(audio_rows(begun))
    return torch.cat(parts)
