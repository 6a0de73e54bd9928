"""One take: the pieces of a turn through the engine and the codec, as a stream of samples.

Knows nothing about files, where seeds come from, or who listens.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from csm_repl.codec import Codec, chunk_sizes
from csm_repl.codec.base import DecodeStream
from csm_repl.engine import AnyEngine, Sampler
from csm_repl.events import Audio, Notice
from csm_repl.session.conversation import Piece
from csm_repl.studio.pieces import ceiling_frames, room_frames
from csm_repl.studio.tail import TailTrimmer

__all__ = ["MakePrompt", "Take", "TakeTimings"]

MIN_ROOM = 16
"""A context that cannot give this many frames ends the take."""
MORE_ROOM = 512
"""Frames to make room for when a take outgrows what its text had been given."""

Ended = Literal["end", "cut", "context"]
MakePrompt = Callable[[tuple[int, ...], list[Piece], "torch.Tensor | None", int], tuple[torch.Tensor, str]]
"""Ids of a piece, the turn's pieces so far (those that leave the context leave the list), the piece's codes
so far [K, T], room to keep in positions -> rows of the prompt, and what had to leave in one sentence."""


@dataclass
class TakeTimings:
    """Seconds of work (the listener's time is not in them) and positions.

    Beside other takes it is the time from the first to the last moment: no work is one take's alone.
    """

    elapsed_s: float = 0.0
    first_audio_s: float = 0.0
    prefill_s: float = 0.0
    n_prefilled: int = 0
    n_prompt: int = 0


class _Stopwatch:
    def __init__(self, *, pauses: bool) -> None:
        self._pauses = pauses
        self._total = 0.0
        self._since: float | None = None

    def resume(self) -> None:
        if self._since is None:
            self._since = time.perf_counter()

    def pause(self) -> None:
        if self._pauses:
            self._total, self._since = self.elapsed_s, None

    @property
    def elapsed_s(self) -> float:
        return self._total + (time.perf_counter() - self._since if self._since is not None else 0.0)


class Take:
    """Speaks the pieces of one turn; iterate over `run`, then read the results.

    Args:
        engine: makes frames, of several takes side by side if it can.
        codec: makes samples of them.
        texts: the pieces of the turn, each with its ids.
        make_prompt: plans the context and lays out the prompt.
        sampler: the take's own noise.
        max_seconds: the user's ceiling for the whole take; None: judged from each piece's text.
        trim_tail: whether silence at the end is left out of the samples.
    """

    def __init__(
        self,
        engine: AnyEngine,
        codec: Codec,
        texts: Sequence[tuple[str, tuple[int, ...]]],
        make_prompt: MakePrompt,
        sampler: Sampler,
        *,
        max_seconds: float | None,
        trim_tail: bool,
    ) -> None:
        self._engine = engine
        self._codec = codec
        self._texts = texts
        self._make_prompt = make_prompt
        self._sampler = sampler
        self._max_seconds = max_seconds
        self._trimmer = TailTrimmer(codec.sample_rate, enabled=trim_tail)
        self._side_by_side = engine.n_rows > 1
        self._watch = _Stopwatch(pauses=not self._side_by_side)
        self._frames: list[torch.Tensor] = []
        self._out: list[torch.Tensor] = []
        self.pieces: list[Piece] = []
        """What is done and may enter the conversation."""
        self.spoken: list[Piece] = []
        """Those of them that are still in the context: a long turn pushes its own beginning out."""
        self.ended: Ended = "end"
        self.timings = TakeTimings()

    @property
    def samples(self) -> torch.Tensor:
        """What went out so far, float32 [N]."""
        return torch.cat(self._out) if self._out else torch.zeros(0)

    @property
    def codes(self) -> torch.Tensor:
        """All codes so far, int64 [K, T]."""
        if not self._frames:
            return torch.zeros(self._engine.n_codebooks, 0, dtype=torch.int64)
        return torch.stack(self._frames, dim=1)

    def run(self) -> Iterator[Audio | Notice]:
        """Generates and decodes; an exception or Ctrl-C passes through and what went out stays valid."""
        self._watch.resume()
        try:
            for event in self._run():
                self._watch.pause()
                yield event
                self._watch.resume()
        finally:
            self.timings.elapsed_s = self._watch.elapsed_s

    def _run(self) -> Iterator[Audio | Notice]:
        with self._codec.stream() as stream:
            sizes = chunk_sizes()
            size, pending = next(sizes), list[torch.Tensor]()
            for item in self._generate():
                if isinstance(item, Notice):
                    yield item
                    continue
                if item is not None:
                    pending.append(item)
                if item is None or len(pending) < size:
                    yield self._audio(torch.zeros(0))
                    continue
                yield self._audio(self._trimmer.push(_decode(stream, pending)))
                size, pending = next(sizes), []
            rest = torch.cat([_decode(stream, pending), stream.flush()])
            yield self._audio(torch.cat([self._trimmer.push(rest), self._trimmer.finish()]))

    def _audio(self, samples: torch.Tensor) -> Audio:
        elapsed_s = self._watch.elapsed_s
        if len(samples):
            if not self._out:
                self.timings.first_audio_s = elapsed_s
            self._out.append(samples)
        generated_s = len(self._frames) / self._codec.frame_rate
        return Audio(samples, self._codec.sample_rate, generated_s, elapsed_s)

    def _generate(self) -> Iterator[torch.Tensor | Notice | None]:
        for text, ids in self._texts:
            frames: list[torch.Tensor] = []
            ended = yield from self._generate_piece(text, ids, frames)
            if frames:
                piece = Piece(text, ids, torch.stack(frames, dim=1))
                self.spoken.append(piece)
                self.pieces.append(piece)
            if ended != "end":
                self.ended = ended
            # A ceiling from the text cuts its own piece; the user's is for the whole take.
            if ended == "context" or (ended == "cut" and self._max_seconds is not None):
                return

    def _generate_piece(
        self, text: str, ids: tuple[int, ...], frames: list[torch.Tensor]
    ) -> Generator[torch.Tensor | Notice | None, None, Ended]:
        """Frames [K] of one piece, None where only time passes; returns how it ended.

        A take may outgrow the room that its text was given. Then the context is planned anew, with what has
        been said so far as its end, and generation goes on.
        """
        ceiling = ceiling_frames(text, self._max_seconds, self._codec.frame_rate)
        if ceiling is not None and self._max_seconds is not None:
            ceiling -= len(self._frames)
            if ceiling <= 0:
                return "cut"
        room = room_frames(text, self._codec.frame_rate)
        while True:
            left = None if ceiling is None else ceiling - len(frames)
            room = room if left is None else min(room, left)
            begun = torch.stack(frames, dim=1) if frames else None
            rows, notice = self._make_prompt(ids, self.spoken, begun, room)
            if notice:
                yield Notice(notice)
            if self._engine.max_positions - len(rows) < min(MIN_ROOM, room):
                return "context"
            generation = self._engine.generate(rows, max_frames=left, sampler=self._sampler)
            with contextlib.closing(generation):
                if self._side_by_side:
                    # The others get to ask for their first frames too before anybody's is made.
                    yield None
                for frame in generation:
                    frames.append(frame)
                    self._frames.append(frame)
                    yield frame
            self.timings.prefill_s += generation.prefill_s
            self.timings.n_prefilled += generation.n_prefilled
            self.timings.n_prompt = generation.n_prompt
            if generation.ended != "context":
                return generation.ended or "end"
            room = MORE_ROOM


def _decode(stream: DecodeStream, frames: list[torch.Tensor]) -> torch.Tensor:
    return stream.push(torch.stack(frames, dim=1)) if frames else torch.zeros(0)
