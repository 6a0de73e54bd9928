"""`--independent` and `--batch` through a real pipe, as a subprocess; and the feed of lines behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from csm_repl.front.pipe.lines import END, LineFeed, read_lines
from tests.support.program import Programs, command, speak_as_they_arrive, words
from tests.support.speech import assert_sounds_alike, read_pcm

SCRIPT = (
    (
        b"One, to begin with.\n"
        b"Two.||And two more.||And me again.0\n"
        b"$NOPE$\n"
        b"Below zero.-1\n"
        b"\n"
        b"$SWAP$\n"
        b"Three is said by another voice.\n"
    )
    + b"\xff\xfe no text\n"
    + b"Four.||$CLEAR$\nFive, without a newline."
)
CHANGES = {"created", "timings"}
"""What depends on the time in a take's JSON."""


OWN = ("--dtype", "float32", "--independent")


def independent(model: Path, *arguments: str) -> list[str]:
    return command(model, *OWN, *arguments)


def lasting(value: Any) -> Any:
    """A result without what depends on time, and without the name of the run's folder."""
    if isinstance(value, dict):
        return {
            key: Path(item).name if key == "file" else lasting(item)
            for key, item in value.items()
            if key not in CHANGES | {"prefilled_positions"}
        }
    return [lasting(item) for item in value] if isinstance(value, list) else value


def everything(home: Path, done: subprocess.CompletedProcess[bytes], out: str) -> dict[str, Any]:
    """What a run left: results, complaints, and its files by name; of sound only how much there is."""
    [folder] = home.glob(f"{out}/*")
    errors = [line for line in done.stderr.decode().splitlines() if "line " in line]
    files: dict[str, Any] = {}
    for path in folder.iterdir():
        files[path.name] = {
            ".json": lambda path: lasting(json.loads(path.read_text())),
            ".npy": Path.read_bytes,
            ".wav": lambda path: len(read_pcm(path)),
        }[path.suffix](path)
    return {
        "code": done.returncode,
        "results": [lasting(json.loads(line)) for line in done.stdout.decode().splitlines()],
        "errors": errors,
        "files": files,
    }


def test_a_batch_leaves_what_lines_one_by_one_leave(home: Path, model: Path, programs: Programs) -> None:
    left = []
    for n_slots in ("1", "3"):
        out = f"batch-{n_slots}"
        flags = f"--batch {n_slots} --seed 7 --json --keep-codes --tracks --output {out} -o {out}.wav"
        done = programs.run(words(model, *OWN, *flags.split()), cwd=home, input=SCRIPT)
        assert b"Traceback" not in done.stderr
        left.append(everything(home, done, out))
    one_by_one, together = left
    assert one_by_one["code"] == 1
    assert [result["line"] for result in one_by_one["results"] if result["type"] == "line"] == [1, 2, 7, 10]
    seeds = [turn["seed"] for result in one_by_one["results"] for turn in result.get("turns", [])]
    assert seeds == [7, 8, 9, 10, 11, 12]
    assert [error.partition(":")[2].split(":")[0] for error in one_by_one["errors"]] == [
        " input line 3", " input line 4", " input line 8", " input line 9",
    ]  # fmt: skip
    assert {"001.wav", "002-1.npy", "002-3.json", "002.wav", "track-1-anna.wav"} <= set(one_by_one["files"])
    assert together == one_by_one
    assert_sounds_alike(home / "batch-3.wav", home / "batch-1.wav")
    for name in (name for name in one_by_one["files"] if name.endswith(".wav")):
        [file], [other] = (list(home.glob(f"batch-{n_slots}/*/{name}")) for n_slots in ("3", "1"))
        assert_sounds_alike(file, other)


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (["--batch", "4"], b"--independent"),
        ([*OWN, "--compile", "--device", "cpu"], b"--compile is for CUDA devices"),
    ],
)
def test_what_cannot_be_is_a_usage_error_before_loading(
    flags: list[str], shown: bytes, home: Path, model: Path, programs: Programs
) -> None:
    done = programs.run(words(model, *flags), cwd=home, input=b"Hello.\n")
    assert done.returncode == 2
    assert shown in done.stderr
    assert b"Loading" not in done.stderr


def test_lines_are_spoken_as_they_arrive_although_there_is_room_for_more(home: Path, model: Path) -> None:
    speak_as_they_arrive(independent(model, "-q", "--batch", "4"), home)


def test_ctrl_c_drops_what_is_not_finished_and_exits_130(home: Path, endless_checkpoint: Path) -> None:
    """The input is still open: the reading thread must not hold the exit up."""
    process = subprocess.Popen(
        independent(endless_checkpoint, "--batch", "2", "--max-seconds", "100"),
        cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write("Never ending.\nNor this one.\n")
    process.stdin.flush()
    while "Never ending." not in process.stderr.readline():
        pass
    # The second line is taken up in the same round.
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    errors = process.stderr.read()
    assert process.wait(timeout=60) == 130
    process.stdin.close()
    assert "2 unfinished lines were dropped" in errors
    assert "Traceback" not in errors
    assert "Fatal" not in errors
    assert not list(home.glob("outputs/*/*.wav"))


# The feed.


def lines_of(feed: LineFeed) -> list[Any]:
    items = []
    while (item := feed.next(wait=True)) is not END:
        items.append(item)
    return items


@pytest.mark.parametrize("buffered", [False, True])
@pytest.mark.parametrize(
    "content", [b"", b"one\ntwo\n", b"\xef\xbb\xbfone\r\n\n\xff\nlast", b"x" * 200_000 + b"\ny"]
)
def test_a_feed_has_the_lines_of_the_file(content: bytes, buffered: bool, tmp_path: Path) -> None:
    path = tmp_path / "script.txt"
    path.write_bytes(content)
    with path.open("rb") as file:
        expected = list(read_lines(file))
    with path.open("rb") as file:
        if buffered:
            file.peek(1)
        assert str(lines_of(LineFeed(file, buffered=buffered))) == str(expected)


def test_a_feed_can_be_asked_without_waiting_and_outlives_its_file() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        feed = LineFeed(file, buffered=False)
    assert feed.next(wait=False) is None
    os.write(writing, b"half a ")
    time.sleep(0.05)
    assert feed.next(wait=False) is None
    os.write(writing, b"line\n")
    assert feed.next(wait=True) == (1, "half a line")
    os.close(writing)
    assert feed.next(wait=True) is END
    assert feed.next(wait=True) is END


def test_a_file_that_cannot_be_read_on_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "script.txt"
    path.write_bytes(b"one\n")
    answers: list[Callable[[], bytes]] = [lambda: b"one\n", lambda: (_ for _ in ()).throw(OSError("gone"))]
    monkeypatch.setattr("csm_repl.front.pipe.lines.os.read", lambda *_: answers.pop(0)())
    with path.open("rb") as file:
        feed = LineFeed(file, buffered=False)
        assert feed.next(wait=True) == (1, "one")
        with pytest.raises(OSError, match="gone"):
            feed.next(wait=True)
        assert feed.next(wait=True) is END


def test_a_feed_that_is_far_ahead_waits(tmp_path: Path) -> None:
    path = tmp_path / "script.txt"
    path.write_text("line\n" * 1000)
    with path.open("rb") as file:
        feed = LineFeed(file, buffered=False)
        time.sleep(0.1)
        assert any(thread.name == "lines" for thread in threading.enumerate())
        assert len(lines_of(feed)) == 1000


def test_the_console_refuses_a_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from csm_repl import cli

    monkeypatch.setattr(cli, "_is_terminal", lambda: True)
    assert cli.main(["--independent", "--batch", "2"]) == 2
    assert "one line at a time, not 2 (from --batch)" in capsys.readouterr().err
