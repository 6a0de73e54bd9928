"""One turn of a line, from its seed to its file. Knows nothing about the line's other turns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from csm_repl.engine import AnyEngine, SamplingOptions, new_sampler
from csm_repl.errors import LineError
from csm_repl.events import EchoTurn, Event, Stopped, TurnDone, TurnStarted
from csm_repl.session.conversation import Conversation, ConversationTurn
from csm_repl.session.takes import LineFiles
from csm_repl.studio.metadata import turn_meta
from csm_repl.studio.pieces import (
    MIN_PIECE_POSITIONS,
    PIECE_POSITIONS,
    ceiling_frames,
    room_frames,
    split_turn,
)
from csm_repl.studio.take import Take
from csm_repl.studio.window import Window
from csm_repl.voices import Clip

if TYPE_CHECKING:
    from csm_repl.studio.studio import Studio

__all__ = ["Scene", "TurnJob"]


@dataclass(frozen=True)
class Scene:
    """What the turns of a line hear, and who makes their frames."""

    engine: AnyEngine
    window: Window
    conversation: Conversation
    clips: tuple[Clip, ...]
    """The voices' clips as the line found them."""


class TurnJob:
    """Iterate over `run`, then read the results.

    Args:
        studio: for settings, codec and names.
        scene: of the line.
        turn: what is said, and by whom.
        index: which of the line's spoken turns, from 0.
        n_turns: how many the line has.
        position: where the turn stands in the line, empty ones counted.
        line: the line's number in the scene's conversation.
        files: of the line.
        seed: of the take.
    """

    def __init__(
        self,
        studio: Studio,
        scene: Scene,
        turn: EchoTurn,
        *,
        index: int,
        n_turns: int,
        position: int,
        line: int,
        files: LineFiles,
        seed: int,
    ) -> None:
        self._studio = studio
        self._scene = scene
        self._turn = turn
        self._index = index
        self._n_turns = n_turns
        self._position = position
        self._line = line
        self._files = files
        self._seed = seed
        self._take: Take | None = None
        self.done: TurnDone | None = None
        """Set once the take is in its file."""
        self.samples = torch.zeros(0)

    def run(
        self, speakers: set[int], keep: Callable[[ConversationTurn, torch.Tensor], None]
    ) -> Iterator[Event]:
        """Makes the take.

        Args:
            speakers: everybody who speaks in the line.
            keep: takes up the finished turn and its samples.
        """
        studio, turn, settings = self._studio, self._turn, self._studio.settings
        texts = self._pieces()
        rate = studio.codec.frame_rate
        ceilings = [ceiling_frames(text, settings.max_seconds, rate) for text, _ in texts]
        # A ceiling from the text is one a piece, the user's is one for the take.
        known = [ceiling for ceiling in ceilings if ceiling is not None]
        frames = sum(known) if settings.max_seconds is None else max(known, default=None)
        yield TurnStarted(
            self._index, self._n_turns, turn.speaker, turn.voice, turn.text, self._seed,
            None if frames is None else frames / rate,
        )  # fmt: skip
        engine = self._scene.engine
        options = SamplingOptions(settings.temperature, settings.top_k)
        self._take = Take(
            engine,
            studio.codec,
            texts,
            self._prompt_maker(speakers),
            new_sampler(engine.model, options, self._seed),
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
        keep(
            ConversationTurn(
                number=self._scene.conversation.next_number,
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
        """Keeps what there is of this turn as a file, outside the conversation.

        Args:
            done: the line's turns before this one.
        """
        kept = [f"{len(done)} finished turn{'s' if len(done) > 1 else ''}"] if done else []
        if self.done is not None:
            yield self.done
            kept = [f"{len(done) + 1} finished turn{'s' if done else ''}"]
        elif self._take is not None and len(self._take.samples) and self._scene.engine.n_rows == 1:
            # Of takes side by side none is kept: only one of them gets to know that it was stopped.
            self.samples = self._take.samples
            partial = self._save("interrupted")
            yield partial
            kept.append(f"{partial.seconds:.1f} s of this one in {partial.file.name}, outside the context")
        yield Stopped(f"Stopped. Kept: {' and '.join(kept)}." if kept else "Stopped. Nothing was made yet.")

    def _pieces(self) -> list[tuple[str, tuple[int, ...]]]:
        """The turn's pieces with their ids."""
        scene, rate = self._scene, self._studio.codec.frame_rate
        own = [clip for clip in scene.clips if clip.speaker == self._turn.speaker]
        pinned = scene.window.n_clip_positions(own[0]) if own else 0
        limit = max(MIN_PIECE_POSITIONS, min(PIECE_POSITIONS, scene.engine.max_positions - pinned))
        ids = functools.cache(functools.partial(scene.window.ids, self._turn.speaker))

        def n_positions(piece: str) -> int:
            return len(ids(piece)) + room_frames(piece, rate) + 1

        return [(piece, ids(piece)) for piece in split_turn(self._turn.text, n_positions, limit)]

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
        scene, speaker = self._scene, self._turn.speaker
        names = _Names(self._studio.voice)

        def make(
            ids: tuple[int, ...], spoken: list[Any], begun: torch.Tensor | None, room: int
        ) -> tuple[torch.Tensor, str]:
            return scene.window.prompt(
                scene.clips,
                scene.conversation,
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
