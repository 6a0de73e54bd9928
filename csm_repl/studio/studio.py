"""The application: lines go in, events come out. Prints nothing and plays nothing.

One `Studio` holds the loaded model, the voices, the conversation and the session's files. Every job is an
iterator of events that runs in the caller's thread; a KeyboardInterrupt in it, or thrown into it, ends the
job in order: what was made is kept, the model stays loaded, and a `Stopped` event says what was kept.
"""

from __future__ import annotations

import contextlib
import random
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from csm_repl.codec import Codec
from csm_repl.engine import Engine
from csm_repl.errors import LineError, OutOfMemoryError
from csm_repl.events import Event, Notice, ScriptLine, Withdrawn
from csm_repl.loaded import LoadedModel
from csm_repl.model.device import less_memory, out_of_memory
from csm_repl.outputs.takes import TakeFolder
from csm_repl.outputs.tracks import Tracks
from csm_repl.paths import is_plain_file
from csm_repl.session.conversation import Conversation, ConversationTurn
from csm_repl.session.numbers import TakeNumber
from csm_repl.session.store import Saved, save_session, saved_folder
from csm_repl.settings import Origin, Settings
from csm_repl.speech import Heard, Planner, Speech, SpeechEvent
from csm_repl.studio.hints import SpeakerHints
from csm_repl.studio.line import LineJob, SpokenTurn
from csm_repl.studio.turns import line_turns
from csm_repl.text.grammar import Line, Turn
from csm_repl.text.voice_names import Roster
from csm_repl.voices import VoiceFolder
from csm_repl.voices.pronounce_file import PronounceFile

__all__ = ["Studio"]


@dataclass(frozen=True)
class _Spoken:
    """A line that was begun; what `$RETRY$` needs."""

    line: Line
    primary: int
    """The primary speaker then."""
    script: ScriptLine | None
    job: LineJob


class Studio:
    """Speaks lines.

    Args:
        model: loaded; as many lines can be spoken side by side as its engine has slots.
        voices: the folder with reference clips, scanned with the model's codec.
        takes: names the output files.
        settings: start values; `set` changes the live ones.
    """

    def __init__(
        self, *, model: LoadedModel, voices: VoiceFolder, takes: TakeFolder, settings: Settings
    ) -> None:
        self.model = model.info
        self.voices = voices
        self.takes = takes
        self.settings = settings
        self.conversation = Conversation()
        self.speech = Speech(model.engine, model.codec)
        self.planner = Planner(
            model.tokenizer,
            n_codebooks=model.engine.n_codebooks,
            n_positions=model.engine.max_positions,
            frame_rate=model.codec.frame_rate,
        )
        self._left_out: frozenset[Any] = frozenset()
        """Clips that have left the context."""
        self._waiting: deque[SpeechEvent] = deque()
        """What the last step made and the line has not heard yet."""
        self._pronounce = PronounceFile(settings.references)
        self._tracks = Tracks(model.codec.sample_rate) if settings.tracks else None
        self.part = ""
        """Title of the part of the script that is being spoken, from its last heading."""
        self.next_seed = settings.seed
        """Seed of the next take; None: it is drawn."""
        self._last: _Spoken | None = None
        self._copied_from: dict[Path, Path] = {}
        """Of each file in a session that was saved in this run, the take that it is a copy of."""
        self._hints = SpeakerHints()

    @property
    def primary(self) -> int:
        """The speaker that offsets count from."""
        return self.settings.speaker

    @property
    def engine(self) -> Engine:
        return self.speech.engine

    @property
    def codec(self) -> Codec:
        return self.speech.codec

    # --- voices ---------------------------------------------------------------------------------------

    @property
    def roster(self) -> Roster:
        """The voices' names, by which turns call them."""
        return Roster(self.voices.speakers)

    def refresh_voices(self) -> Iterator[Event]:
        """Takes up what changed in the references folder."""
        with contextlib.closing(self.voices.look()) as changes:
            for change in changes:
                yield Notice(change.message, "warning" if change.is_warning else "info")
        for text in self._pronounce.look():
            yield Notice(text, "warning")

    def voice(self, speaker: int) -> str:
        """What to call a speaker."""
        return self.voices.name(speaker)

    @property
    def context_used(self) -> int:
        """Positions that the context of the primary speaker's next turn takes before its own text."""
        return self.planner.n_context(self._heard(), self.primary)

    def _heard(self) -> Heard:
        """What the next turn can hear."""
        clips = tuple(self.voices.clips)
        if self.settings.independent:
            return Heard(clips)
        return Heard(clips, tuple(self.conversation.spans()), self._left_out)

    # --- lines ----------------------------------------------------------------------------------------

    def speak(
        self, line: Line, *, primary: int | None = None, script: ScriptLine | None = None
    ) -> Iterator[Event]:
        """Speaks the turns of a line, in order.

        Raises:
            LineError: a speaker below 0 or above the last one; nothing is spoken then.
            OutputError: a take could not be written; the turns before it are kept.
            OutOfMemoryError: the device's memory is exhausted; the model stays loaded.
        """
        if line.empty:
            return
        yield from self.refresh_voices()
        job = self.begin(line, primary=primary, script=script)
        try:
            yield from self._run(job)
        except KeyboardInterrupt:
            yield from job.stop(self._waiting)
        except (RuntimeError, MemoryError) as error:
            told = self.failure(job, error)
            yield from job.what_left()
            if told is error:
                raise
            raise told from error
        finally:
            if not job.over:
                job.drop()
            self.commit(job)

    def begin(self, line: Line, *, primary: int | None = None, script: ScriptLine | None = None) -> LineJob:
        """A line that is ready to be spoken, with the voices as they were last seen.

        It takes its number now; an independent one its seeds too, in the order of the calls. So any number of
        these may be begun before the first one is over.

        Args:
            line: not empty.
            primary: the speaker that offsets count from; None: the primary speaker.
            script: where the line was read.

        Raises:
            LineError: a speaker below 0 or above the last one, or a turn with nothing to say.
        """
        primary = self.primary if primary is None else primary
        turns, unwritable = line_turns(
            line,
            primary,
            names=self.voices.speakers,
            normalize=self.settings.normalize,
            table=self._pronounce.table,
            unwritable=self.planner.unwritable,
        )
        heard = self._heard()
        known = {turn.speaker for turn in turns} | {clip.speaker for clip in heard.clips}
        known |= {span.speaker for span in heard.spans}
        seeds = iter(self.take_seed, None)
        if self.settings.independent:
            seeds = iter([self.take_seed() for _ in turns])
        job = LineJob(
            turns,
            notices=[*self._hints.about(line, primary, self.voices), *([unwritable] if unwritable else [])],
            heard=heard,
            names={speaker: self.voice(speaker) for speaker in known},
            script=script,
            part=self.part,
            seeds=seeds,
            files=self.takes.begin_line(len(turns)),
            settings=self.settings,
            model=self.model,
            planner=self.planner,
            speech=self.speech,
        )
        self._last = _Spoken(line, primary, script, job)
        return job

    def _run(self, job: LineJob) -> Iterator[Event]:
        self._waiting.clear()
        for event in job.start():
            yield event
        while not job.over:
            if not self._waiting:
                self._waiting.extend(self.speech.step())
                continue
            for event in job.hear(self._waiting[0]):
                if not self.settings.independent:
                    # Before anybody hears of it, so that an interrupt by whoever listens finds it complete.
                    self.commit(job)
                yield event
            self._waiting.popleft()

    def commit(self, job: LineJob) -> None:
        """Enters what a line has said since the last time into the conversation.

        An independent line's turns are in it too, outside the context. They may be committed when the line is
        over only, so that the turns of a line stay together.
        """
        while job.spoken:
            self._keep(job.spoken.popleft())

    def _keep(self, spoken: SpokenTurn) -> None:
        turn, done, result = spoken.turn, spoken.done, spoken.result
        conversation, independent = self.conversation, self.settings.independent
        if not independent:
            conversation.drop(result.gone)
            self._left_out = self._left_out if result.left_out is None else result.left_out
        conversation.append(
            ConversationTurn(
                line=spoken.line,
                position=turn.position,
                speaker=turn.speaker,
                voice=turn.voice,
                text=turn.text,
                pieces=result.pieces,
                seconds=done.seconds,
                seed=done.seed,
                ended=done.ended,
                file=done.file,
                n_turns=done.n_turns,
                # Of a pause alone there is nothing to hear.
                in_context=not independent and bool(result.pieces),
                n_pieces_out=result.n_pieces_out,
            )
        )
        if self._tracks is not None:
            names = [clip.name for clip in self.voices.of(turn.speaker) if clip.name]
            self._tracks.add(done.file, turn.speaker, len(result.samples), names[0] if names else "")

    def failure(self, job: LineJob, error: RuntimeError | MemoryError) -> Exception:
        """Ends a line whose step failed; what to tell the user."""
        job.drop()
        self.engine.forget()
        return self._too_big(error) if out_of_memory(error) else error

    def retry(self) -> Iterator[Event]:
        """Speaks the last line again with new seeds, in place of its turns in the conversation.

        Where nothing comes of it, because it is stopped or fails before the end of its first turn, the turns
        that there were stay.

        Raises:
            LineError: there is no line; otherwise as `speak`.
        """
        last, turns = self._last, self.conversation.last_turns()
        if last is not None:
            # Of a line that came to nothing there are none.
            turns = [turn for turn in turns if turn.line == last.job.number]
            line, primary, script = last.line, last.primary, last.script
        elif turns:
            # Loaded, or the last one after an `undo`.
            line = Line(tuple(Turn(turn.position, turn.text, turn.speaker, True) for turn in turns))
            primary, script = 0, None
        else:
            raise LineError("There is no line to speak again.", "Type one first.")
        if turns:
            self.conversation.undo()
        n_before = len(self.conversation)
        error = None
        try:
            yield from self.speak(line, primary=primary, script=script)
        except Exception as caught:
            error = caught
        finally:
            replaced = len(self.conversation) > n_before
            if not replaced:
                self.conversation.put_back(turns)
                self._last = last
        if turns and replaced:
            yield self.withdraw(turns)
        elif turns:
            yield Notice(f"Line {turns[0].line} stays as it was.")
        if error is not None:
            raise error

    def undo(self) -> list[ConversationTurn]:
        """Drops the last line's turns from the context; files stay."""
        self._last = None
        return self.conversation.undo()

    def sound_of(self, number: TakeNumber | None = None) -> list[Path]:
        """The files of a line or turn, in the order in which they are to be heard; None: of the newest line.

        A loaded line is found where it was saved, turn by turn.

        Raises:
            LineError: there is none.
        """
        lines = sorted({*self.takes.lines(), *(turn.line for turn in self.conversation.turns)})
        if not lines:
            raise LineError("No line has been spoken yet.", "Type one.")
        number = TakeNumber(lines[-1]) if number is None else number
        said = self.conversation.find(number)
        files = [turn.file for turn in said if turn.file is not None and is_plain_file(turn.file)]
        if not files or files[0].parent == self.takes.folder:
            files = self.takes.find(number) or files
        if files:
            return files
        what = f"turn {number}" if number.turn else f"line {number}"
        if said:
            raise LineError(f"The sound of {what} is gone.", "$HISTORY$ shows which lines have a file.")
        have = f"line {lines[0]}" if len(lines) == 1 else f"lines {lines[0]} to {lines[-1]}"
        raise LineError(f"There is no {what}.", f"This session has {have}; $HISTORY$ lists the conversation.")

    def withdraw(self, turns: Sequence[ConversationTurn]) -> Withdrawn:
        """Takes turns that were dropped out of the tracks, and tells front ends to."""
        files = tuple(self._copied_from.get(turn.file, turn.file) for turn in turns if turn.file is not None)
        if self._tracks is not None:
            self._tracks.withdraw(files)
        return Withdrawn(files)

    def clear(self) -> int:
        """Forgets the conversation; returns how many turns it had."""
        n_turns = len(self.conversation)
        self.conversation.clear()
        self._left_out = frozenset()
        self._last = None
        return n_turns

    def save(self, name: str) -> Saved:
        """Saves the conversation as the session `name`.

        Raises:
            LineError, OutputError: as `saved_folder` and `save_session`.
        """
        header = {"model": self.model.name, "revision": self.model.revision, "primary": self.primary}
        saved = save_session(self.conversation, saved_folder(self.takes.root, name), header=header)
        for turn in self.conversation.turns:
            if turn.file is not None:
                # Loaded again, it is the same turn, which may be dropped and leave the exports.
                take = self._copied_from.get(turn.file, turn.file)
                self._copied_from[saved.folder / f"{turn.number.stem}.wav"] = take
        return saved

    def adopt(self, conversation: Conversation, primary: int) -> None:
        """Goes on with a loaded conversation."""
        self.conversation, self._last = conversation, None
        self.set("speaker", primary, origin="$LOAD$")
        self.takes.go_on_after(conversation.last_line)
        self._left_out = frozenset()

    def set(self, name: str, value: Any, origin: Origin = "$SET$") -> None:
        """Changes a live setting to an already parsed value."""
        self.settings = self.settings.with_value(name, value, origin)
        if name == "seed":
            self.next_seed = value

    def finish(self) -> Iterator[Path]:
        """Writes the speakers' tracks, if asked for, and yields each; once, at the end of the run.

        Raises:
            OutputError: as `Tracks.write`.
        """
        if self._tracks is not None:
            yield from self._tracks.write(self.takes)

    # --- what a turn needs ----------------------------------------------------------------------------

    def take_seed(self) -> int:
        """The next take's seed: counted on from the user's, or drawn."""
        if self.next_seed is None:
            return random.SystemRandom().randrange(2**32)
        seed, self.next_seed = self.next_seed, self.next_seed + 1
        return seed

    def _too_big(self, error: BaseException) -> OutOfMemoryError:
        if self.engine.model.device.type == "cuda":
            torch.cuda.empty_cache()
        first_line = (str(error).strip().splitlines() or ["out of memory"])[0]
        return OutOfMemoryError(
            f"The memory of {self.model.device} is exhausted: {first_line[:160]}",
            f"The model is still loaded. Shorten the text. {less_memory(self.engine.model.device)}",
        )
