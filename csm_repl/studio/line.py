"""One line, from its echo to its joined file."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from csm_repl.events import Echo, EchoTurn, Event, LineDone, TurnDone
from csm_repl.model.device import out_of_memory
from csm_repl.script import Line
from csm_repl.session.conversation import ConversationTurn
from csm_repl.session.takes import LineFiles
from csm_repl.studio.metadata import joined_meta
from csm_repl.studio.turn import Scene, TurnJob

if TYPE_CHECKING:
    from csm_repl.studio.studio import Studio

__all__ = ["LineJob"]


class LineJob:
    """Speaks the turns of a line in order. Made by `Studio.begin`.

    Args:
        studio: for settings, seeds, files and names.
        line: has at least one turn.
        primary: the speaker that the line's offsets count from.
        scene: what the turns hear.

    Raises:
        LineError: a speaker below 0.
    """

    def __init__(self, studio: Studio, line: Line, primary: int, scene: Scene) -> None:
        self._studio = studio
        self._line = line
        self._scene = scene
        speakers = line.speakers(primary)
        self._speakers = set(speakers)
        self._turns = [
            EchoTurn(speaker, studio.voice(speaker), turn.text)
            for speaker, turn in zip(speakers, line.turns, strict=True)
        ]
        self._number = scene.conversation.next_line
        self._files: LineFiles | None = None
        self._seeds: list[int] = []
        self._kept: list[tuple[ConversationTurn, torch.Tensor]] = []
        self._transcript_line: int | None = None

    def reserve(self) -> None:
        """Takes the line's number and seeds now, so that they do not depend on when it is spoken."""
        if self._files is None:
            self._files = self._studio.takes.begin_line(len(self._turns))
            self._seeds = [self._studio.take_seed() for _ in self._turns]

    def run(self) -> Generator[Event, None, None]:
        """As `Studio.speak`, without the voices. A line of its own commits nothing: see `commit`."""
        studio, scene = self._studio, self._scene
        yield Echo(tuple(self._turns))
        files = self._files or studio.takes.begin_line(len(self._turns))
        self._files = files
        done: list[TurnDone] = []
        parts: list[torch.Tensor] = []
        for index, turn in enumerate(self._turns):
            job = TurnJob(
                studio,
                scene,
                turn,
                index=index,
                n_turns=len(self._turns),
                position=self._line.turns[index].position,
                line=self._number,
                files=files,
                seed=self._seeds[index] if self._seeds else studio.take_seed(),
            )
            try:
                yield from job.run(self._speakers, self._keep)
            except KeyboardInterrupt:
                yield from job.interrupted(done)
                return
            except (RuntimeError, MemoryError) as error:
                scene.engine.forget()
                if out_of_memory(error):
                    raise studio.too_big(error) from error
                raise
            assert job.done is not None
            done.append(job.done)
            parts.append(job.samples)
            # Behind the bookkeeping, so that an interrupt by whoever listens finds the turn complete.
            yield job.done
        whole, file = torch.cat(parts), done[0].file
        if len(self._turns) > 1:
            file = files.save_joined(whole, studio.codec.sample_rate, joined_meta(done, studio.model))
        yield LineDone(files.number, file, len(whole) / studio.codec.sample_rate, tuple(done))

    def commit(self) -> None:
        """Enters what was said since the last time into the run's transcript, outside the context."""
        transcript = self._studio.conversation
        kept, self._kept = self._kept, []
        for turn, samples in kept:
            if self._transcript_line is None:
                self._transcript_line = transcript.next_line
            number, line = transcript.next_number, self._transcript_line
            self._studio.keep(replace(turn, number=number, line=line, in_context=False), samples)

    def _keep(self, turn: ConversationTurn, samples: torch.Tensor) -> None:
        if self._scene.conversation is self._studio.conversation:
            self._studio.keep(turn, samples)
        else:
            self._scene.conversation.append(turn)
            self._kept.append((turn, samples))
