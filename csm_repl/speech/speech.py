"""Speaks turns, any number side by side: frames from the engine, samples from the codec, as they are made.

    turn = speech.submit(TurnRequest(...))
    for event in speech.step(): ...

One thread at a time makes steps; `submit` and `abort` may be called from any thread. A step that fails, in
the engine or in the codec, costs no turn anything: the next one goes on. A turn that cannot go on, because
its context cannot be planned or the model gives no numbers, ends with `TurnFailed`; the others go on. The
context is planned when a piece of a turn begins, and again when a take outgrows the room that its text was
given.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from csm_repl.clock import working_seconds
from csm_repl.codec import Codec, chunk_sizes
from csm_repl.engine import Engine, TakeEnded, TakeNoise, TakeRequest
from csm_repl.errors import LineError
from csm_repl.session.context import ContextSpan
from csm_repl.session.conversation import Piece
from csm_repl.speech.request import Cue, HowItEnded, TakeTimings, TurnPiece, TurnRequest, TurnResult
from csm_repl.speech.stages import StageChain

__all__ = ["FrameMade", "Sound", "Speech", "SpeechEvent", "TurnFailed", "TurnOver"]

_BROKEN = (
    "The model gave no numbers (NaN or infinity) for this turn, so it was ended.",
    "Try another text, or $CLEAR$. If every turn ends so, use --dtype float32 or download the model again.",
)
MORE_ROOM = 512
"""Frames to make room for when a take outgrows what its text had been given."""


@dataclass(frozen=True, eq=False)
class Sound:
    """The next samples of a turn, final."""

    turn: int
    """As `submit` called it."""
    samples: torch.Tensor
    """Float32 [n], n > 0."""
    generated_s: float
    """Seconds generated so far, held-back samples included."""
    elapsed_s: float
    """Seconds of work so far."""


@dataclass(frozen=True)
class FrameMade:
    """A frame was made, of which nothing can be heard yet."""

    turn: int
    generated_s: float
    elapsed_s: float


@dataclass(frozen=True, eq=False)
class TurnOver:
    """The last event of a turn."""

    turn: int
    result: TurnResult


@dataclass(frozen=True, eq=False)
class TurnFailed:
    """The last event of a turn that cannot go on. The others do."""

    turn: int
    error: Exception
    result: TurnResult
    """What there is of it, as if it had been stopped."""


SpeechEvent = Sound | FrameMade | TurnOver | TurnFailed
_LAST = (TurnOver, TurnFailed)


class _Turn:
    """A turn between its submission and its end."""

    def __init__(
        self, number: int, request: TurnRequest, queue: deque[SpeechEvent] | None, noise: TakeNoise, rate: int
    ) -> None:
        self.number = number
        self.request = request
        self.queue = queue
        """Where its events go; None: to whoever calls `step`."""
        self.noise = noise
        self.context = request.context
        self.left = deque(request.pieces)
        """Pieces that are not over, the one being said included."""
        self.room = 0
        """Positions that the next plan keeps free for the piece being said."""
        self.take: int | None = None
        """The engine's name of what is being generated."""
        self.slot: int | None = None
        """Of the codec's streams."""
        self.piece_frames: list[torch.Tensor] = []
        """Of the piece being said, each int64 [K]."""
        self.frames: list[torch.Tensor] = []
        self.pending: list[torch.Tensor] = []
        """Frames that were not decoded yet."""
        self.decoded: deque[torch.Tensor] = deque()
        """Samples that have not gone through the stages yet."""
        self.slot_broken = False
        """A pass failed in the codec's slot, so what it held has to be made anew."""
        self.flushed = False
        self.sizes = chunk_sizes()
        self.chunk = next(self.sizes)
        self.stages = StageChain([make(rate) for make in request.stages])
        self.out: list[torch.Tensor] = []
        self.said: list[Piece] = []
        self.heard_own: list[Piece] = []
        """Those of `said` that are still in the context."""
        self.starts: list[tuple[str, int]] = []
        """The pieces' texts and first frames."""
        self.ended: HowItEnded = "end"
        self.over = False
        """No further frame is made."""
        self.dropped: tuple[tuple[ContextSpan, str], ...] = ()
        self.left_out: frozenset[Hashable] | None = None
        self.elapsed_s = 0.0
        self.first_audio_s = 0.0
        self.prefill_s = 0.0
        self.n_prefilled = 0
        self.n_prompt = 0

    @property
    def piece(self) -> TurnPiece:
        return self.left[0]

    def max_frames(self) -> int | None:
        """Frames that the piece being said may still get; None: no ceiling."""
        ceilings = []
        if self.request.max_frames is not None:
            ceilings.append(self.request.max_frames - len(self.frames))
        if self.piece.max_frames is not None:
            ceilings.append(self.piece.max_frames - len(self.piece_frames))
        return min(ceilings, default=None)

    def end_piece(self, ended: HowItEnded) -> None:
        """The piece being said is over."""
        piece = self.left.popleft()
        if self.piece_frames:
            said = Piece(piece.text, piece.ids, torch.stack(self.piece_frames, dim=1))
            self.said.append(said)
            self.heard_own.append(said)
        self.piece_frames = []
        self.take = None
        if ended != "end":
            self.ended = ended
        # A ceiling of the piece's own cuts the piece; the turn's cuts the turn.
        cuts_turn = self.request.max_frames is not None and len(self.frames) >= self.request.max_frames
        self.over = not self.left or ended == "context" or cuts_turn


class Speech:
    """An engine and a codec.

    Args:
        engine: makes the frames; as many turns are spoken at a time as it has slots, others wait.
        codec: of the same model.
    """

    def __init__(self, engine: Engine, codec: Codec) -> None:
        self.engine = engine
        self.codec = codec
        self._streams = codec.streams(engine.n_slots)
        self._free = list(range(engine.n_slots))
        self._owner = threading.Lock()
        self._numbers = itertools.count()
        self._submitted: deque[_Turn] = deque()
        self._aborted: deque[int] = deque()
        self._turns: dict[int, _Turn] = {}
        """All that are not over, in the order of their submission."""
        self._events: list[SpeechEvent] = []

    # --- from any thread --------------------------------------------------------------------------------

    def submit(self, request: TurnRequest) -> int:
        """Takes a turn up; returns what its events call it."""
        return self._submit(request, None).number

    def abort(self, turn: int) -> None:
        """Drops a turn with the next step; no more events come of it. Nothing happens if it is over."""
        self._aborted.append(turn)

    def speak(self, request: TurnRequest) -> Iterator[SpeechEvent]:
        """The events of one turn, the last one a `TurnOver`. Iterators may be read in several threads.

        Raises:
            LineError: the model gave NaN or infinity.
            Exception: what planning the turn's context raised.
        """
        queue: deque[SpeechEvent] = deque()
        turn = self._submit(request, queue)
        try:
            while True:
                self._step_until(lambda: bool(queue))
                event = queue.popleft()
                if isinstance(event, TurnFailed):
                    raise event.error
                yield event
                if isinstance(event, TurnOver):
                    return
        finally:
            self.abort(turn.number)

    def _submit(self, request: TurnRequest, queue: deque[SpeechEvent] | None) -> _Turn:
        noise = self.engine.new_noise(request.options, request.seed)
        turn = _Turn(next(self._numbers), request, queue, noise, self.codec.sample_rate)
        self._submitted.append(turn)
        return turn

    # --- by whoever makes the steps ---------------------------------------------------------------------

    def step(self) -> list[SpeechEvent]:
        """A frame of every turn that is being spoken, and the samples that are ready.

        Returns the events of the turns that were submitted; those of `speak` go there. Empty where there is
        nothing to do (see `n_open`).
        """
        with self._owner:
            self._step()
            events, self._events = self._events, []
        return events

    def stop(self, turn: int) -> TurnResult:
        """Ends a turn now, as interrupted: what was heard of it. The conversation should not get it.

        Raises:
            KeyError: it is over, or never was.
        """
        with self._owner:
            self._take_up()
            if turn not in self._turns and (over := self._untold_end(turn)):
                return over.result
            stopped = self._turns[turn]
            stopped.ended = "interrupted"
            result = self._result(stopped)
            self._drop(stopped)
        return result

    def _untold_end(self, turn: int) -> TurnOver | TurnFailed | None:
        """Of a turn that ended in a step that was interrupted after it."""
        return next(
            (event for event in self._events if isinstance(event, _LAST) and event.turn == turn), None
        )

    @property
    def n_open(self) -> int:
        """Turns that are not over, or whose end `step` has still to tell."""
        untold = sum(isinstance(event, _LAST) for event in self._events)
        return len(self._turns) + len(self._submitted) + untold

    def _step_until(self, ready: Callable[[], bool]) -> None:
        while not ready():
            with self._owner:
                if not ready():
                    self._step()

    def _step(self) -> None:
        started = working_seconds()
        self._take_up()
        for turn in self._turns.values():
            if turn.slot is None and self._free:
                turn.slot = self._free.pop()
        spoken = [turn for turn in self._turns.values() if turn.slot is not None]
        try:
            for turn in spoken:
                try:
                    while turn.take is None and not turn.over:
                        self._begin_piece(turn)
                except Exception as error:
                    self._fail(turn, error)
            spoken = [turn for turn in spoken if turn.number in self._turns]
            self._make_frames({turn.take: turn for turn in spoken if turn.take is not None}, started)
            self._decode([turn for turn in spoken if turn.number in self._turns], started)
        finally:
            now = working_seconds()
            for turn in spoken:
                turn.elapsed_s += now - started
        for turn in spoken:
            if turn.flushed:
                self._finish(turn)

    def _take_up(self) -> None:
        """What other threads want."""
        while self._submitted:
            turn = self._submitted.popleft()
            self._turns[turn.number] = turn
        while self._aborted:
            aborted = self._turns.get(self._aborted.popleft())
            if aborted is not None:
                self._drop(aborted)

    def _begin_piece(self, turn: _Turn) -> None:
        """Plans the context of the piece to be said, or to be gone on with, and submits it."""
        piece, left = turn.piece, turn.max_frames()
        if left is not None and left <= 0:
            turn.end_piece("cut")
            return
        if not turn.piece_frames:
            turn.room = piece.room
            turn.starts.append((piece.text, len(turn.frames)))
        room = turn.room if left is None else min(turn.room, left)
        begun = torch.stack(turn.piece_frames, dim=1) if turn.piece_frames else None
        plan = turn.context.plan(turn.heard_own, piece.ids, begun, room)
        turn.context = turn.context.after(plan)
        gone = plan.gone
        turn.heard_own = [own for own in turn.heard_own if own not in gone]
        turn.dropped += plan.dropped
        turn.left_out = plan.left_out
        if self.engine.max_positions - len(plan.prompt) < min(turn.context.min_room, room):
            turn.end_piece("context")
            return
        turn.take = self.engine.submit(TakeRequest(plan.prompt, max_frames=left, noise=turn.noise))

    def _make_frames(self, takes: dict[int, _Turn], started: float) -> None:
        for event in self.engine.step():
            turn = takes.get(event.take)
            if turn is None:
                # Ctrl-C came between its submission and its being noted.
                self.engine.abort(event.take)
                continue
            if isinstance(event, TakeEnded):
                self._end_take(turn, event)
                continue
            turn.frames.append(event.codes)
            turn.piece_frames.append(event.codes)
            turn.pending.append(event.codes)
            if len(turn.pending) < turn.chunk:
                elapsed_s = turn.elapsed_s + working_seconds() - started
                self._emit(turn, FrameMade(turn.number, self._generated_s(turn), elapsed_s))

    def _end_take(self, turn: _Turn, event: TakeEnded) -> None:
        turn.prefill_s += event.prefill_s
        turn.n_prefilled += event.n_prefilled
        turn.n_prompt = event.n_prompt
        if event.ended == "broken":
            turn.take = None
            self._fail(turn, LineError(*_BROKEN))
        elif event.ended == "context":
            # The context is planned anew, with what has been said so far as its end.
            turn.take, turn.room = None, MORE_ROOM
        else:
            turn.end_piece(event.ended)

    def _decode(self, turns: list[_Turn], started: float) -> None:
        """One pass for all whose next chunk is complete. After a fault it may be called again."""
        due = [turn for turn in turns if turn.pending and (turn.over or len(turn.pending) >= turn.chunk)]
        if due:
            with self._unless_it_fails(due):
                found = self._streams.push({_slot_of(turn): torch.stack(turn.pending, dim=1) for turn in due})
            for turn in due:
                turn.decoded.append(found[_slot_of(turn)])
                turn.pending, turn.chunk = [], next(turn.sizes)
        for turn in turns:
            while turn.decoded:
                self._hand_out(turn, turn.stages.push(turn.decoded.popleft()), started)
            if turn.over and not turn.flushed:
                with self._unless_it_fails([turn]):
                    rest = self._streams.flush(_slot_of(turn))
                turn.flushed = True
                self._hand_out(turn, torch.cat([turn.stages.push(rest), turn.stages.finish()]), started)

    @contextlib.contextmanager
    def _unless_it_fails(self, turns: Sequence[_Turn]) -> Iterator[None]:
        """For a call to the streams. One that fails breaks its slots, which the next call makes anew."""
        for turn in turns:
            if turn.slot_broken:
                self._streams.reset(_slot_of(turn))
                n_decoded = len(turn.frames) - len(turn.pending)
                if n_decoded:
                    self._streams.push({_slot_of(turn): torch.stack(turn.frames[:n_decoded], dim=1)})
            turn.slot_broken = True
        yield
        for turn in turns:
            turn.slot_broken = False

    def _hand_out(self, turn: _Turn, samples: torch.Tensor, started: float) -> None:
        elapsed_s = turn.elapsed_s + working_seconds() - started
        if not len(samples):
            self._emit(turn, FrameMade(turn.number, self._generated_s(turn), elapsed_s))
            return
        if not turn.out:
            turn.first_audio_s = elapsed_s
        turn.out.append(samples)
        self._emit(turn, Sound(turn.number, samples, self._generated_s(turn), elapsed_s))

    def _generated_s(self, turn: _Turn) -> float:
        return len(turn.frames) / self.codec.frame_rate

    def _finish(self, turn: _Turn) -> None:
        self._emit(turn, TurnOver(turn.number, self._result(turn)))
        self._drop(turn)

    def _fail(self, turn: _Turn, error: Exception) -> None:
        turn.ended = "interrupted"
        self._emit(turn, TurnFailed(turn.number, error, self._result(turn)))
        self._drop(turn)

    def _result(self, turn: _Turn) -> TurnResult:
        samples = torch.cat(turn.out) if turn.out else torch.zeros(0)
        codes = torch.zeros(self.engine.n_codebooks, 0, dtype=torch.int64)
        return TurnResult(
            pieces=tuple(turn.said),
            n_pieces_out=len(turn.said) - len(turn.heard_own),
            samples=samples,
            codes=torch.stack(turn.frames, dim=1) if turn.frames else codes,
            cues=self._cues(turn, len(samples)),
            ended=turn.ended,
            timings=TakeTimings(
                turn.elapsed_s, turn.first_audio_s, turn.prefill_s, turn.n_prefilled, turn.n_prompt
            ),
            dropped=turn.dropped,
            left_out=turn.left_out,
        )

    def _cues(self, turn: _Turn, n_samples: int) -> tuple[Cue, ...]:
        bounds = [
            min(frame * self.codec.samples_per_frame, n_samples)
            for frame in (*(first for _, first in turn.starts), len(turn.frames))
        ]
        texts = [text for text, _ in turn.starts]
        return tuple(
            Cue(text, start, end) for text, (start, end) in zip(texts, pairwise(bounds), strict=True)
        )

    def _drop(self, turn: _Turn) -> None:
        if turn.take is not None:
            self.engine.abort(turn.take)
            turn.take = None
        if turn.slot is not None:
            self._streams.reset(turn.slot)
            self._free.append(turn.slot)
        del self._turns[turn.number]

    def _emit(self, turn: _Turn, event: SpeechEvent) -> None:
        (self._events if turn.queue is None else turn.queue).append(event)


def _slot_of(turn: _Turn) -> int:
    assert turn.slot is not None, "the turn has no slot"
    return turn.slot
