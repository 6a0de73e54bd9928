"""What the prompt reads of a studio, without a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from csm_repl.events import Event
from csm_repl.loaded import ModelInfo
from csm_repl.outputs.takes import TakeFolder
from csm_repl.session.conversation import Conversation
from csm_repl.settings import Settings
from csm_repl.text.voice_names import Roster


@dataclass
class FakeVoices:
    names: dict[int, str]
    clips: tuple[Any, ...] = ()
    unusable: tuple[Any, ...] = ()
    root: Path = Path("references")

    def name(self, speaker: int) -> str:
        return self.names.get(speaker, f"speaker {speaker}")

    def of(self, speaker: int) -> tuple[Any, ...]:
        return tuple(clip for clip in self.clips if clip.speaker == speaker)

    def refresh(self) -> list[Any]:
        return []


@dataclass
class FakeStudio:
    """The attributes of `Studio` that the console reads."""

    takes: TakeFolder
    voices: FakeVoices = field(default_factory=lambda: FakeVoices({0: "anna", 1: "ben"}))
    settings: Settings = field(default_factory=Settings)
    primary: int = 0
    conversation: Conversation = field(default_factory=Conversation)
    model: ModelInfo = field(
        default_factory=lambda: ModelInfo(
            name="fake", revision=None, device="cpu", dtype="float32", quantize="none", n_parameters=1
        )
    )
    engine: Any = field(default_factory=lambda: SimpleNamespace(max_positions=2048))
    context_used: int = 0
    next_seed: int | None = None

    def voice(self, speaker: int) -> str:
        return self.voices.name(speaker)

    @property
    def roster(self) -> Roster:
        return Roster(self.voices.names)

    def refresh_voices(self) -> Iterator[Event]:
        return iter(())

    def set(self, name: str, value: Any) -> None:
        self.settings = self.settings.with_value(name, value, "$SET$")
