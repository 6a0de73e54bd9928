"""A model and a folder of voices for the program in a pipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.speech import write_clip
from tools.random_checkpoint import TINY_FLAVORS, write_checkpoint


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model in the published layout whose takes end."""
    folder = tmp_path_factory.mktemp("models") / "csm-random-quick"
    return write_checkpoint(folder, flavors={**TINY_FLAVORS, "audio_num_codebooks": 4}, ends=True)


@pytest.fixture(scope="package")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "csm-random-endless"
    return write_checkpoint(folder, flavors={**TINY_FLAVORS, "audio_num_codebooks": 4}, ends=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder that the program is started in, with two voices."""
    write_clip(tmp_path / "references" / "reference.wav", "The first voice.")
    write_clip(tmp_path / "references" / "reference1-anna.wav", "The second voice.", pitch_hz=210)
    return tmp_path
