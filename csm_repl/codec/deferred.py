"""Streams that decode only when they are flushed.

A codec keeps one stream's state, so takes that are made side by side cannot stream. Their codes wait, and
go through a real stream in the same pieces, which gives the same samples.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from csm_repl.codec.base import Codec, DecodeStream

__all__ = ["deferred_stream"]


@contextlib.contextmanager
def deferred_stream(codec: Codec) -> Iterator[DecodeStream]:
    """As `codec.stream()`, but any number may be open; all samples come out of `flush`."""
    yield _DeferredStream(codec)


class _DeferredStream:
    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._pieces: list[torch.Tensor] = []

    def push(self, codes: torch.Tensor) -> torch.Tensor:
        self._pieces.append(codes)
        return torch.zeros(0)

    def flush(self) -> torch.Tensor:
        with self._codec.stream() as stream:
            return torch.cat([*(stream.push(piece) for piece in self._pieces), stream.flush()])
