"""Brings frames from the device to the host, in the order in which they were made."""

from __future__ import annotations

import torch

__all__ = ["Mailbox"]


class Mailbox:
    """Copies a step's results; reading one waits for it.

    Args:
        out: what is posted; `n` results may be on their way at a time.
    """

    def __init__(self, out: torch.Tensor, n: int = 2) -> None:
        self._on_gpu = out.device.type == "cuda"
        self._buffers = [torch.empty(out.shape, dtype=out.dtype, pin_memory=self._on_gpu) for _ in range(n)]
        self._events = [torch.cuda.Event() if self._on_gpu else None for _ in range(n)]
        self._next = 0

    def post(self, out: torch.Tensor) -> int:
        """Starts to copy `out`; returns what `read` wants."""
        ticket, self._next = self._next, (self._next + 1) % len(self._buffers)
        # Without an event there is nothing to wait for, so the copy must be complete.
        self._buffers[ticket].copy_(out, non_blocking=self._on_gpu)
        event = self._events[ticket]
        if event is not None:
            event.record()
        return ticket

    def read(self, ticket: int) -> torch.Tensor:
        """What was posted under this ticket; it may be read again until `n` others have been posted."""
        event = self._events[ticket]
        if event is not None:
            event.synchronize()
        return self._buffers[ticket].clone()
