"""What the rest of the program knows about a codec.

Codes are int64 [K, T] with `frame_rate` columns a second; samples are float32 [N] at `sample_rate`, both on
the CPU whatever device the codec works on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import torch

__all__ = ["Codec", "DecodeStream", "DecodeStreams", "chunk_sizes"]


class DecodeStream(Protocol):
    """Decodes one take piece by piece; the pieces joined equal the whole decoded at once."""

    def push(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [K, n], n >= 1 -> the samples that are final now (none while a look-ahead fills)."""
        ...

    def flush(self) -> torch.Tensor:
        """The samples that were held back; the next piece begins another take."""
        ...


class DecodeStreams(Protocol):
    """Decodes the takes of several slots piece by piece, each as if it were alone.

    Of each slot, the samples joined equal the whole take decoded at once. A call that raises after it has
    begun to work (a fault on the device, Ctrl-C) leaves its slots broken: they refuse everything but `reset`,
    and the others go on. A call that is refused for its arguments changes nothing. Threads may share the
    object; their calls wait for each other.
    """

    @property
    def n_slots(self) -> int: ...

    def push(self, pieces: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        """Codes [K, n >= 1] by slot -> the samples [m] of each that are final now (m may be 0).

        The pieces may differ in length; as far as they go together they are decoded in one pass.

        Raises:
            IndexError: there is no such slot.
            ValueError: a piece has another shape.
            RuntimeError: a slot is broken.
        """
        ...

    def flush(self, slot: int) -> torch.Tensor:
        """The samples of a slot that were held back; the slot is then as new."""
        ...

    def reset(self, slot: int) -> None:
        """Forgets what a slot holds: its next piece begins a take."""
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

    def streams(self, n_slots: int) -> DecodeStreams:
        """Fresh streams. Any number of such objects may exist, and `encode` and `decode` may be called
        meanwhile, from any thread."""
        ...

    def stream(self) -> AbstractContextManager[DecodeStream]:
        """A fresh stream for a single take, closed at the end of the block."""
        ...


def chunk_sizes() -> Iterator[int]:
    """How many frames to gather before each decode of a stream.

    A pass costs about the same for one frame as for a few (on a CPU Mimi takes 33 ms for one frame and 70
    ms for ten), so only the first chunk, which decides the time to first audio, is a single frame.
    """
    yield from (1, 2, 4, 8)
    while True:
        yield 12
