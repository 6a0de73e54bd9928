"""Escape sequences in names, files and options never reach a terminal, whichever front end shows them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

EVIL = "x\x1b[2J\x1b]0;owned\x07\x9b31m\u202eevil\r"
ARMED = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _shown(
    words: list[str], folder: Path, code: str = "", **environ: str
) -> subprocess.CompletedProcess[str]:
    program = f"import sys; from csm_repl.cli import main\n{code}\nsys.exit(main())"
    raw = subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder, capture_output=True, timeout=120, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environ},
    )  # fmt: skip
    # Not as text, which would make a CR an LF.
    done = subprocess.CompletedProcess(
        raw.args, raw.returncode, raw.stdout.decode("utf-8", "surrogateescape"), raw.stderr.decode()
    )
    assert not ARMED.search(done.stdout + done.stderr), ascii(done.stdout + done.stderr)
    return done


@pytest.mark.parametrize(
    "words",
    [
        [f"{EVIL}.txt"],
        [f"--{EVIL}"],
        ["--dtype", EVIL],
        ["--references", EVIL, "voices"],
        ["--output", f"file/{EVIL}", "-"],
        ["-o", f"{EVIL}.doc", "-"],
        ["train", EVIL],
        ["train", f"--{EVIL}"],
        ["train", "x", "--max-steps", EVIL],
        ["merge", "x", "-o", "y", "--layout", EVIL],
        ["merge", EVIL, "-o", "y"],
        ["doctor", EVIL],
    ],
)
def test_options_and_names(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "evil" in (shown := _shown(words, tmp_path)).stdout + shown.stderr


def test_a_dotenv_and_the_environment(tmp_path: Path) -> None:
    value = EVIL.replace("\r", "")
    (tmp_path / ".env").write_text(f'CSM_REPL_WHISPER_MODEL="{value}"\nCSM_REPL_TOPK=1\n')
    done = _shown(["voices"], tmp_path, **{f"CSM_REPL_{value}": "1"})
    assert done.stderr.count("evil") == 2


@pytest.mark.parametrize("options", [[], ["--debug"]])
def test_texts_of_a_models_files(options: list[str], tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "backbone_flavor": EVIL}))
    done = _shown(["--model", str(folder), *options, "-"], tmp_path)
    assert "evil" in done.stderr
    assert ("Traceback" in done.stderr) == bool(options)


def test_the_doctor(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / f"r{EVIL}").mkdir()
    (tmp_path / f"r{EVIL}" / f"reference1-{EVIL}.wav").touch()
    words = ["doctor", "--model", str(tiny_checkpoint), "--references", f"r{EVIL}"]
    assert "evil" in _shown(words, tmp_path).stdout
    found = json.loads(_shown([*words, "--json"], tmp_path).stdout)
    assert any(EVIL.strip() in finding["text"] for finding in found["findings"])


def test_warnings_log_records_and_tracebacks_of_libraries(tmp_path: Path) -> None:
    code = f"""
import logging, warnings, threading
import csm_repl.cli as cli
def work(words):
    warnings.warn({EVIL!r})
    logging.getLogger("library").error("%s", {EVIL!r})
    def fail():
        raise ValueError({EVIL!r})
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    raise ValueError({EVIL!r})
cli._main = work
"""
    done = _shown([], tmp_path, code)
    assert done.stderr.count("evil") >= 4


def test_the_log_file(tmp_path: Path) -> None:
    _shown(["--model", f"./{EVIL}", "-"], tmp_path, XDG_STATE_HOME=str(tmp_path / "state"))
    [log] = (tmp_path / "state").rglob("*.log")
    assert "evil" in (text := log.read_bytes().decode())
    assert not ARMED.search(text)
