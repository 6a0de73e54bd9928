from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from csm_repl.outputs.takes import TakeFolder
from tests.support.fake_studio import FakeStudio
from tests.support.paths import ROOT
from tests.support.speech import write_clip
from tests.support.terminal import Start, Terminal, program


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

    def call(
        model: Path,
        *arguments: str,
        columns: int = 100,
        rows: int = 60,
        shell: str | None = None,
        ignore_sighup: bool = True,
        **variables: str,
    ) -> Terminal:
        env = {
            **os.environ,
            "XDG_STATE_HOME": str(home / "state"),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            # Threads of a tiny model only wait for each other.
            "OMP_NUM_THREADS": "1",
            **variables,
        }
        command = program("--model", str(model), *arguments)
        if shell is not None:
            # With job control, and a prompt that is not the console's.
            env |= {"PS1": "$ ", "PS2": ""}
            command, typed = [shell, "--norc", "-i"], shlex.join(command)
        terminal = Terminal(
            command, cwd=home, env=env, columns=columns, rows=rows, ignore_sighup=ignore_sighup
        )
        if shell is not None:
            terminal.send(typed + "\r")
        terminals.append(terminal)
        return terminal

    yield call
    for terminal in terminals:
        terminal.close()


@pytest.fixture
def studio(tmp_path: Path) -> Any:
    """A `FakeStudio`: what it cannot do is an AttributeError."""
    return FakeStudio(TakeFolder(tmp_path / "outputs"))
