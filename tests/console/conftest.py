from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from csm_repl.outputs.takes import TakeFolder
from tests.console.fakes import FakeStudio
from tests.console.terminal import Terminal, program
from tests.speech import write_clip
from tools.random_checkpoint import TINY_FLAVORS, write_checkpoint

Start = Callable[..., Terminal]
QUICK = {**TINY_FLAVORS, "audio_num_codebooks": 4}


@pytest.fixture(scope="session")
def quick_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes end by themselves after about ten frames."""
    return write_checkpoint(tmp_path_factory.mktemp("models") / "csm-random-quick", flavors=QUICK, ends=True)


@pytest.fixture(scope="session")
def endless_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes last until something stops them."""
    folder = tmp_path_factory.mktemp("models") / "csm-random-endless"
    return write_checkpoint(folder, flavors=QUICK, ends=False)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program runs: two voices, and a state folder of its own."""
    folder = tmp_path_factory.mktemp("home")
    write_clip(folder / "references" / "reference-anna.wav", "The first voice.", pitch_hz=210)
    write_clip(folder / "references" / "reference1-ben.wav", "The second voice.", pitch_hz=110)
    return folder


@pytest.fixture(scope="module")
def start(home: Path) -> Iterator[Start]:
    """Starts the program on a terminal; it is ended with the module."""
    terminals = []

    def call(model: Path, *arguments: str, columns: int = 100, rows: int = 60, **variables: str) -> Terminal:
        env = {
            **os.environ,
            "XDG_STATE_HOME": str(home / "state"),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            # Threads of a tiny model only wait for each other.
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        terminal = Terminal(
            program("--model", str(model), *arguments), cwd=home, env=env, columns=columns, rows=rows
        )
        terminals.append(terminal)
        return terminal

    yield call
    for terminal in terminals:
        terminal.close()


@pytest.fixture
def studio(tmp_path: Path) -> Any:
    """A `FakeStudio`: what it cannot do is an AttributeError."""
    return FakeStudio(TakeFolder(tmp_path / "outputs"))
