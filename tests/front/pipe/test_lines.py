"""The program through a real pipe, in a process of its own, with a tiny model in the published layout."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.program import Programs, command, speak_as_they_arrive, words
from tests.support.speech import read_pcm

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def run(model: Path, home: Path, programs: Programs) -> Run:
    def call(*arguments: str, text: str | bytes = b"") -> subprocess.CompletedProcess[bytes]:
        data = text.encode() if isinstance(text, str) else text
        return programs.run(words(model, *arguments), cwd=home, input=data)

    return call


def _takes(home: Path) -> list[str]:
    return sorted(path.name for path in home.glob("outputs/*/*.wav"))


def test_piped_lines_are_all_spoken_and_the_end_of_input_ends_the_program(run: Run, home: Path) -> None:
    done = run(text="First line.\nSecond line.||With two.\n\nLast, without a newline.")
    assert done.returncode == 0, done.stderr
    paths = done.stdout.decode().splitlines()
    assert [Path(path).name for path in paths] == ["001.wav", "002.wav", "003.wav"]
    assert _takes(home) == ["001.wav", "002-1.wav", "002-2.wav", "002.wav", "003.wav"]
    assert all(len(read_pcm(home / path)) for path in paths)


def test_a_pipe_gets_no_banner_no_question_and_no_colour(run: Run) -> None:
    done = run(text="Hello.\n")
    assert b"\x1b" not in done.stdout + done.stderr
    assert done.stdout.count(b"\n") == 1


def test_a_script_a_dash_and_a_redirect_are_the_same(run: Run, home: Path) -> None:
    script = home / "script.txt"
    script.write_text("Hello there.||General.\n$SWAP$\nAnd again.\n")
    results = [
        run("--seed", "5", "-q", str(script)),
        run("--seed", "5", "-q", "-", text=script.read_text()),
        run("--seed", "5", "-q", text=script.read_text()),
    ]
    sounds = [[(home / path).read_bytes() for path in done.stdout.decode().splitlines()] for done in results]
    assert [done.returncode for done in results] == [0, 0, 0]
    assert len(sounds[0]) == 2
    assert sounds[0] == sounds[1] == sounds[2]


def test_a_bad_line_is_reported_with_its_number_and_the_rest_goes_on(run: Run, home: Path) -> None:
    done = run(text=b"Good.\n$FOO$\nBelow zero.-1\n\xff\xfe not text\nAlso good.\n")
    errors = done.stderr.decode()
    assert done.returncode == 1
    assert all(f"line {number}:" in errors for number in (2, 3, 4))
    assert "Traceback" not in errors
    assert _takes(home) == ["001.wav", "002.wav"]


def test_a_script_that_is_no_text_is_refused_whole_before_the_model_loads(run: Run, home: Path) -> None:
    script = home / "script.txt"
    script.write_bytes("One.\nZo\xeb.\nThree.\n".encode("latin-1"))
    done = run(str(script))
    assert done.returncode == 2
    assert b"line 2" in done.stderr
    assert b"UTF-8" in done.stderr
    assert b"Loading" not in done.stderr
    assert not _takes(home)


def test_a_script_in_utf_16_is_spoken_like_any_other(run: Run, home: Path) -> None:
    (home / "script.txt").write_bytes("\ufeffOne.||Two.\r\nThree.".encode("utf-16-le"))
    done = run("--json", "script.txt")
    assert done.returncode == 0, done.stderr
    texts = [
        [turn["text"] for turn in json.loads(line)["turns"]] for line in done.stdout.decode().splitlines()
    ]
    assert texts == [["One.", "Two."], ["Three."]]


def test_input_without_end_ends_the_program(run: Run, home: Path) -> None:
    done = run("/dev/zero")
    assert done.returncode == 1
    assert b"longer than 1 MB" in done.stderr
    assert not _takes(home)


def test_all_commands_work_in_a_pipe(run: Run) -> None:
    script = (
        "$HELP$\n$VOICES$\nOne.||Two.\n$HISTORY$\n$STATUS$\n$SET temperature 0.8$\n$UNDO$\nThree.\n$RETRY$\n"
        "$SWAP$\n$BACK$\n$PLAY 1$\n$SAVE talk$\n$CLEAR$\n$LOAD talk$\n$exit$\nNever spoken.\n"
    )
    done = run("--json", text=script)
    assert done.returncode == 0, done.stderr
    objects = [json.loads(line) for line in done.stdout.decode().splitlines()]
    kinds = [item["type"] for item in objects]
    assert kinds == ["help", "voices", "line", "history", "status", "line", "line"]
    texts = [row["text"] for row in objects[3]["rows"]]
    assert texts == ["The first voice.", "The second voice.", "One.", "Two."]
    assert objects[2]["line"] == 3
    assert [turn["speaker"] for turn in objects[2]["turns"]] == [0, 1]
    assert b"Never spoken" not in done.stdout + done.stderr


@pytest.mark.parametrize(("asked", "used"), [("auto", "int8"), ("int4", "int4"), ("none", "none")])
def test_the_quantisation_in_use_is_named_everywhere(run: Run, home: Path, asked: str, used: str) -> None:
    done = run("--json", "--quantize", asked, text="$STATUS$\nHello.\n")
    assert done.returncode == 0, done.stderr
    status, line = (json.loads(text) for text in done.stdout.decode().splitlines())
    facts = {row["name"]: row["value"] for row in status["rows"]}
    assert facts["quantisation"] == used
    assert json.loads((home / line["file"]).with_suffix(".json").read_text())["quantize"] == used
    loading = next(text for text in done.stderr.decode().splitlines() if text.startswith("Loading "))
    assert (f"with {used} weights" in loading) == (used != "none")


def test_an_unknown_quantisation_is_a_usage_error(run: Run) -> None:
    done = run("--quantize", "int3", text="Hello.\n")
    assert done.returncode == 2
    assert b"none, int8, fp8, int4, auto" in done.stderr


def test_quiet_leaves_only_results_and_errors(run: Run) -> None:
    done = run("-q", text="Hello.\n$FOO$\n")
    assert len(done.stdout.splitlines()) == 1
    assert len(done.stderr.splitlines()) == 1


def test_lines_are_spoken_as_they_arrive(model: Path, home: Path) -> None:
    speak_as_they_arrive(command(model, "-q"), home)


@pytest.mark.parametrize(("name", "kind"), [("all.wav", "WAV"), ("all.flac", "FLAC"), ("all.mp3", "MP3")])
def test_o_joins_the_run_in_one_file(run: Run, home: Path, name: str, kind: str) -> None:
    done = run("-o", name, text="One.||Two.\nThree.\n")
    assert done.returncode == 0, done.stderr
    info = soundfile.info(str(home / name))
    parts = [read_pcm(home / path) for path in done.stdout.decode().splitlines()]
    assert (info.format, info.samplerate, info.channels) == (kind, 24_000, 1)
    if kind != "MP3":
        joined, _ = soundfile.read(str(home / name), dtype="int16")
        np.testing.assert_array_equal(joined, np.concatenate(parts))


def test_o_refuses_an_existing_file_without_force_and_before_loading(run: Run, home: Path) -> None:
    (home / "all.wav").write_bytes(b"precious")
    refused = run("-o", "all.wav", text="Hello.\n")
    assert refused.returncode == 2
    assert b"--force" in refused.stderr
    assert b"Loading" not in refused.stderr
    assert (home / "all.wav").read_bytes() == b"precious"
    assert run("-o", "all.wav", "--force", text="Hello.\n").returncode == 0
    assert len(read_pcm(home / "all.wav"))


def test_o_dash_is_a_wav_on_stdout_and_raw_is_its_samples(run: Run, home: Path, tmp_path: Path) -> None:
    raw = run("--seed", "3", "-o", "-", "--raw", text="One.\nTwo.\n")
    wav = run("--seed", "3", "-o", "-", text="One.\nTwo.\n")
    assert raw.returncode == wav.returncode == 0
    takes = sorted(home.glob("outputs/*/*.wav"))
    samples = np.concatenate([read_pcm(path) for path in takes[:2]])
    assert raw.stdout == samples.tobytes()
    assert wav.stdout[:4] == b"RIFF"
    assert wav.stdout[44:] == raw.stdout


def test_tracks_and_codes_are_written_when_asked_for(run: Run, home: Path) -> None:
    done = run("--tracks", "--keep-codes", text="One.||Two.\n")
    names = {Path(line).name for line in done.stdout.decode().splitlines()}
    assert names == {"001.wav", "track-0.wav", "track-1-anna.wav"}
    [folder] = home.glob("outputs/*")
    assert np.load(folder / "001-1.npy").shape[0] == 4


def test_a_closed_stdout_ends_the_run_quietly_and_keeps_the_takes(model: Path, home: Path) -> None:
    script = "\n".join(f"Line {index}." for index in range(50))
    shell = f"{' '.join(command(model, '-q'))} | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"],
        cwd=home, input=script.encode(), capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"closed" in done.stderr
    n_takes = len(_takes(home))
    assert 1 <= n_takes < 50


def test_a_stdout_that_is_closed_from_the_start_is_no_crash(model: Path, home: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(command(model))} >&-"],
        cwd=home, input=b"Hello.\n", capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert _takes(home) == ["001.wav"]


def test_a_full_disk_costs_the_take_and_leaves_no_part_of_it(model: Path, home: Path) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = subprocess.run(
        command(model, "--max-seconds", "4", "--no-weight-cache"),
        cwd=home, input=b"Too long for this disk.\n", capture_output=True, timeout=120, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 1
    assert b"input line 1:" in done.stderr
    assert b"Traceback" not in done.stderr
    assert not list(home.glob("outputs/*/*"))


def test_a_full_device_behind_o_dash_is_an_error(model: Path, home: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command(model, "-o", "-"), cwd=home, input=b"Hello.\n", stdout=full, stderr=subprocess.PIPE,
            timeout=120,
        )  # fmt: skip
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert _takes(home) == ["001.wav"] or b"space" in done.stderr.lower()


def test_an_output_folder_that_cannot_be_made_is_said_before_loading(run: Run, home: Path) -> None:
    (home / "file").write_text("")
    done = run("--output", "file/below", text="Hello.\n")
    assert done.returncode == 2
    assert b"--output" in done.stderr
    assert b"Loading" not in done.stderr


def test_ctrl_c_in_a_pipe_keeps_what_is_done_and_exits_130(model: Path, home: Path) -> None:
    process = subprocess.Popen(
        command(model), cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(b"One.\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert _takes(home) == ["001.wav"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_term_and_hup_end_the_run_in_order(
    endless_checkpoint: Path, home: Path, sent: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        command(endless_checkpoint, "--max-seconds", "0.4", "-o", "all.wav"),
        cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdin.write(b"One.\n$SET max-seconds 60$\nTwo, without an end.\n")
        process.stdin.flush()
        process.stdout.readline()
        while b"Two" not in process.stderr.readline():
            pass
        # Service managers and closing terminals send more than one.
        process.send_signal(sent)
        process.send_signal(sent)
        errors = process.stderr.read()
        assert process.wait(timeout=60) == code
    assert b"Stopped." in errors
    assert b"Traceback" not in errors
    assert "001.wav" in _takes(home)
    assert soundfile.info(home / "all.wav").duration == pytest.approx(0.4, abs=0.01)
    assert not list(home.rglob("*.part"))


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_full_stdout_or_stderr_costs_no_take(model: Path, home: Path, stream: str) -> None:
    with Path("/dev/full").open("wb") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        done = subprocess.run(command(model), input=b"One.\nTwo.\n", cwd=home, **streams)  # type: ignore[call-overload]
    assert _takes(home) == ["001.wav", "002.wav"]
    if stream == "stdout":
        assert done.returncode == 1
        assert done.stderr.count(b"stdout cannot be written: No space left on device.") == 2
        assert b"Traceback" not in done.stderr
    else:
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) == 2


def test_a_line_that_failed_has_an_object_too(run: Run) -> None:
    done = run("--json", text="One.\nBelow zero.-1\n$NOPE$\n")
    assert done.returncode == 1
    objects = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert [(item["type"], item["line"]) for item in objects] == [("line", 1), ("error", 2), ("error", 3)]
    assert all(item["error"] and item["remedy"] for item in objects[1:])


def test_what_is_undone_or_made_again_is_not_in_the_export(run: Run, home: Path) -> None:
    text = "One.\nTwo.||Three.\n$UNDO$\nFour.\n$RETRY$\n"
    done = run("--seed", "3", "-o", "all.flac", "--tracks", text=text)
    assert done.returncode == 0, done.stderr
    folder = next(home.glob("outputs/*"))
    wanted = np.concatenate([read_pcm(folder / name) for name in ("001.wav", "004.wav")])
    assert np.array_equal(soundfile.read(home / "all.flac", dtype="int16")[0], wanted)
    assert np.array_equal(read_pcm(folder / "track-0.wav"), wanted)
    assert not list(folder.glob("track-1*"))
    assert len(_takes(home)) == 4 + 2 + 1  # every take is still there


def test_nothing_is_overwritten_by_a_second_run(run: Run, home: Path) -> None:
    run(text="One.\n")
    before = {path: path.read_bytes() for path in home.glob("outputs/*/*")}
    run(text="Two.\n")
    after = {path: path.read_bytes() for path in home.glob("outputs/*/*")}
    assert before.items() <= after.items()
    assert len(after) == 2 * len(before)


@pytest.mark.parametrize(
    "text",
    ["a\x00b, a NUL.", "Emoji 🙂🏳️‍🌈 and CJK 日本語。", "\u202eright to left", "tab\tand \x1b[31mescape"],
    ids=["nul", "emoji", "bidi", "escape"],
)
def test_odd_characters_are_spoken(run: Run, text: str) -> None:
    done = run("--json", text=text + "\n")
    assert done.returncode == 0, done.stderr
    [result] = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert result["turns"][0]["text"] == text


def test_a_line_of_100_000_characters_is_spoken_in_pieces(run: Run) -> None:
    text = "This is one of very many sentences. " * 2800
    done = run("--json", "--max-seconds", "4", text=text + "\n")
    assert done.returncode == 0, done.stderr[-2000:]
    [result] = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert result["turns"][0]["text"] == text.strip()


@pytest.mark.slow(reason="speaks 1,000 turns")
def test_a_line_of_1_000_turns_is_a_thousand_files_and_one(run: Run, home: Path) -> None:
    text = "||".join(f"Turn {index}." for index in range(1000))
    done = run("-q", "--max-seconds", "0.08", text=text + "\n")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(_takes(home)) == 1001


@pytest.mark.slow(reason="speaks 300 lines")
@pytest.mark.timeout(600)
def test_300_lines_keep_memory_flat_files_complete_and_the_context_in_bounds(model: Path, home: Path) -> None:
    n_lines = 300
    process = subprocess.Popen(
        command(model, "--json", "-q"), cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    memory_mb: list[float] = []
    positions: list[int] = []
    with process:
        for index in range(n_lines):
            process.stdin.write(f"This is line {index}, a short one.\n")
            process.stdin.flush()
            result = json.loads(process.stdout.readline())
            positions.append(result["turns"][0]["context"]["prompt_positions"] + result["turns"][0]["frames"])
            memory_mb.append(_resident_mb(process.pid))
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    # The context is full after about 50 lines; from then on nothing may grow but a few KB of codes a line.
    assert max(memory_mb[100:]) - memory_mb[100] < 40, memory_mb[::20]
    assert max(positions) <= 2048
    takes = sorted(home.glob("outputs/*/*.wav"))
    assert len(takes) == n_lines
    for take in takes:
        with wave.open(str(take)) as file:
            assert file.getnframes() > 0
        assert json.loads(take.with_suffix(".json").read_text())["ended"]
    assert not [path for path in home.glob("outputs/*/*") if path.suffix not in {".wav", ".json"}]


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_the_first_report_has_plausible_timings(run: Run) -> None:
    [result] = [json.loads(line) for line in run("--json", text="Hello.\n").stdout.decode().splitlines()]
    timings = result["turns"][0]["timings"]
    assert 0 < timings["first_audio_s"] <= timings["elapsed_s"]


def test_speaking_imports_no_library_that_only_others_need(model: Path, home: Path) -> None:
    code = (
        "import sys\n"
        "from csm_repl.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as over:\n"
        "    assert not over.code, over.code\n"
        "heavy = {'torchtune', 'torchao', 'whisper', 'transformers', 'datasets', 'matplotlib'}\n"
        "print('IMPORTED', *sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command(model)[3:]],
        cwd=home, input=b"Hello.||And hello.\n", capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().splitlines()[-1].strip() == "IMPORTED"
    assert _takes(home)
