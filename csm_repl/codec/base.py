"""What the rest of the program knows about a codec.

Codes are int64 [K, T] with `frame_rate` columns a second; samples are float32 [N] at `sample_rate`, both on
the CPU whatever device the codec works on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch

__all__ = ["Codec", "DecodeStream", "chunk_sizes"]


class DecodeStream(Protocol):
    """Decodes one take piece by piece; the pieces joined equal the whole decoded at once."""

    def push(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [K, n], n >= 1 -> the samples that are final now (none while a look-ahead fills)."""
        ...

    def flush(self) -> torch.Tensor:
        """The samples that were held back; nothing may be pushed afterwards."""
        ...


class Codec(Protocol):
    """Turns sound into codes and back."""

    @property
    def id(self) -> str:
        """Identifies weights and number of codebooks: codes made under another id are not ours."""
        ...

    @property
    def sample_rate(self) -> int: ...

    @property
    def frame_rate(self) -> float: ...

    @property
    def samples_per_frame(self) -> int: ...

    @property
    def n_codebooks(self) -> int: ...

    def encode(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [N >= 1] -> codes [K, ceil(N / samples_per_frame)]."""
        ...

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [K, T] -> samples [T * samples_per_frame]."""
        ...

    def stream(self) -> AbstractContextManager[DecodeStream]:
        """A fresh stream; at most one is open at a time."""
        ...


def chunk_sizes() -> Iterator[int]:
    """How many frames to gather before each decode of a stream.

    A pass costs about the same for one frame as for a few (on a CPU Mimi takes 33 ms for one frame and 70
    ms for ten), so only the first chunk, which decides the time to first audio, is a single frame.
    """
    yield from (1, 2, 4, 8)
    while True:
        yield 12
