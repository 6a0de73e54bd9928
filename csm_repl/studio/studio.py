"""The application: lines go in, events come out. Prints nothing and plays nothing.

One `Studio` holds the loaded model, the voices, the conversation and the session's files. Every job is an
iterator of events that runs in the caller's thread; a KeyboardInterrupt in it, or thrown into it, ends the
job in order: what was made is kept, the model stays loaded, and a `Stopped` event says what was kept.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from csm_repl.codec import Codec
from csm_repl.engine import Engine, Sampler, SamplingOptions
from csm_repl.errors import LineError, OutOfMemoryError
from csm_repl.events import Echo, EchoTurn, Event, LineDone, Notice, Stopped, TurnDone, TurnStarted
from csm_repl.model.device import out_of_memory
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.script import Line
from csm_repl.session.conversation import Conversation, ConversationTurn
from csm_repl.session.takes import LineFiles, TakeFolder
from csm_repl.session.tracks import Tracks
from csm_repl.settings import Settings
from csm_repl.studio.metadata import ModelInfo, joined_meta, turn_meta
from csm_repl.studio.pieces import (
    MIN_PIECE_POSITIONS,
    PIECE_POSITIONS,
    ceiling_frames,
    room_frames,
    split_turn,
)
from csm_repl.studio.take import Take
from csm_repl.studio.window import Window
from csm_repl.voices import VoiceFolder

__all__ = ["Studio"]


@dataclass(frozen=True)
class _Spoken:
    """A line and who was the primary speaker when it was spoken; what `$RETRY$` needs."""

    line: Line
    primary: int


class Studio:
    """Speaks lines.

    Args:
        engine: with the model loaded.
        codec: of the model.
        tokenizer: of the model.
        voices: the folder with reference clips, scanned with this codec.
        takes: names the output files.
        settings: start values; `set` changes the live ones.
        model: what to call the model in files and messages.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        codec: Codec,
        tokenizer: Tokenizer,
        voices: VoiceFolder,
        takes: TakeFolder,
        settings: Settings,
        model: ModelInfo,
    ) -> None:
        self.engine = engine
        self.codec = codec
        self.voices = voices
        self.takes = takes
        self.settings = settings
        self.model = model
        self.primary = settings.speaker
        self.conversation = Conversation()
        self.window = Window(tokenizer, n_codebooks=engine.n_codebooks, limit=engine.max_positions)
        self._tracks = Tracks(codec.sample_rate) if settings.tracks else None
        self.next_seed = settings.seed
        """Seed of the next take; None: it is drawn."""
        self._last: _Spoken | None = None

    # --- voices ---------------------------------------------------------------------------------------

    def refresh_voices(self) -> Iterator[Event]:
        """Takes up what changed in the references folder."""
        with contextlib.closing(self.voices.look()) as changes:
            for change in changes:
                yield Notice(change.message, "warning" if change.kind == "unusable" else "info")

    def voice(self, speaker: int) -> str:
        """What to call a speaker."""
        return self.voices.name(speaker)

    @property
    def context_used(self) -> int:
        """Positions that the context of the primary speaker's next turn takes before its own text."""
        return self.window.n_context(self.voices.clips, self.conversation, speakers={self.primary})

    # --- lines ----------------------------------------------------------------------------------------

    def speak(self, line: Line, *, primary: int | None = None) -> Iterator[Event]:
        """Speaks the turns of a line, in order.

        Raises:
            LineError: a speaker below 0; nothing is spoken then.
            OutputError: a take could not be written; the turns before it are kept.
            OutOfMemoryError: the device's memory is exhausted; the model stays loaded.
        """
        if line.empty:
            return
        primary = self.primary if primary is None else primary
        yield from self.refresh_voices()
        speakers = line.speakers(primary)
        turns = [
            EchoTurn(speaker, self.voice(speaker), turn.text)
            for speaker, turn in zip(speakers, line.turns, strict=True)
        ]
        yield Echo(tuple(turns))
        self._last = _Spoken(line, primary)
        files = self.takes.begin_line(len(turns))
        number = self.conversation.next_line
        done: list[TurnDone] = []
        parts: list[torch.Tensor] = []
        for index, turn in enumerate(turns):
            job = _TurnJob(self, turn, index, len(turns), number, line.turns[index].position, files)
            try:
                yield from job.run(set(speakers))
            except KeyboardInterrupt:
                yield from job.interrupted(done)
                return
            except (RuntimeError, MemoryError) as error:
                self.engine.forget()
                if out_of_memory(error):
                    raise self._too_big(error) from error
                raise
            assert job.done is not None
            done.append(job.done)
            parts.append(job.samples)
            # Behind the bookkeeping, so that an interrupt by whoever listens finds the turn complete.
            yield job.done
        whole, file = torch.cat(parts), done[0].file
        if len(turns) > 1:
            file = files.save_joined(whole, self.codec.sample_rate, joined_meta(done, self.model))
        yield LineDone(files.number, file, len(whole) / self.codec.sample_rate, tuple(done))

    def retry(self) -> Iterator[Event]:
        """Drops the last line's turns from the context and speaks them again with new seeds."""
        if self._last is None:
            raise LineError("There is no line to make again.", "Type one.")
        last = self._last
        self.conversation.undo()
        yield from self.speak(last.line, primary=last.primary)

    def undo(self) -> list[ConversationTurn]:
        """Drops the last line's turns from the context; files stay."""
        self._last = None
        return self.conversation.undo()

    def clear(self) -> int:
        """Forgets the conversation; returns how many turns it had."""
        n_turns = len(self.conversation)
        self.conversation.clear()
        self.window.forget()
        self._last = None
        return n_turns

    def adopt(self, conversation: Conversation, primary: int) -> None:
        """Goes on with a loaded conversation."""
        self.conversation, self.primary, self._last = conversation, primary, None
        self.window.forget()

    def set(self, name: str, value: Any) -> None:
        """Changes a live setting to an already parsed value."""
        self.settings = self.settings.with_value(name, value, "$SET$")
        if name == "seed":
            self.next_seed = value

    def finish(self) -> list[Path]:
        """Writes the speakers' tracks, if asked for; call once at the end of the run."""
        return self._tracks.write(self.takes) if self._tracks is not None else []

    # --- what a turn needs ----------------------------------------------------------------------------

    def take_seed(self) -> int:
        """The next take's seed: counted on from the user's, or drawn."""
        if self.next_seed is None:
            return random.SystemRandom().randrange(2**32)
        seed, self.next_seed = self.next_seed, self.next_seed + 1
        return seed

    def keep(self, turn: ConversationTurn, samples: torch.Tensor) -> None:
        self.conversation.append(turn)
        if self._tracks is not None:
            names = [clip.name for clip in self.voices.of(turn.speaker) if clip.name]
            self._tracks.add(turn.speaker, samples, names[0] if names else "")

    def split(self, speaker: int, text: str) -> list[tuple[str, tuple[int, ...]]]:
        """A turn's pieces with their ids."""
        clips = self.voices.of(speaker)
        pinned = self.window.n_clip_positions(clips[0]) if clips else 0
        limit = max(MIN_PIECE_POSITIONS, min(PIECE_POSITIONS, self.engine.max_positions - pinned))
        ids = functools.cache(functools.partial(self.window.ids, speaker))

        def n_positions(piece: str) -> int:
            return len(ids(piece)) + room_frames(piece, self.codec.frame_rate) + 1

        return [(piece, ids(piece)) for piece in split_turn(text, n_positions, limit)]

    def _too_big(self, error: BaseException) -> OutOfMemoryError:
        if self.engine.model.device.type == "cuda":
            torch.cuda.empty_cache()
        first_line = (str(error).strip().splitlines() or ["out of memory"])[0]
        return OutOfMemoryError(
            f"The memory of {self.model.device} is exhausted: {first_line[:160]}",
            "The model is still loaded. Close other programs, shorten the text, or start again with "
            "--device cpu or --dtype bfloat16.",
        )


class _TurnJob:
    """One turn of a line, from its seed to its file."""

    def __init__(
        self,
        studio: Studio,
        turn: EchoTurn,
        index: int,
        n_turns: int,
        line: int,
        position: int,
        files: LineFiles,
    ) -> None:
        self._studio = studio
        self._turn = turn
        self._index = index
        self._n_turns = n_turns
        self._line = line
        self._position = position
        self._files = files
        self._take: Take | None = None
        self._seed = 0
        self.done: TurnDone | None = None
        self.samples = torch.zeros(0)

    def run(self, speakers: set[int]) -> Iterator[Event]:
        studio, turn, settings = self._studio, self._turn, self._studio.settings
        self._seed = studio.take_seed()
        texts = studio.split(turn.speaker, turn.text)
        rate = studio.codec.frame_rate
        ceilings = [ceiling_frames(text, settings.max_seconds, rate) for text, _ in texts]
        # A ceiling from the text is one a piece, the user's is one for the take.
        known = [ceiling for ceiling in ceilings if ceiling is not None]
        frames = sum(known) if settings.max_seconds is None else max(known, default=None)
        yield TurnStarted(
            self._index, self._n_turns, turn.speaker, turn.voice, turn.text, self._seed,
            None if frames is None else frames / rate,
        )  # fmt: skip
        self._take = Take(
            studio.engine,
            studio.codec,
            texts,
            self._prompt_maker(speakers),
            Sampler(
                SamplingOptions(settings.temperature, settings.top_k),
                seed=self._seed,
                n_codebooks=studio.engine.n_codebooks,
                vocab_size=studio.engine.model.config.audio_vocab_size,
                device=studio.engine.model.device,
            ),
            max_seconds=settings.max_seconds,
            trim_tail=settings.trim_tail,
        )
        yield from self._take.run()
        self.samples = self._take.samples
        if not len(self.samples):
            raise LineError(
                f"The model had nothing to say for {turn.text[:40]!r}.",
                "Try $RETRY$, a higher temperature or top-k, or another text.",
            )
        self.done = self._save(self._take.ended)
        studio.keep(
            ConversationTurn(
                number=studio.conversation.next_number,
                line=self._line,
                position=self._position,
                speaker=turn.speaker,
                voice=turn.voice,
                text=turn.text,
                pieces=tuple(self._take.pieces),
                seconds=self.done.seconds,
                seed=self._seed,
                ended=self.done.ended,
                file=self.done.file,
                n_pieces_out=len(self._take.pieces) - len(self._take.spoken),
            ),
            self.samples,
        )

    def interrupted(self, done: list[TurnDone]) -> Iterator[Event]:
        """Keeps what there is of this turn as a file, outside the conversation."""
        kept = [f"{len(done)} finished turn{'s' if len(done) > 1 else ''}"] if done else []
        if self.done is not None:
            yield self.done
            kept = [f"{len(done) + 1} finished turn{'s' if done else ''}"]
        elif self._take is not None and len(self._take.samples):
            self.samples = self._take.samples
            partial = self._save("interrupted")
            yield partial
            kept.append(f"{partial.seconds:.1f} s of this one in {partial.file.name}, outside the context")
        yield Stopped(f"Stopped. Kept: {' and '.join(kept)}." if kept else "Stopped. Nothing was made yet.")

    def _save(self, ended: Any) -> TurnDone:
        studio, turn, take = self._studio, self._turn, self._take
        assert take is not None
        seconds = len(self.samples) / studio.codec.sample_rate
        meta = turn_meta(
            text=turn.text,
            speaker=turn.speaker,
            voice=turn.voice,
            seed=self._seed,
            settings=studio.settings,
            model=studio.model,
            ended=ended,
            seconds=seconds,
            n_frames=take.codes.shape[1],
            timings=take.timings,
        )
        file = self._files.save_turn(
            self.samples,
            studio.codec.sample_rate,
            meta,
            take.codes if studio.settings.keep_codes else None,
            position=self._position + 1,
        )
        return TurnDone(
            index=self._index,
            n_turns=self._n_turns,
            speaker=turn.speaker,
            voice=turn.voice,
            text=turn.text,
            file=file,
            seconds=seconds,
            elapsed_s=take.timings.elapsed_s,
            first_audio_s=take.timings.first_audio_s,
            seed=self._seed,
            ended=ended,
            meta=meta,
        )

    def _prompt_maker(self, speakers: set[int]) -> Callable[..., tuple[torch.Tensor, str]]:
        studio, speaker = self._studio, self._turn.speaker
        names = _Names(studio.voice)

        def make(
            ids: tuple[int, ...], spoken: list[Any], begun: torch.Tensor | None, room: int
        ) -> tuple[torch.Tensor, str]:
            return studio.window.prompt(
                studio.voices.clips,
                studio.conversation,
                spoken,
                speaker=speaker,
                speakers=speakers,
                ids=ids,
                begun=begun,
                room=room,
                names=names,
            )

        return make


class _Names(Mapping[int, str]):
    """The voices' names, asked for when needed."""

    def __init__(self, name: Callable[[int], str]) -> None:
        self._name = name

    def __getitem__(self, speaker: int) -> str:
        return self._name(speaker)

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0
