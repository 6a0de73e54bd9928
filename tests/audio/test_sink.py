"""The sinks for `-o`: a file that appears at the end, or a stream on stdout."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.audio import AudioSink, open_sink, to_pcm16
from csm_repl.audio import sink as sink_module
from csm_repl.audio.encoder import Encoder
from csm_repl.errors import OutputError, UsageError

NOISE = torch.rand(24_000, generator=torch.Generator().manual_seed(1)) - 0.5


def sink(target: str | Path, *, raw: bool = False, replace: bool = False) -> AudioSink:
    return open_sink(str(target), raw=raw, rate=24_000, replace=replace)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg", "opus"])
def test_a_file_appears_at_close_and_not_before(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"run.{ending}"
    with sink(path) as out:
        for chunk in NOISE.split(1_920):
            out.write(chunk)
        assert not path.exists()
    assert names(tmp_path) == [path.name]
    got, rate = soundfile.read(path, dtype="int16")
    assert rate == 24_000
    if ending in {"mp3", "ogg", "opus"}:
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
        ("a.aiff", False, "Use one of .wav"),
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


def removed(folder: Path) -> None:
    shutil.rmtree(folder)


def replaced_by_a_file(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.write_bytes(b"mine")


def replaced_by_a_link(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))
    folder.with_name("other").mkdir()
    folder.symlink_to(folder.with_name("other"))


@pytest.mark.parametrize(
    ("ending", "harm"),
    [
        ("wav", removed),
        ("wav", replaced_by_a_file),
        ("wav", replaced_by_a_link),
        ("s16", removed),
        ("flac", removed),
        ("flac", replaced_by_a_file),
    ],
)
def test_a_folder_that_is_gone_costs_no_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, harm: Callable[[Path], None]
) -> None:
    folder, temporary = tmp_path / "folder", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    out = sink(folder / f"a.{ending}", raw=ending == "s16")
    out.write(NOISE)
    harm(folder)
    with pytest.raises(OutputError, match=r"cannot be written: .*\. The sound is in ") as caught:
        out.close()
    (kept,) = temporary.glob("*/*")
    assert str(caught.value).endswith(f"The sound is in {kept}.")
    assert kept.name == ("a.s16" if ending == "s16" else "a.wav")
    assert kept.read_bytes().endswith(to_pcm16(NOISE))


def test_where_nothing_can_be_kept_that_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    out = sink(tmp_path / "folder" / "a.wav")
    out.write(NOISE)
    removed(tmp_path / "folder")
    with pytest.raises(OutputError, match="Make the folder"):
        out.close()
    assert names(tmp_path) == []


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_in_its_place_costs_no_sound(tmp_path: Path, replace: bool) -> None:
    out = sink(tmp_path / "a.wav", replace=replace)
    out.write(NOISE)
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(OutputError, match=r"a-2\.wav"):
        out.close()
    assert names(tmp_path) == ["a-2.wav", "a.wav"]


@pytest.mark.parametrize("replace", [False, True])
def test_a_link_in_its_place_is_not_followed(tmp_path: Path, replace: bool) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    out = sink(tmp_path / "a.wav", replace=replace)
    out.write(NOISE)
    (tmp_path / "a.wav").symlink_to(tmp_path / "precious")
    with contextlib.nullcontext() if replace else pytest.raises(OutputError, match=r"a-2\.wav"):
        out.close()
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert soundfile.info(tmp_path / ("a.wav" if replace else "a-2.wav")).frames == 24_000


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


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_cannot_be_encoded_is_kept_as_wav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(self: Encoder, pcm16: bytes) -> None:
        raise error

    out = sink(tmp_path / "a.mp3")
    out.write(NOISE)
    monkeypatch.setattr(Encoder, "write", fail)
    kind = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind) as caught:
        out.close()
    assert isinstance(error, KeyboardInterrupt) or "a.wav" in str(caught.value)
    assert names(tmp_path) == ["a.wav"]
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tobytes() == to_pcm16(NOISE)


@pytest.mark.parametrize("ending", ["wav", "s16", "flac"])
def test_a_sink_that_failed_can_still_be_closed_on_what_it_has(tmp_path: Path, ending: str) -> None:
    out = sink(tmp_path / f"a.{ending}", raw=ending == "s16")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        out.write(NOISE)
        with pytest.raises(OutputError):
            out.write(torch.cat([NOISE, NOISE]))
        out.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert names(tmp_path) == [f"a.{ending}"]
    data = (tmp_path / f"a.{ending}").read_bytes()
    samples = data if ending == "s16" else soundfile.read(io.BytesIO(data), dtype="int16")[0].tobytes()
    assert samples == to_pcm16(NOISE)


# --- taken back ---------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=5),
    st.sampled_from(["wav", "flac", "s16"]),
)
def test_what_is_withdrawn_is_not_in_the_file(
    sizes: list[int], spans: list[tuple[int, int]], ending: str
) -> None:
    samples = NOISE[: sum(sizes)]
    wanted = torch.ones(len(samples), dtype=torch.bool)
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sink_module, "_BLOCK", 7)
        path = Path(name) / f"a.{ending}"
        with sink(path, raw=ending == "s16") as out:
            assert out.can_withdraw
            for chunk in samples.split(sizes):
                out.write(chunk)
            for ends in spans:
                start, end = (min(end, len(samples)) for end in sorted(ends))
                out.withdraw(start, end)
                wanted[start:end] = False
        expected = to_pcm16(samples[wanted])
        if not expected:
            assert names(path.parent) == []
            return
        data = path.read_bytes()
        found = data if ending == "s16" else soundfile.read(io.BytesIO(data), dtype="int16")[0].tobytes()
        assert found == expected
        assert names(path.parent) == [path.name]


def test_samples_that_are_not_there_cannot_be_withdrawn(tmp_path: Path) -> None:
    with sink(tmp_path / "a.wav") as out, pytest.raises(ValueError, match="no samples"):
        out.withdraw(0, 1)


def test_what_stdout_got_cannot_be_withdrawn(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with sink("-") as out:
        out.write(NOISE)
        assert not out.can_withdraw
        with pytest.raises(ValueError, match="taken back"):
            out.withdraw(0, 5)


# --- stdout -------------------------------------------------------------------------------------------


SIZES_UNKNOWN = [0xFFFFFFFF, 0xFFFFFFFF]
SIZES = [36 + 2 * len(NOISE), 2 * len(NOISE)]


def checked_wav(data: bytes, sizes: list[int]) -> None:
    assert data[:4] == b"RIFF"
    assert [struct.unpack("<I", data[at : at + 4])[0] for at in (4, 40)] == sizes
    samples, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert (len(samples), rate) == (len(NOISE), 24_000)


def test_a_pipe_gets_a_wav_of_unknown_length() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    checked_wav(done.stdout, SIZES_UNKNOWN)


@pytest.mark.parametrize("before", [b"", b"what was there"])
def test_a_file_behind_stdout_gets_the_sizes_at_last(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "t.wav"
    with path.open("wb") as file:
        file.write(before)
        file.flush()
        assert run_into(file) == (0, "")
    data = path.read_bytes()
    assert data.startswith(before)
    checked_wav(data[len(before) :], SIZES)


def test_a_file_that_is_appended_to_is_left_as_it_came(tmp_path: Path) -> None:
    path = tmp_path / "t.wav"
    path.write_bytes(b"what was there")
    with path.open("ab") as file:
        assert run_into(file) == (0, "")
    checked_wav(path.read_bytes().removeprefix(b"what was there"), SIZES_UNKNOWN)


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
