"""Model folders to break, and what every message about a broken one must be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csm_repl.errors import CheckpointError, ExitCode
from tests.support.layout_writer import (
    read_original,
    transformers_config,
    transformers_state,
    write_config,
    write_shards,
)


def checked_error(load: Callable[[], Any]) -> CheckpointError:
    """The error of loading a broken model: one paragraph, with a remedy."""
    with pytest.raises(CheckpointError) as caught:
        load()
    error = caught.value
    assert error.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert error.remedy
    assert "\n" not in str(error), "the message must be one paragraph"
    assert len(str(error)) < 600
    return error


def write_as_shards(folder: Path) -> Path:
    """The same model as three shards with an index, in transformers' layout."""
    config, state = read_original(folder)
    (folder / "model.safetensors").unlink()
    write_config(folder, transformers_config(config))
    write_shards(folder, transformers_state(state, config), stem="model")
    return folder
