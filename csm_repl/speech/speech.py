"""Speaks turns, any number side by side: frames from the engine, samples from the codec, as they are made.

    turn = speech.submit(TurnRequest(...))
    for event in speech.step(): ...

One thread at a time makes steps; `submit` and `abort` may be called from any thread. A step that fails, in
the engine or in the codec, costs no turn anything: the next one goes on. A turn that cannot go on, because
its context cannot be planned or the model gives no numbers, ends with `TurnFailed`; the others go on. The
context is planned when a piece of a turn begins, and again when a take outgrows the room that its text was
given. Before a pause the sound is brought to its end, as at the end of a turn; then comes the silence, and
what follows begins as a turn does.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

import torch

from csm_repl.clock import working_seconds
from csm_repl.codec import Codec
from csm_repl.engine import Engine, TakeEnded, TakeRequest
from csm_repl.errors import LineError
from csm_repl.speech.open_turn import OpenTurn
from csm_repl.speech.request import TakeTimings, TurnPiece, TurnRequest, TurnResult
from csm_repl.text.pauses import Pause

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


class Speech:
    """An engine and a codec.

    Args:
        engine: makes the frames; as many turns are spoken at a time as it has slots, others wait.
        codec: of the same model.
        owner: held by whoever makes steps; shared by those that share a model.
    """

    def __init__(self, engine: Engine, codec: Codec, owner: threading.Lock | None = None) -> None:
        self.engine = engine
        self.codec = codec
        self._streams = codec.streams(engine.n_slots)
        self._free = list(range(engine.n_slots))
        self._owner = owner or threading.Lock()
        self._numbers = itertools.count()
        self._submitted: deque[OpenTurn] = deque()
        self._aborted: deque[int] = deque()
        self._turns: dict[int, OpenTurn] = {}
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

    def speak_all(self, requests: Sequence[TurnRequest]) -> Generator[tuple[int, SpeechEvent], None, None]:
        """The events of several turns as they are made, each with the index of its request.

        As many are spoken at a time as there are slots. The last event of each is a `TurnOver` or a
        `TurnFailed`; the others go on. Threads may read such iterators at the same time.
        """
        queue: deque[SpeechEvent] = deque()
        index_of = {self._submit(request, queue).number: index for index, request in enumerate(requests)}
        open_turns = set(index_of)
        try:
            while open_turns:
                self._step_until(lambda: bool(queue))
                event = queue.popleft()
                if isinstance(event, _LAST):
                    open_turns.discard(event.turn)
                yield index_of[event.turn], event
        finally:
            for number in open_turns:
                self.abort(number)

    def _submit(self, request: TurnRequest, queue: deque[SpeechEvent] | None) -> OpenTurn:
        noise = self.engine.new_noise(request.options, request.seed)
        turn = OpenTurn(next(self._numbers), request, queue, noise, self.codec.sample_rate)
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
                    while turn.take is None and not turn.over and isinstance(turn.piece, TurnPiece):
                        self._begin_piece(turn, turn.piece)
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

    def _begin_piece(self, turn: OpenTurn, piece: TurnPiece) -> None:
        """Plans the context of the piece to be said, or to be gone on with, and submits it."""
        left = turn.max_frames()
        if left is not None and left <= 0:
            turn.end_piece("cut")
            return
        if not turn.piece_frames:
            turn.room = piece.room
            turn.stretches[-1].starts.append((piece.text, len(turn.frames)))
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

    def _make_frames(self, takes: dict[int, OpenTurn], started: float) -> None:
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

    def _end_take(self, turn: OpenTurn, event: TakeEnded) -> None:
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

    def _decode(self, turns: list[OpenTurn], started: float) -> None:
        """One pass for all whose next chunk is complete. After a fault it may be called again."""
        ending = {turn.number for turn in turns if turn.over or turn.at_pause}
        due = [
            turn
            for turn in turns
            if turn.pending and (turn.number in ending or len(turn.pending) >= turn.chunk)
        ]
        if due:
            with self._unless_it_fails(due):
                found = self._streams.push({_slot_of(turn): torch.stack(turn.pending, dim=1) for turn in due})
            for turn in due:
                turn.decoded.append(found[_slot_of(turn)])
                turn.pending, turn.chunk = [], next(turn.sizes)
        for turn in turns:
            while turn.decoded:
                self._hand_out(turn, turn.stages.push(turn.decoded.popleft()), started)
            if turn.number not in ending or turn.flushed:
                continue
            if not turn.stretches[-1].starts:
                turn.flushed = True  # a pause is all there was
            else:
                with self._unless_it_fails([turn]):
                    rest = self._streams.flush(_slot_of(turn))
                turn.flushed = True
                self._hand_out(turn, torch.cat([turn.stages.push(rest), turn.stages.finish()]), started)
            turn.end_stretch()
            if not turn.over:
                self._pause(turn, started)

    def _pause(self, turn: OpenTurn, started: float) -> None:
        """Hands out the silence that is next, and gets ready for what follows."""
        while turn.left and isinstance(pause := turn.left[0], Pause):
            turn.left.popleft()
            silence = torch.zeros(round(pause.seconds * turn.rate))
            if len(silence):
                turn.out.append(silence)
                elapsed_s = turn.elapsed_s + working_seconds() - started
                self._emit(turn, Sound(turn.number, silence, self._generated_s(turn), elapsed_s))
        turn.over = not turn.left
        if not turn.over:
            turn.begin_stretch()

    @contextlib.contextmanager
    def _unless_it_fails(self, turns: Sequence[OpenTurn]) -> Iterator[None]:
        """For a call to the streams. One that fails breaks its slots, which the next call makes anew."""
        for turn in turns:
            if turn.slot_broken:
                self._streams.reset(_slot_of(turn))
                decoded = turn.frames[turn.stretches[-1].first_frame : len(turn.frames) - len(turn.pending)]
                if decoded:
                    self._streams.push({_slot_of(turn): torch.stack(decoded, dim=1)})
            turn.slot_broken = True
        yield
        for turn in turns:
            turn.slot_broken = False

    def _hand_out(self, turn: OpenTurn, samples: torch.Tensor, started: float) -> None:
        elapsed_s = turn.elapsed_s + working_seconds() - started
        if not len(samples):
            self._emit(turn, FrameMade(turn.number, self._generated_s(turn), elapsed_s))
            return
        if not turn.first_audio_s:
            turn.first_audio_s = elapsed_s
        turn.out.append(samples)
        self._emit(turn, Sound(turn.number, samples, self._generated_s(turn), elapsed_s))

    def _generated_s(self, turn: OpenTurn) -> float:
        return len(turn.frames) / self.codec.frame_rate

    def _finish(self, turn: OpenTurn) -> None:
        self._emit(turn, TurnOver(turn.number, self._result(turn)))
        self._drop(turn)

    def _fail(self, turn: OpenTurn, error: Exception) -> None:
        turn.ended = "interrupted"
        self._emit(turn, TurnFailed(turn.number, error, self._result(turn)))
        self._drop(turn)

    def _result(self, turn: OpenTurn) -> TurnResult:
        samples = torch.cat(turn.out) if turn.out else torch.zeros(0)
        codes = torch.zeros(self.engine.n_codebooks, 0, dtype=torch.int64)
        return TurnResult(
            pieces=tuple(turn.said),
            n_pieces_out=len(turn.said) - len(turn.heard_own),
            samples=samples,
            codes=torch.stack(turn.frames, dim=1) if turn.frames else codes,
            cues=tuple(turn.cues(self.codec.samples_per_frame)),
            ended=turn.ended,
            timings=TakeTimings(
                turn.elapsed_s, turn.first_audio_s, turn.prefill_s, turn.n_prefilled, turn.n_prompt
            ),
            dropped=turn.dropped,
            left_out=turn.left_out,
        )

    def _drop(self, turn: OpenTurn) -> None:
        if turn.take is not None:
            self.engine.abort(turn.take)
            turn.take = None
        if turn.slot is not None:
            self._streams.reset(turn.slot)
            self._free.append(turn.slot)
        del self._turns[turn.number]

    def _emit(self, turn: OpenTurn, event: SpeechEvent) -> None:
        (self._events if turn.queue is None else turn.queue).append(event)


def _slot_of(turn: OpenTurn) -> int:
    assert turn.slot is not None, "the turn has no slot"
    return turn.slot
