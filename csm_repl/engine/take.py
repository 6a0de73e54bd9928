"""One take: what the engine notes of it, and an iterator of its frames for whoever reads only that one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from csm_repl.engine.request import Ended, Frame, TakeEnded
from csm_repl.engine.sampling import TakeNoise

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Generation", "MakesSteps", "TakeState"]


@dataclass(eq=False)
class TakeState:
    """A take between its submission and its end."""

    id: int
    prompt: torch.Tensor
    """Int64 [S, K + 1] on the CPU."""
    noise: TakeNoise
    max_frames: int | None
    max_positions: int
    """Of the model: prompt and frames together."""
    queue: deque[Frame | TakeEnded] | None
    """Where its events go; None: to whoever calls `step`."""
    slot: int | None = None
    """None while it waits for one."""
    hidden: torch.Tensor | None = None
    """The backbone's state after the prompt, [D]; None while positions of the prompt are missing."""
    last: torch.Tensor | None = None
    """Its newest frame on the host, int64 [K]. Its keys and values are made when the next one is."""
    n_frames: int = 0
    """Frames that were handed out."""
    n_prefilled: int = 0
    prefill_s: float = 0.0

    @property
    def n_prompt(self) -> int:
        return len(self.prompt)

    def end_after(self, n_frames: int) -> Ended | None:
        """Why no frame may follow after so many."""
        if self.max_frames is not None and n_frames >= self.max_frames:
            return "cut"
        return "context" if self.n_prompt + n_frames >= self.max_positions else None

    def ended_event(self, ended: Ended) -> TakeEnded:
        return TakeEnded(self.id, ended, self.n_frames, self.n_prompt, self.n_prefilled, self.prefill_s)


class MakesSteps(Protocol):
    """What a generation asks of its engine."""

    def step_until(self, ready: Callable[[], bool]) -> None: ...

    def abort(self, take: int) -> None: ...


@dataclass(eq=False)
class Generation(Iterator[torch.Tensor]):
    """The frames of one take, each int64 [K] on the CPU. Made by `Engine.generate`.

    Asking for a frame makes steps, in which other takes get frames as well. A generation that is not wanted
    any more should be closed, because its slot is not free before.
    """

    engine: MakesSteps
    take: TakeState
    queue: deque[Frame | TakeEnded] = field(default_factory=deque)
    ended: Ended | None = None
    """Why it is over; None: it is not, or it was closed."""
    n_frames: int = 0
    closed: bool = False

    @property
    def noise(self) -> TakeNoise:
        """For a take that goes on where this one ended."""
        return self.take.noise

    @property
    def n_prompt(self) -> int:
        return self.take.n_prompt

    @property
    def n_prefilled(self) -> int:
        return self.take.n_prefilled

    @property
    def prefill_s(self) -> float:
        return self.take.prefill_s

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> torch.Tensor:
        if self.ended is not None or self.closed:
            raise StopIteration
        self.engine.step_until(lambda: bool(self.queue))
        event = self.queue.popleft()
        if isinstance(event, TakeEnded):
            self.ended = event.ended
            raise StopIteration
        self.n_frames += 1
        return event.codes

    def close(self) -> None:
        """Frees the slot; what was made and not handed out is dropped. The slot keeps what it holds."""
        if self.ended is None and not self.closed:
            self.closed = True
            self.queue.clear()
            self.engine.abort(self.take.id)

    def __del__(self) -> None:
        self.close()
