"""`--dry-run`: a script as it will be understood, without a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from csm_repl.front.pipe.dry_run import run_dry
from csm_repl.settings import Settings
from tests.support.paths import ROOT
from tests.support.speech import write_clip

SCRIPT = """\
# A comment.
## Part one
Ben: Really?||Ada: Yes, 2.
It's $5 [pause 2] at 10:30.||Win95
$SWAP$
Carol: Hello.
$NOPE$
Ho.-9
$EXIT$
Never read.
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_clip(tmp_path / "references" / "reference-Ada.wav", "A voice.")
    write_clip(tmp_path / "references" / "reference1-Ben.wav", "A voice.")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dry(home: Path, text: str, capsys: pytest.CaptureFixture[str], **settings: Any) -> tuple[int, str, str]:
    (home / "talk.txt").write_text(text, encoding="utf-8")
    code = run_dry(Settings(**settings), ["talk.txt"])
    out, err = capsys.readouterr()
    return int(code), out, err


def test_every_line_is_shown_as_it_will_be_spoken(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = dry(home, SCRIPT, capsys)
    assert out.splitlines() == [
        "2  ## Part one",
        "3  1 Ben: Really?",
        "3  0 Ada: Yes, 2.",
        "     said: Yes, two.",
        "4  0 Ada: It's $5 [pause 2] at 10:30.",
        "     said: It's five dollars [pause 2] at ten thirty.",
        "4  95 speaker 95: Win",
        "5  $SWAP$",
        "6  1 Ben: Carol: Hello.",
        "9  $EXIT$",
    ]
    told = err.splitlines()
    assert told[0].startswith("line 4: Speaker 95 has no clip")
    assert "the 95 behind 'Win' is an offset" in told[1]
    assert told[2] == "line 5: Primary speaker 1: the voice of Ben."
    assert "No voice is called Carol" in told[3]
    assert "reference2-carol.wav" in told[3]
    assert told[4].startswith("csm-repl: input line 7: There is no command $NOPE$")
    assert told[5].startswith("csm-repl: input line 8: ")
    assert "speaker -8" in told[5]
    assert [line.split(", about")[0] for line in told[6:9]] == [
        "Speaker 0 Ada: 2 turns",
        "Speaker 1 Ben: 2 turns",
        "Speaker 95: 1 turn",
    ]
    assert told[8].endswith("without a clip.")
    assert told[9].startswith("5 lines, 2 will fail, about 0:")
    assert len(told) == 10
    assert code == 1


def test_a_program_gets_objects_and_a_summary(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = dry(home, SCRIPT, capsys, json=True)
    objects = [json.loads(line) for line in out.splitlines()]
    assert [(each["type"], each.get("line")) for each in objects] == [
        ("heading", 2),
        ("line", 3),
        ("line", 4),
        ("command", 5),
        ("line", 6),
        ("error", 7),
        ("error", 8),
        ("command", 9),
        ("summary", None),
    ]
    turn = objects[2]["turns"][0]
    assert turn["said"] == "It's five dollars [pause 2] at ten thirty."
    text = turn["text"]
    spans = [(text[each["start"] : each["end"]], each["said"]) for each in turn["replacements"]]
    assert spans == [("$5", "five dollars"), ("10:30", "ten thirty")]
    summary = objects[-1]
    assert (summary["lines"], summary["failed"]) == (5, 2)
    lengths = [each["seconds"] for each in objects if each["type"] == "line"]
    assert summary["seconds"] == pytest.approx(sum(lengths), abs=0.05)
    assert [(each["speaker"], each["has_clip"]) for each in summary["speakers"]] == [
        (0, True),
        (1, True),
        (95, False),
    ]
    assert code == 1


def test_a_good_script_ends_with_0_and_quiet_shows_only_the_lines(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = dry(home, "Hello.||Hi.5\n", capsys, quiet=True)
    assert (code, err) == (0, "")
    assert out == "1  0 Ada: Hello.\n1  5 speaker 5: Hi.\n"


def test_settings_that_the_script_changes_count_from_then_on(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = (
        "Win95\n$SET offsets off$\nWin95\n$SET normalize off$\nWin95\n$SET speaker 1$\n5.\n$SET seed x$\n"
    )
    code, out, err = dry(home, script, capsys)
    assert [line for line in out.splitlines() if "$" not in line] == [
        "1  95 speaker 95: Win",
        "3  0 Ada: Win95",
        "     said: Win ninety-five",
        "5  0 Ada: Win95",
        "7  1 Ben: 5.",
    ]
    assert "input line 8: " in err
    assert code == 1


def test_another_notation_is_recognised_and_said(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = dry(home, "[S1] Hi. [S2] Ho.\n[S1] Bye 2.\n", capsys)
    assert out.splitlines() == ["1  0 Ada: Hi.", "1  1 Ben: Ho.", "2  0 Ada: Bye 2.", "     said: Bye two."]
    assert "--format tags" in err
    assert code == 0


def test_several_scripts_are_one_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "a.txt").write_text("One.\n$SWAP$\n")
    (home / "b.txt").write_text("Two.\n$NOPE$\n")
    code = run_dry(Settings(), ["a.txt", "b.txt"])
    out, err = capsys.readouterr()
    assert out.splitlines() == ["a.txt:1  0 Ada: One.", "a.txt:2  $SWAP$", "b.txt:1  1 Ben: Two."]
    assert "csm-repl: b.txt:2: " in err
    assert int(code) == 1


def test_the_users_table_is_used_and_its_broken_lines_are_named(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "references" / "pronounce.txt").write_text("CSM = see ess em\nbroken\n")
    _, out, err = dry(home, "CSM.\n", capsys)
    assert "said: see ess em." in out
    assert "pronounce.txt: line 2" in err


def test_without_a_folder_of_voices_nobody_has_a_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = dry(tmp_path, "Hi.||Ho.\n", capsys)
    assert out == "1  0 speaker 0: Hi.\n1  1 speaker 1: Ho.\n"
    assert err.count("without a clip") == 2
    assert code == 0


def program(home: Path, *words: str, input: str = "") -> subprocess.CompletedProcess[str]:
    code = (
        "import sys\n"
        "from csm_repl.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "heavy = {'torch', 'numpy', 'rich', 'huggingface_hub', 'soundfile'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        input=input,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def test_it_loads_neither_torch_nor_a_model_and_writes_nothing(home: Path) -> None:
    (home / "talk.txt").write_text(SCRIPT)
    done = program(home, "--dry-run", "--model", "nowhere/at-all", "-o", "x.wav", "talk.txt")
    assert done.returncode == 1, done.stderr
    assert "3  1 Ben: Really?" in done.stdout
    assert sorted(path.name for path in home.iterdir()) == ["references", "talk.txt"]


def test_a_pipe_is_rehearsed_as_well(home: Path) -> None:
    done = program(home, "--dry-run", input="Hello.\n")
    assert (done.returncode, done.stdout) == (0, "1  0 Ada: Hello.\n")


def test_a_script_that_is_no_text_is_refused_as_for_a_run(home: Path) -> None:
    (home / "talk.txt").write_bytes(b"a\n\xff\xfe\n")
    done = program(home, "--dry-run", "talk.txt")
    assert done.returncode == 2
    assert "not UTF-8" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
def test_a_stdout_that_is_full_is_one_sentence(home: Path) -> None:
    (home / "talk.txt").write_text("Hello.\n")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "csm_repl", "--dry-run", "talk.txt"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 1
    assert "stdout cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
