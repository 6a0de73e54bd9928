"""A model and a folder of voices for the program in a pipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.speech import write_clip


@pytest.fixture(scope="session")
def model(quick_checkpoint: Path) -> Path:
    return quick_checkpoint


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder that the program is started in, with two voices."""
    write_clip(tmp_path / "references" / "reference.wav", "The first voice.")
    write_clip(tmp_path / "references" / "reference1-anna.wav", "The second voice.", pitch_hz=210)
    return tmp_path
