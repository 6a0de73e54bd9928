"""The application: lines go in, events come out. Prints nothing and plays nothing.

One `Studio` holds the loaded model, the voices, the conversation and the session's files. Every job is an
iterator of events that runs in the caller's thread; a KeyboardInterrupt in it, or thrown into it, ends the
job in order: what was made is kept, the model stays loaded, and a `Stopped` event says what was kept.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from csm_repl.codec import Codec
from csm_repl.engine import AnyEngine, BatchEngine, Engine
from csm_repl.errors import LineError, OutOfMemoryError
from csm_repl.events import Event, Notice
from csm_repl.model.device import less_memory
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.script import Line
from csm_repl.session.conversation import Conversation, ConversationTurn
from csm_repl.session.takes import TakeFolder
from csm_repl.session.tracks import Tracks
from csm_repl.settings import Settings
from csm_repl.studio.line import LineJob
from csm_repl.studio.metadata import ModelInfo
from csm_repl.studio.turn import Scene
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
        batch_engine: of the same model, for lines side by side.
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
        batch_engine: BatchEngine | None = None,
    ) -> None:
        self.engine = engine
        self.batch_engine = batch_engine
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
        yield from self.refresh_voices()
        job = self.begin(line, primary=primary)
        try:
            yield from job.run()
        finally:
            job.commit()

    def begin(self, line: Line, *, primary: int | None = None, engine: AnyEngine | None = None) -> LineJob:
        """A line that is ready to be spoken, with the voices as they were last seen.

        If lines are independent, its number and seeds are taken here, in the order of the calls. Then any
        number may be begun before the first one is over, and the caller commits each.

        Args:
            line: not empty.
            primary: the speaker that offsets count from; None: the primary speaker.
            engine: makes the frames; None: the studio's own.

        Raises:
            LineError: a speaker below 0.
        """
        primary = self.primary if primary is None else primary
        independent = self.settings.independent
        scene = Scene(
            engine=engine or self.engine,
            window=self.window.fresh() if independent else self.window,
            conversation=Conversation() if independent else self.conversation,
            clips=tuple(self.voices.clips),
        )
        job = LineJob(self, line, primary, scene)
        if independent:
            job.reserve()
        self._last = _Spoken(line, primary)
        return job

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

    def too_big(self, error: BaseException) -> OutOfMemoryError:
        if self.engine.model.device.type == "cuda":
            torch.cuda.empty_cache()
        first_line = (str(error).strip().splitlines() or ["out of memory"])[0]
        return OutOfMemoryError(
            f"The memory of {self.model.device} is exhausted: {first_line[:160]}",
            f"The model is still loaded. Shorten the text. {less_memory(self.engine.model.device)}",
        )
