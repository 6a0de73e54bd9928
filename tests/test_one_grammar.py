"""Two hundred lines mean the same to the console's lexer, to a run, to a rehearsal, and to the Python API."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from csm_repl import read_script
from csm_repl.front.console.lexer import fragments, speaker_style
from csm_repl.studio.commands import COMMANDS
from csm_repl.text.command_names import COMMAND_NAMES
from csm_repl.text.voice_names import Roster
from tests.support.program import Programs, words
from tests.support.speech import write_clip
from tests.text.test_grammar import OFFSETS, SPOKEN_NUMBERS, table

VOICES = {0: "Ada", 1: "Ben", 2: None}
N_LINES = 200
AS_TYPED = ("--normalize", "off")


def cells(heading: str) -> list[str]:
    return [row[0] for row in table(heading)]


def lines() -> list[str]:
    """All of the grammar page that is speech, and lines put together of its pieces."""
    turns = [
        *cells("Written offsets"),
        *cells("Numbers that are spoken"),
        *cells("Dollars that are spoken"),
        *(marked.replace("→", "") for marked in OFFSETS.replace("\n", "|").split("|")),
        *SPOKEN_NUMBERS.replace("\n", "|").split("|"),
    ]
    turns = [turn for turn in turns if turn.strip() and "||" not in turn and "\n" not in turn]
    draw = random.Random(12)
    whole = [*cells("Turns"), *cells("Names"), *cells("Comments and headings")]
    starts = ["", "", "", "Ben: ", "ADA:", "Carol: ", "[pause 0.1] "]
    while len(whole) < N_LINES:
        chosen = [draw.choice(starts) + draw.choice(turns) for _ in range(draw.choice([1, 1, 1, 2, 3]))]
        # What is refused is compared in a test of its own.
        if not refused(line := "||".join(chosen)):
            whole.append(line)
    return whole


def refused(line: str) -> bool:
    """Whether a speaker is below 0, or a turn has nothing to say."""
    try:
        turns = read_script(line, ["Ada", "Ben", None], format="plain")
    except ValueError:
        return True
    return not all(any(map(str.isalnum, turn.text)) for turn in turns)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("reference-Ada.wav", "reference1-Ben.wav", "reference2.wav"):
        write_clip(tmp_path / "references" / name, "A voice.", seconds=0.6)
    return tmp_path


def of_api(script: list[str]) -> dict[int, list[tuple[int, str]]]:
    found: dict[int, list[tuple[int, str]]] = {}
    for turn in read_script(script, ["Ada", "Ben", None], format="plain"):
        found.setdefault(turn.line, []).append((turn.speaker, turn.text))
    return found


def of_json(output: bytes) -> dict[int, list[tuple[int, str]]]:
    objects = [json.loads(line) for line in output.splitlines()]
    return {each["line"]: turns_of(each) for each in objects if each["type"] == "line"}


def turns_of(line: dict[str, Any]) -> list[tuple[int, str]]:
    return [(turn["speaker"], turn["text"]) for turn in line["turns"]]


def of_lexer(script: list[str]) -> dict[int, list[tuple[int, str]]]:
    """Read off the colours."""
    styles = {speaker_style(speaker): speaker for speaker in range(5)}
    roster = Roster(VOICES)
    found = {}
    for number, line in enumerate(script, 1):
        turns, text, style = [], "", ""
        for kind, piece in [*fragments(line, COMMANDS, 0, voices=roster), ("class:separator", "")]:
            if kind == "class:separator":
                if text.strip(" \u200b\ufeff"):
                    turns.append((styles[style], text.strip()))
                text = ""
            elif kind.split(" ")[0] in styles and not kind.endswith((" class:offset", " class:name")):
                text, style = text + piece, kind
        if turns:
            found[number] = turns
    return found


def test_all_readers_agree(home: Path, quick_checkpoint: Path, programs: Programs) -> None:
    script = lines()
    assert len(script) >= N_LINES
    (home / "talk.txt").write_text("\n".join(script), encoding="utf-8")
    expected = of_api(script)
    assert len(expected) > 0.9 * len(script)

    rehearsed = programs.run(["--dry-run", "--json", "--format", "plain", *AS_TYPED, "talk.txt"], cwd=home)
    assert of_json(rehearsed.stdout) == expected
    # Five speakers have a colour of their own.
    few = {number: turns for number, turns in expected.items() if all(who < 5 for who, _ in turns)}
    assert len(few) > 0.6 * len(expected)
    seen = of_lexer(script)
    assert {number: seen.get(number) for number in few} == few

    run = programs.run(
        words(
            quick_checkpoint,
            "--json",
            "--format",
            "plain",
            "--max-seconds",
            "0.16",
            "--normalize",
            "off",
            "talk.txt",
        ),
        cwd=home,
    )
    assert of_json(run.stdout) == expected
    assert run.returncode == rehearsed.returncode == 0


def test_all_readers_refuse_the_same(home: Path, quick_checkpoint: Path, programs: Programs) -> None:
    script = ["Hi.-1", "Ho.||$CLEAR$", "$NOPE$", "$CLEAR", "Wait [pause 99]", "Bye.", "$SET speaker x$", "😀"]
    (home / "talk.txt").write_text("\n".join(script), encoding="utf-8")
    rehearsed = programs.run(["--dry-run", "--json", "talk.txt"], cwd=home)
    run = programs.run(words(quick_checkpoint, "--json", "--max-seconds", "0.16", "talk.txt"), cwd=home)

    def failed(output: bytes) -> list[tuple[int, str]]:
        objects = [json.loads(line) for line in output.splitlines()]
        return [(each["line"], each["error"]) for each in objects if each["type"] == "error"]

    assert failed(rehearsed.stdout) == failed(run.stdout)
    assert [line for line, _ in failed(run.stdout)] == [1, 2, 3, 4, 5, 7, 8]
    assert rehearsed.returncode == run.returncode == 1


def test_the_names_of_the_commands_are_those_of_the_registry() -> None:
    assert tuple(COMMANDS) == COMMAND_NAMES
