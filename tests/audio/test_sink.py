"""The sinks for `-o`: a file that appears at the end, or a stream on stdout."""

from __future__ import annotations

import io
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
import soundfile
import torch

from csm_repl.audio import AudioSink, open_sink, to_pcm16
from csm_repl.errors import OutputError, UsageError

NOISE = torch.rand(24_000, generator=torch.Generator().manual_seed(1)) - 0.5


def sink(target: str | Path, *, raw: bool = False, replace: bool = False) -> AudioSink:
    return open_sink(str(target), raw=raw, rate=24_000, replace=replace)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3"])
def test_a_file_appears_at_close_and_not_before(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"run.{ending}"
    with sink(path) as out:
        for chunk in NOISE.split(1_920):
            out.write(chunk)
        assert not path.exists()
    assert names(tmp_path) == [path.name]
    got, rate = soundfile.read(path, dtype="int16")
    assert rate == 24_000
    if ending == "mp3":
        assert len(got) == pytest.approx(24_000, abs=2_500)
    else:
        assert got.tobytes() == to_pcm16(NOISE)


def test_raw_is_samples_only(tmp_path: Path) -> None:
    with sink(tmp_path / "run.s16", raw=True) as out:
        out.write(NOISE)
    assert (tmp_path / "run.s16").read_bytes() == to_pcm16(NOISE)


def test_ctrl_c_keeps_what_was_written(tmp_path: Path) -> None:
    def interrupted_run() -> None:
        with sink(tmp_path / "run.flac") as out:
            out.write(NOISE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted_run()
    assert soundfile.info(tmp_path / "run.flac").frames == 24_000


def test_an_error_before_the_first_sample_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), sink(tmp_path / "run.wav"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_a_run_that_wrote_nothing_leaves_no_file(tmp_path: Path) -> None:
    for name, raw in (("a.wav", False), ("a.flac", False), ("a.mp3", False), ("a.raw", True)):
        with sink(tmp_path / name, raw=raw) as out:
            out.write(torch.zeros(0))
    assert names(tmp_path) == []


def test_abort_leaves_no_file_and_close_after_it_does_nothing(tmp_path: Path) -> None:
    out = sink(tmp_path / "run.wav")
    out.write(NOISE)
    out.abort()
    out.close()
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="closed"):
        out.write(NOISE)


@pytest.mark.parametrize(
    ("target", "raw", "message"),
    [
        ("a.aiff", False, "Use .wav, .flac or .mp3"),
        ("a", False, "without an ending"),
        ("", False, "without an ending"),
        ("a.wav", True, "--raw has no header"),
        ("none/a.wav", False, "Make it first"),
        ("there.wav", False, "--force"),
        ("link.wav", False, "--force"),
        ("folder.wav", False, "is a folder"),
        ("fifo.wav", False, "redirect stdout"),
    ],
)
def test_targets_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, raw: bool, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.wav").write_bytes(b"mine")
    Path("link.wav").symlink_to("nowhere.wav")
    Path("folder.wav").mkdir()
    os.mkfifo("fifo.wav")
    before = names(tmp_path)
    with pytest.raises(UsageError) as caught:
        sink(target, raw=raw)
    assert message in str(caught.value)
    assert names(tmp_path) == before
    assert Path("there.wav").read_bytes() == b"mine"


def test_force_replaces_only_at_close(tmp_path: Path) -> None:
    path = tmp_path / "run.wav"
    path.write_bytes(b"old")
    out = sink(path, replace=True)
    out.write(NOISE)
    assert path.read_bytes() == b"old"
    out.close()
    assert soundfile.info(path).frames == 24_000
    assert names(tmp_path) == ["run.wav"]


def test_a_file_that_appeared_meanwhile_is_kept_and_so_is_the_sound(tmp_path: Path) -> None:
    path = tmp_path / "run.wav"
    out = sink(path)
    out.write(NOISE)
    path.write_bytes(b"somebody else's")
    (tmp_path / "run-2.wav").touch()
    with pytest.raises(OutputError, match=r"run-3\.wav"):
        out.close()
    assert path.read_bytes() == b"somebody else's"
    assert soundfile.info(tmp_path / "run-3.wav").frames == 24_000
    assert names(tmp_path) == ["run-2.wav", "run-3.wav", "run.wav"]


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="shorter name"):
        sink(tmp_path / f"{'x' * 300}.wav")


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "s16"])
def test_a_full_disk_ends_in_one_sentence_and_leaves_nothing(tmp_path: Path, ending: str) -> None:
    def long_run() -> None:
        with sink(tmp_path / f"a.{ending}", raw=ending == "s16") as out:
            for _ in range(40):
                out.write(NOISE)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OutputError, match="ulimit"):
            long_run()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == []


def test_ctrl_c_inside_the_encoder_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = sink(tmp_path / "a.wav")
    out.write(NOISE)

    class Interrupted(io.BytesIO):
        def write(self, data: object) -> int:
            raise KeyboardInterrupt

    monkeypatch.setattr(out._encoder._pipe, "_file", Interrupted())  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt):
        out.write(NOISE)
    out.abort()
    assert names(tmp_path) == []


# --- stdout -------------------------------------------------------------------------------------------


def test_stdout_gets_a_wav_of_unknown_length(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with sink("-") as out:
        out.write(NOISE[:100])
        out.write(NOISE[100:])
    data = capfdbinary.readouterr().out
    assert data[:4] == b"RIFF"
    assert struct.unpack("<I", data[4:8]) == struct.unpack("<I", data[40:44]) == (0xFFFFFFFF,)
    samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == 24_000
    assert samples.tobytes() == to_pcm16(NOISE)


def test_stdout_gets_raw_samples(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with sink("-", raw=True) as out:
        out.write(NOISE)
    assert capfdbinary.readouterr().out == to_pcm16(NOISE)


def test_a_run_that_wrote_nothing_sends_an_empty_wav(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    sink("-").close()
    assert soundfile.info(io.BytesIO(capfdbinary.readouterr().out)).frames == 0


def test_stdout_stays_untouched_by_a_run_that_fails_at_its_start(
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    with pytest.raises(RuntimeError), sink("-"):
        raise RuntimeError
    assert capfdbinary.readouterr().out == b""


def test_a_terminal_gets_no_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(UsageError, match="terminal"):
        sink("-")


# In a process of its own: what the interpreter says at its exit counts as well.
SCRIPT = """
import sys, torch
from csm_repl.audio import open_sink
from csm_repl.errors import CsmReplError
try:
    with open_sink("-", raw=False, rate=24000, replace=False) as out:
        out.write(torch.full((24000,), 0.5))
except BrokenPipeError:
    sys.exit(77)
except CsmReplError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def run_into(stdout: IO[bytes]) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", SCRIPT], stdout=stdout, stderr=subprocess.PIPE, text=True)
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_stdout_ends_in_one_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        code, said = run_into(full)
    assert code == 1
    assert said.startswith("stdout cannot be written: No space left on device. Free some space")
    assert said.count("\n") == 1


def test_a_reader_that_left_is_for_the_caller_to_handle() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        assert run_into(pipe) == (77, "")
