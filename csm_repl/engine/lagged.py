"""Takes whose next frame is under way before the last one is looked at: what keeps a GPU from waiting.

The end of a take is seen one frame late, so a frame may have been made that nobody wants. It is dropped, and
leaves no trace: the cache does not count its position, and its noise is put back. Where a take can end is
known beforehand (its ceiling, the context), nothing is made beyond.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from csm_repl.engine.engine import Engine, Generation, first_frame_redraws
from csm_repl.engine.sampling import Sampler
from csm_repl.engine.step import MakeRunner
from csm_repl.model.csm import CSM

__all__ = ["LaggedEngine", "LaggedGeneration", "Mailbox"]


class Mailbox:
    """Brings the step's results to the host in the order in which they were made; reading one waits for it.

    Args:
        out: what is posted; `n` results may be on their way at a time.
    """

    def __init__(self, out: torch.Tensor, n: int = 2) -> None:
        on_gpu = out.device.type == "cuda"
        self._buffers = [torch.empty(out.shape, dtype=out.dtype, pin_memory=on_gpu) for _ in range(n)]
        self._events = [torch.cuda.Event() if on_gpu else None for _ in range(n)]
        self._next = 0

    def post(self, out: torch.Tensor) -> int:
        """Starts to copy `out`; returns what `read` wants."""
        ticket, self._next = self._next, (self._next + 1) % len(self._buffers)
        self._buffers[ticket].copy_(out, non_blocking=True)
        event = self._events[ticket]
        if event is not None:
            event.record()
        return ticket

    def read(self, ticket: int) -> torch.Tensor:
        event = self._events[ticket]
        if event is not None:
            event.synchronize()
        return self._buffers[ticket].clone()


class LaggedEngine(Engine):
    """An engine whose frames come from a runner.

    Args:
        model: loaded.
        make_runner: runs the frame step, for one row.
    """

    def __init__(self, model: CSM, make_runner: MakeRunner) -> None:
        super().__init__(model)
        self.runner = make_runner(model, self._slot.cache)
        self.mailbox = Mailbox(self.runner.step.out)

    def _new_generation(self, rows: torch.Tensor, sampler: Sampler, max_frames: int | None) -> Generation:
        return LaggedGeneration(self, rows, sampler, max_frames)


@dataclass(frozen=True)
class _Launched:
    """A frame that is under way."""

    ticket: int
    before: torch.Tensor
    """The noise's state before the frame's was drawn."""


class LaggedGeneration(Generation):
    """The frames of one take. Between two of them, the next one is being made already."""

    def __init__(
        self, engine: LaggedEngine, rows: torch.Tensor, sampler: Sampler, max_frames: int | None
    ) -> None:
        super().__init__(engine, rows, sampler, max_frames)
        self._lagged = engine
        self._step = engine.runner.step
        self._this: _Launched | None = None
        """The frame that will be handed out next."""
        self._ahead: _Launched | None = None
        """The one after it."""
        self._ready: torch.Tensor | None = None
        """The frame of `_this`, read: an interrupt behind that must not lose it."""
        self._handed_out: torch.Tensor | None = None
        self._in_step = False
        """Whether the step's buffers hold the newest frame that was launched; an interrupt spoils that."""

    def close(self) -> None:
        """Drops what is under way."""
        launched = self._this or self._ahead
        self._this = self._ahead = None
        if launched is not None:
            self.sampler.restore(launched.before)

    def _next_frame(self) -> torch.Tensor:
        index = self.n_frames
        if index == 0 and self._ready is None:
            self._ready = self._first_frame()
        if index and self._this is None and self._ready is None:
            self._launch(index)
        # The first frame is not looked at late: it may have to be drawn again, and somebody waits for it.
        may_follow = index > 0 or self._ready is None or bool(self._ready.any())
        if may_follow and self._ahead is None and self._end_at(index + 1) is None:
            self._launch(index + 1)
        if self._ready is None:
            assert self._this is not None
            self._ready = self._lagged.mailbox.read(self._this.ticket)[0, :-1]
        return self._hand_out(self._ready)

    def _hand_out(self, frame: torch.Tensor) -> torch.Tensor:
        if self._handed_out is not None:
            self._lagged._slot.note_frame(self.n_prompt + self.n_frames - 1, self._handed_out)
        dropped = None if frame.any() else self._ahead
        self._handed_out, self._ready = frame, None
        self._this, self._ahead = (None, None) if dropped is not None else (self._ahead, None)
        if dropped is not None:
            self.sampler.restore(dropped.before)
        return frame

    def _first_frame(self) -> torch.Tensor:
        if self._hidden is None:
            self._hidden = self._prefill()
        options = self.sampler.options
        self._lagged.runner.fit(self.sampler.k)
        self._step.set_row(0, options)
        self._step.hidden[0].copy_(self._hidden)
        before = self.sampler.state()
        try:
            frame = self._drawn()
            for _ in range(first_frame_redraws(options)):
                if frame.any():
                    break
                frame = self._drawn()
        except BaseException:
            self.sampler.restore(before)
            raise
        self._in_step = True
        return frame

    def _drawn(self) -> torch.Tensor:
        self._draw_step()
        return self._lagged.mailbox.read(self._lagged.mailbox.post(self._step.out))[0, :-1]

    def _draw_step(self) -> None:
        if not self.sampler.options.greedy:
            self._step.set_noise(0, self.sampler.next_exponential())
        self._lagged.runner.draw(1)

    def _launch(self, index: int) -> None:
        """Starts frame `index`, whose predecessor is in the step's buffers."""
        if not self._in_step:
            self._step.codes[0].copy_(self._frame_before(index))
        before = self.sampler.state()
        is_next = index == self.n_frames
        try:
            self._in_step = False
            position = self.n_prompt + index - 1
            self._step.positions.fill_(position)
            self._lagged.runner.advance(position + 1, 1)
            self._draw_step()
            launched = _Launched(self._lagged.mailbox.post(self._step.out), before)
            self._this, self._ahead = (launched, None) if is_next else (self._this, launched)
            self._in_step = True
        except BaseException:
            self._in_step = False
            self._this, self._ahead = (None, None) if is_next else (self._this, None)
            self.sampler.restore(before)
            raise

    def _frame_before(self, index: int) -> torch.Tensor:
        """Frame `index - 1` on the host."""
        if index == self.n_frames:
            assert self._handed_out is not None
            return self._handed_out
        if self._ready is None:
            assert self._this is not None
            self._ready = self._lagged.mailbox.read(self._this.ticket)[0, :-1]
        return self._ready
