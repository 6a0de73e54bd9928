from __future__ import annotations

from pathlib import Path

import pytest

from csm_repl.files.hub import find_model
from csm_repl.loaded import LoadedModel, open_model
from csm_repl.model.device import choose_placement


def _open(folder: Path) -> LoadedModel:
    return open_model(find_model(str(folder)), choose_placement("cpu", "float32", "none"))


@pytest.fixture(scope="session")
def quick(quick_checkpoint: Path) -> LoadedModel:
    """Takes end after about ten frames."""
    return _open(quick_checkpoint)


@pytest.fixture(scope="session")
def micro(micro_checkpoint: Path) -> LoadedModel:
    """96 positions; takes end where they are told to."""
    return _open(micro_checkpoint)
