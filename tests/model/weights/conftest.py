from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def folder(micro_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    target = tmp_path / "model"
    target.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(micro_checkpoint / name, target)
    return target
