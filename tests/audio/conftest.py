from __future__ import annotations

from pathlib import Path

import pytest

from csm_repl.audio import write_audio
from tests.support.speech import tone


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "tone.wav"
    write_audio(path, tone(1.0))
    return path
