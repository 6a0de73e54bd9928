"""Several scripts in one call: one conversation, and every message says whose line it is about."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.program import Programs, words

PARTS = {"a.txt": "One.||Two.\n\nHello.-5\n", "b.txt": "Three.\n$SWAP$\nFour.\n"}


@pytest.fixture
def scripts(home: Path) -> Path:
    for name, text in PARTS.items():
        (home / name).write_text(text)
    return home


@pytest.mark.parametrize("batch", [(), ("--independent", "--batch", "2")])
def test_they_are_spoken_one_after_the_other(
    programs: Programs, model: Path, scripts: Path, batch: tuple[str, ...]
) -> None:
    done = programs.run(
        words(model, "--json", *batch, "a.txt", "-", "b.txt"), cwd=scripts, input=b"From stdin.\n"
    )
    told = [json.loads(line) for line in done.stdout.splitlines()]
    places = [(each["type"], each["script"], each["line"]) for each in told]
    assert [place for place in places if place[0] != "swap"] == [
        ("line", "a.txt", 1), ("error", "a.txt", 3), ("line", "stdin", 1), ("line", "b.txt", 1),
        ("line", "b.txt", 3),
    ]  # fmt: skip
    assert done.returncode == 1
    assert b"csm-repl: a.txt:3: " in done.stderr
    assert [each["number"] for each in told if each["type"] == "line"] == [1, 2, 3, 4]
    spoken = [turn for each in told if each["type"] == "line" for turn in each["turns"]]
    assert [turn["script"] for turn in spoken] == [
        {"file": "a.txt", "line": 1}, {"file": "a.txt", "line": 1}, {"file": "-", "line": 1},
        {"file": "b.txt", "line": 1}, {"file": "b.txt", "line": 3},
    ]  # fmt: skip
    # The primary speaker goes on from script to script.
    assert [turn["speaker"] for turn in spoken] == [0, 1, 0, 0, 1]


def test_a_missing_one_is_refused_before_anything_is_spoken(
    programs: Programs, model: Path, scripts: Path
) -> None:
    done = programs.run(words(model, "a.txt", "nowhere.txt"), cwd=scripts)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"nowhere.txt cannot be read" in done.stderr
    assert not (scripts / "outputs").exists()


def test_a_name_with_a_tilde_is_a_name(programs: Programs, model: Path, scripts: Path) -> None:
    """A shell has expanded what it knows as a home."""
    (scripts / "~nobody-of-that-name").write_text("Hello.\n")
    done = programs.run(words(model, "~nobody-of-that-name"), cwd=scripts)
    assert done.returncode == 0, done.stderr


def test_exit_ends_the_run_and_not_only_the_script(programs: Programs, model: Path, scripts: Path) -> None:
    (scripts / "a.txt").write_text("One.\n$EXIT$\nTwo.\n")
    done = programs.run(words(model, "a.txt", "b.txt"), cwd=scripts)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
