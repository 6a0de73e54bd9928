"""One line, from its echo to its joined file, driven from outside: speech events in, user events out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from csm_repl.engine import SamplingOptions
from csm_repl.errors import LineError, OutputError
from csm_repl.events import (
    Audio,
    Echo,
    EchoTurn,
    Event,
    LineDone,
    Notice,
    Progress,
    ScriptLine,
    Stopped,
    TurnDone,
    TurnStarted,
)
from csm_repl.loaded import ModelInfo
from csm_repl.outputs.takes import LineFiles
from csm_repl.session.context import ContextSpan, describe
from csm_repl.session.numbers import TakeNumber
from csm_repl.settings import Settings
from csm_repl.speech import (
    FrameMade,
    Heard,
    PlannedContext,
    Planner,
    Sound,
    Speech,
    SpeechEvent,
    TurnFailed,
    TurnOver,
    TurnPiece,
    TurnRequest,
    TurnResult,
    ceiling_frames,
    tail_trimmer,
)
from csm_repl.speech.request import HowItEnded
from csm_repl.studio.metadata import joined_meta, turn_meta
from csm_repl.studio.turns import LineTurn

__all__ = ["LineJob", "SpokenTurn"]


@dataclass(frozen=True, eq=False)
class SpokenTurn:
    """A turn that is in its file and may enter the conversation."""

    turn: LineTurn
    done: TurnDone
    result: TurnResult
    line: int
    """The number of its line."""


class LineJob:
    """The turns of a line, spoken in order. Made by `Studio.begin`.

    Args:
        turns: at least one.
        notices: warnings that go with the echo.
        heard: what the first of them hears.
        names: of all speakers, for notices.
        script: where the line was read.
        part: of the script, as its last heading names it.
        seeds: one for each turn.
        files: of the line.
        settings: as they are now.
        model: what to call it in files.
        planner: of the model.
        speech: says the turns.
    """

    def __init__(
        self,
        turns: Sequence[LineTurn],
        *,
        notices: Sequence[str],
        heard: Heard,
        names: Mapping[int, str],
        script: ScriptLine | None,
        part: str,
        seeds: Iterator[int],
        files: LineFiles,
        settings: Settings,
        model: ModelInfo,
        planner: Planner,
        speech: Speech,
    ) -> None:
        self._turns = turns
        self._notices = notices
        self._heard = heard
        self._names = names
        self._script = script
        self._part = part
        self._seeds = seeds
        self._files = files
        self._settings = settings
        self._model = model
        self._planner = planner
        self._speech = speech
        self._rate = speech.codec.sample_rate
        self._index = 0
        self.number = 0
        """Of the line, once a turn of it is in its file."""
        self._seed = 0
        self._done: list[TurnDone] = []
        self._parts: list[torch.Tensor] = []
        self._dropped: list[tuple[ContextSpan, str]] = []
        """What has left the context for those that are done, and nobody was told."""
        self.turn: int | None = None
        """What speech events call the turn that is being spoken."""
        self.over = False
        self.spoken: deque[SpokenTurn] = deque()
        """Turns that are done and that nobody has taken up yet."""

    def start(self) -> Iterator[Event]:
        """Echoes the line and begins its first turn."""
        yield Echo(tuple(self._echo(turn) for turn in self._turns))
        for text in self._notices:
            yield Notice(text, "warning")
        yield from self._begin_turn()

    @staticmethod
    def _echo(turn: LineTurn) -> EchoTurn:
        return EchoTurn(turn.speaker, turn.voice, turn.text, turn.said if turn.said != turn.text else "")

    def hear(self, event: SpeechEvent) -> Iterator[Event]:
        """What an event of the turn that is being spoken means for the line; other turns' mean nothing.

        Raises:
            LineError: the model had nothing to say, or gave no numbers.
            OutputError: the take cannot be written.
        """
        if event.turn != self.turn:
            return
        if isinstance(event, Sound):
            yield Audio(event.samples, self._rate, event.generated_s, event.elapsed_s)
        elif isinstance(event, FrameMade):
            yield Progress(event.generated_s, event.elapsed_s)
        else:
            self.turn = None
            try:
                if isinstance(event, TurnFailed):
                    self.over = True
                    raise event.error
                yield from self._end_turn(event.result)
            except Exception:
                yield from self.what_left()
                raise

    def stop(self, waiting: Iterable[SpeechEvent] = ()) -> Iterator[Event]:
        """Ends the line, and keeps what there is of its turn as a file outside the conversation.

        Args:
            waiting: events that were made and not heard.
        """
        result, nothing = self._stop_turn(waiting), "Nothing was made yet."
        kept = [f"{len(self._done)} finished turn{'s' if len(self._done) > 1 else ''}"] if self._done else []
        if result is not None and len(result.samples):
            try:
                partial = self._save(result, "interrupted")
            except OutputError as error:
                yield Notice(str(error), "warning")
                nothing = ""
            else:
                yield partial
                what = f"{partial.seconds:.1f} s of this one"
                kept.append(f"{what} in {partial.file.name}, outside the context")
        yield from self.what_left()
        yield Stopped(f"Stopped. Kept: {' and '.join(kept)}." if kept else f"Stopped. {nothing}".strip())

    def what_left(self) -> Iterator[Event]:
        """Tells once what has left the context for the turns that are done."""
        dropped, self._dropped = self._dropped, []
        if notice := describe(dropped, self._heard.spans, self._names):
            yield Notice(notice)

    def drop(self) -> None:
        """Ends the line; what there is of its turn is lost."""
        self._stop_turn(())

    def _stop_turn(self, waiting: Iterable[SpeechEvent]) -> TurnResult | None:
        """What there is of the turn that is being spoken."""
        turn, self.turn, self.over = self.turn, None, True
        if turn is None:
            return None
        for event in waiting:
            if isinstance(event, TurnOver | TurnFailed) and event.turn == turn:
                return event.result
        return self._speech.stop(turn)

    def _begin_turn(self) -> Iterator[Event]:
        turn, settings, rate = self._turns[self._index], self._settings, self._speech.codec.frame_rate
        pieces = self._planner.pieces(turn.said, turn.speaker, self._heard.clips, settings.max_seconds)
        max_frames = None
        if settings.max_seconds is not None:
            max_frames = ceiling_frames(turn.said, settings.max_seconds, rate)
        ceilings = [max_frames]
        if settings.max_seconds is None:
            ceilings = [each.max_frames for each in pieces if isinstance(each, TurnPiece)]
        known = [ceiling for ceiling in ceilings if ceiling is not None]
        self._seed = next(self._seeds)
        yield TurnStarted(
            self._index, len(self._turns), turn.speaker, turn.voice, turn.text, self._seed,
            sum(known) / rate if known else None,
        )  # fmt: skip
        context = PlannedContext(
            self._planner,
            self._heard,
            turn.speaker,
            frozenset(other.speaker for other in self._turns),
        )
        self.turn = self._speech.submit(
            TurnRequest(
                pieces,
                context,
                SamplingOptions(settings.temperature, settings.top_k),
                self._seed,
                max_frames,
                (tail_trimmer,) if settings.trim_tail else (),
            )
        )

    def _end_turn(self, result: TurnResult) -> Iterator[Event]:
        turn = self._turns[self._index]
        if not len(result.samples):
            raise LineError(
                f"The model had nothing to say for {turn.text[:40]!r}.",
                "Try $RETRY$, a higher temperature or top-k, or another text.",
            )
        done = self._save(result, result.ended)
        self._heard = self._heard.without(result.gone, result.left_out).followed_by(
            result.pieces[result.n_pieces_out :], turn.speaker, ("line", self._index)
        )
        self._dropped += result.dropped
        self._parts.append(result.samples)
        self._done.append(done)
        # Should a name have been taken meanwhile, the line's later files have another number.
        self.number = self.number or self._files.number
        self.spoken.append(SpokenTurn(turn, done, result, self.number))
        yield done
        self._index += 1
        if self._index < len(self._turns):
            yield from self._begin_turn()
        else:
            yield from self.what_left()
            self.over = True
            yield self._end_line()

    def _end_line(self) -> LineDone:
        whole, file = torch.cat(self._parts), self._done[0].file
        if len(self._turns) > 1:
            file = self._files.save_joined(
                whole, self._rate, joined_meta(self._done, self._model, self._script, self._part)
            )
        return LineDone(self._files.number, file, len(whole) / self._rate, tuple(self._done))

    def _save(self, result: TurnResult, ended: HowItEnded) -> TurnDone:
        turn, seconds = self._turns[self._index], len(result.samples) / self._rate
        meta = turn_meta(
            text=turn.text,
            said=turn.said,
            replacements=turn.replacements,
            speaker=turn.speaker,
            voice=turn.voice,
            seed=self._seed,
            settings=self._settings,
            model=self._model,
            ended=ended,
            seconds=seconds,
            n_frames=result.codes.shape[1],
            timings=result.timings,
            script=self._script,
            part=self._part,
        )
        file = self._files.save_turn(
            result.samples,
            self._rate,
            meta,
            result.codes if self._settings.keep_codes else None,
            position=turn.position + 1,
        )
        return TurnDone(
            index=self._index,
            n_turns=len(self._turns),
            speaker=turn.speaker,
            voice=turn.voice,
            text=turn.text,
            file=file,
            seconds=seconds,
            elapsed_s=result.timings.elapsed_s,
            first_audio_s=result.timings.first_audio_s,
            seed=self._seed,
            ended=ended,
            meta=meta,
            number=str(TakeNumber.of_stem(file.stem) or ""),
        )
