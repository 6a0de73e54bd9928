from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from csm_repl.events import Event
from csm_repl.settings import load_settings
from csm_repl.studio import Studio, open_studio
from csm_repl.studio.commands import run_line
from tests.speech import write_clip
from tools.random_checkpoint import TINY_FLAVORS, write_checkpoint

MakeStudio = Callable[..., Studio]


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """Two voices: speaker 0 without a name, speaker 1 called anna."""
    folder = tmp_path / "references"
    write_clip(folder / "reference.wav", "The first voice.", pitch_hz=110)
    write_clip(folder / "reference1-anna.wav", "The second voice.", pitch_hz=210)
    return folder


@pytest.fixture(scope="session")
def quick_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four codebooks, all 2048 positions, takes that end after about ten frames. Read-only."""
    folder = tmp_path_factory.mktemp("models") / "csm-random-quick"
    return write_checkpoint(folder, flavors={**TINY_FLAVORS, "audio_num_codebooks": 4}, ends=True)


@pytest.fixture
def make_studio(quick_checkpoint: Path, tmp_path: Path, references: Path) -> MakeStudio:
    def make(**flags: Any) -> Studio:
        values = {
            "model": str(quick_checkpoint),
            "dtype": "float32",
            "references": str(references),
            "output": str(tmp_path / "outputs"),
            "whisper_model": "off",
            "seed": "1",
            **flags,
        }
        studio = open_studio(load_settings(values, environ={}, dotenv=None))
        list(studio.refresh_voices())
        return studio

    return make


def say(studio: Studio, text: str) -> list[Event]:
    """All events of one input line."""
    return list(run_line(studio, text))


def of_type(events: Iterable[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]
