"""What a file holds counts, not what its header claims."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from csm_repl.audio import TooLongError, missing_seconds, read_audio, read_mono
from csm_repl.errors import ClipError
from tests.support.odd_sounds import (
    Patch,
    cut,
    encode,
    piped,
    twice,
    with_flac_total,
    with_junk,
    with_size,
    with_xing_frames,
)  # fmt: skip
from tests.support.speech import voiced

pytestmark = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg is not installed"
)
SECONDS = 3.0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds that differ from one another, quiet then loud: an MP3's first frame says little."""
    path = tmp_path_factory.mktemp("source") / "source.wav"
    sound = voiced(SECONDS) * np.linspace(0.02, 1.0, int(24_000 * SECONDS), dtype=np.float32)
    soundfile.write(path, sound, 24_000)
    return path


def heard(path: Path) -> float:
    """Seconds, by both readers, which must agree."""
    x, rate = read_audio(path)
    assert read_mono(path).shape[0] / 24_000 == pytest.approx(x.shape[1] / rate, abs=0.001)
    return x.shape[1] / rate


def without_ffmpeg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize("has_ffmpeg", [True, False])
@pytest.mark.parametrize(
    "options", [["-q:a", "2"], ["-q:a", "9"], ["-b:a", "128k"], ["-ar", "44100", "-ac", "2"]]
)
def test_an_mp3_without_a_count_of_frames_is_read_to_its_end(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], has_ffmpeg: bool
) -> None:
    path = encode(source, tmp_path / "a.mp3", *options, "-write_xing", "0")
    if not has_ffmpeg:
        without_ffmpeg(monkeypatch, tmp_path)
    assert heard(path) == pytest.approx(SECONDS, abs=0.15)  # the encoder's padding
    x, rate = read_audio(path)
    loudest, _ = soundfile.read(source)
    assert float(x[0, -rate // 2 :].abs().max()) > 0.5 * loudest.max()  # the loud end is there


def test_an_mp3_in_blocks_is_the_same_as_at_once(source: Path, tmp_path: Path) -> None:
    path = encode(source, tmp_path / "a.mp3")
    at_once, _ = soundfile.read(path, dtype="float32")
    assert torch.allclose(read_audio(path)[0][0], torch.from_numpy(at_once), atol=1e-6)


@pytest.mark.parametrize("n_frames", [0, 10, 60, 100_000, 0xFFFFFFFF])
def test_an_mp3_with_a_wrong_count_of_frames(source: Path, tmp_path: Path, n_frames: int) -> None:
    path = encode(source, tmp_path / "a.mp3")
    path.write_bytes(with_xing_frames(n_frames)(path.read_bytes()))
    assert heard(path) == pytest.approx(SECONDS, abs=0.15)


_DATA = [0, 1, 48_000, 48_001, 0x7FFFFFF0, 0x7FFFFFFF, 0xFFFFFFFF]


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        *((f"{size}.wav", with_size(b"data", "<I", size)) for size in _DATA),
        *((f"riff {size}.wav", with_size(b"RIFF", "<I", size)) for size in (0, 4, 0xFFFFFFFF)),
        *((f"{size}.aiff", with_size(b"SSND", ">I", size)) for size in _DATA),
        *(
            (f"{size}.caf", with_size(b"data", ">q", size))
            for size in (-1, 0, 48_000, 1 << 40, (1 << 63) - 1)
        ),
        *((f"{n}.flac", with_flac_total(n)) for n in (0, 1, 24_000, 10**9, (1 << 36) - 1)),
    ],
)
def test_a_stated_length_is_not_believed(source: Path, tmp_path: Path, name: str, patch: Patch) -> None:
    path = encode(source, tmp_path / name)
    path.write_bytes(patch(path.read_bytes()))
    assert heard(path) == pytest.approx(SECONDS, abs=0.001)
    assert torch.allclose(read_audio(path)[0], read_audio(source)[0], atol=1e-4)


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "mp3", "caf", "webm", "adts"])
def test_a_file_that_a_pipe_wrote(source: Path, tmp_path: Path, container: str) -> None:
    ending = {"adts": "aac"}.get(container, container)
    try:
        path = piped(source, tmp_path / f"a.{ending}", container)
    except subprocess.CalledProcessError:
        pytest.skip(f"this ffmpeg pipes no {container}")
    assert heard(path) == pytest.approx(SECONDS, abs=0.15)


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "aiff", "caf"])
def test_what_an_interrupted_copy_lost_is_known(source: Path, tmp_path: Path, ending: str) -> None:
    path = encode(source, tmp_path / f"a.{ending}")
    assert missing_seconds(path, heard(path)) == pytest.approx(0, abs=0.15)  # an MP3's padding
    path.write_bytes(cut(0.6)(path.read_bytes()))
    there = heard(path)
    assert there < 0.8 * SECONDS
    assert missing_seconds(path, there) == pytest.approx(SECONDS - there, abs=0.15)


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        *((f"{size}.wav", with_size(b"data", "<I", size)) for size in (0, 1, 0x7FFFFFF0, 0xFFFFFFFF)),
        *((f"{size}.caf", with_size(b"data", ">q", size)) for size in (-1, 0, (1 << 63) - 1)),
        *((f"{n}.flac", with_flac_total(n)) for n in (0, 1, 10**9, (1 << 36) - 1)),
        *((f"{n}.mp3", with_xing_frames(n)) for n in (0, 10, 0xFFFFFFFF)),
    ],
)
def test_a_length_that_nobody_meant_is_nothing_lost(
    source: Path, tmp_path: Path, name: str, patch: Patch
) -> None:
    path = encode(source, tmp_path / name)
    path.write_bytes(patch(path.read_bytes()))
    assert missing_seconds(path, SECONDS) == 0


@pytest.mark.parametrize(
    "data", [b"", b"RIFF", b"fLaC", b"ID3", b"\xff\xfb\x90", b"RIFF\0\0\0\0WAVEdata\0\0\0\0"]
)
def test_a_header_that_breaks_off_states_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    assert missing_seconds(tmp_path / "a", 1.0) == 0
    assert missing_seconds(tmp_path / "none", 1.0) == 0


def test_a_large_wav_with_its_size_in_another_place(source: Path, tmp_path: Path) -> None:
    path = encode(source, tmp_path / "a.wav", "-rf64", "always")
    data = path.read_bytes()
    assert data[:4] == b"RF64"
    assert heard(path) == pytest.approx(SECONDS, abs=0.001)
    at = data.index(b"ds64") + 16
    path.write_bytes(data[:at] + struct.pack("<Q", 1_000) + data[at + 8 :])
    assert heard(path) == pytest.approx(SECONDS, abs=0.001)


def test_what_follows_the_sound_is_no_sound(source: Path, tmp_path: Path) -> None:
    data = source.read_bytes()
    tail = b"LIST" + struct.pack("<I", 10_000) + b"INFO" + bytes(range(256)) * 40
    for name, more in (("chunk", tail[:10_008]), ("tag", b"TAG" + bytes(125))):
        path = tmp_path / f"{name}.wav"
        path.write_bytes(data + more)
        assert heard(path) == SECONDS


def test_a_chunk_before_the_sound_is_no_sound(source: Path, tmp_path: Path) -> None:
    data = source.read_bytes()
    for size in (5_000, 4_999):  # odd ones are padded
        path = tmp_path / f"{size}.wav"
        path.write_bytes(data[:12] + b"JUNK" + struct.pack("<I", size) + bytes(5_000) + data[12:])
        assert heard(path) == SECONDS


@pytest.mark.parametrize("ending", ["wav", "aiff", "caf", "flac", "ogg", "opus", "mp3", "aac", "webm"])
@pytest.mark.parametrize("has_ffmpeg", [True, False])
def test_a_file_cut_short_is_read_to_its_last_sample(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, has_ffmpeg: bool
) -> None:
    path = encode(source, tmp_path / f"a.{ending}")
    path.write_bytes(cut(0.6)(path.read_bytes()))
    command = ["ffmpeg", "-v", "quiet", "-i", str(path), "-ar", "24000", "-f", "s16le", "-"]
    n_decoded = len(subprocess.run(command, capture_output=True).stdout) / 2
    if not has_ffmpeg:
        without_ffmpeg(monkeypatch, tmp_path)
        if ending in ("aac", "webm"):
            with pytest.raises(ClipError, match="needs ffmpeg"):
                read_mono(path)
            return
    assert heard(path) == pytest.approx(n_decoded / 24_000, abs=0.06)
    assert heard(path) < 0.9 * SECONDS


@pytest.mark.parametrize("ending", ["flac", "ogg", "opus", "mp3"])
def test_recordings_that_were_joined_as_files(source: Path, tmp_path: Path, ending: str) -> None:
    path = encode(source, tmp_path / f"a.{ending}")
    path.write_bytes(twice(path.read_bytes()))
    assert heard(path) == pytest.approx(2 * SECONDS, abs=0.3)


@pytest.mark.parametrize("ending", ["flac", "mp3"])
def test_a_file_damaged_in_the_middle_is_read_to_its_end_or_refused(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = encode(source, tmp_path / f"a.{ending}")
    path.write_bytes(with_junk(path.read_bytes()))
    assert heard(path) == pytest.approx(SECONDS, abs=0.4)
    without_ffmpeg(monkeypatch, tmp_path)
    with pytest.raises(ClipError, match=r"damaged.*Install ffmpeg"):
        read_mono(path)
    assert capfd.readouterr().err == ""  # the decoders' own words


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "opus", "mp3", "caf", "webm", "m4a"])
def test_a_part_of_any_format_is_where_it_should_be(source: Path, tmp_path: Path, ending: str) -> None:
    path = encode(source, tmp_path / f"a.{ending}")
    whole = read_mono(path)
    part = read_mono(path, start_s=1.0, end_s=1.5, max_seconds=0.6)
    assert part.shape[0] == 12_000
    expected = whole[24_000:36_000]
    assert float((part - expected).square().mean()) < 0.01 * float(expected.square().mean())


def test_sound_in_memory_is_read_in_every_format(source: Path, tmp_path: Path) -> None:
    for ending in ("mp3", "m4a", "webm"):
        data = encode(source, tmp_path / f"a.{ending}").read_bytes()
        assert read_mono(io.BytesIO(data)).shape[0] == pytest.approx(24_000 * SECONDS, abs=4_000)


def test_a_long_recording_behind_a_small_header_is_too_long(source: Path, tmp_path: Path) -> None:
    path = encode(source, tmp_path / "a.flac")
    path.write_bytes(with_flac_total(100)(path.read_bytes()))
    with pytest.raises(TooLongError, match="longer than 2 s"):
        read_mono(path, max_seconds=2.0)


# --- bounds


def peak_mib(code: str) -> int:
    """What running `code` adds to the memory of a process that has everything imported."""
    before = "import resource, sys, numpy, torch, torchaudio, soundfile\n"
    before += "from csm_repl.audio import read_mono, read_audio\nfrom csm_repl.errors import ClipError\n"
    peak = "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss"
    script = f"{before}start = {peak}\n{code}\nprint(({peak} - start) // 1024)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return int(run.stdout)


def compressed_silence(path: Path, channels: int, rate: int, seconds: int) -> Path:
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
        for _ in range(seconds):
            file.write(np.zeros((rate, channels), np.int16))
    return path


def test_a_small_file_with_much_in_it_takes_little_memory(tmp_path: Path) -> None:
    path = compressed_silence(tmp_path / "bomb.flac", 8, 96_000, 25)
    assert path.stat().st_size < 200_000
    as_floats = 8 * 96_000 * 25 * 4 >> 20
    assert peak_mib(f"read_mono({str(path)!r}, max_seconds=300)") < as_floats // 2


def test_what_does_not_fit_is_a_clip_error_before_it_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csm_repl.audio import read

    monkeypatch.setattr(read, "_MOST_SAMPLES", 100_000)
    path = compressed_silence(tmp_path / "a.flac", 4, 24_000, 2)
    with pytest.raises(ClipError, match="memory"):
        read_audio(path)


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 44_101, 192_000])
def test_mono_in_blocks_is_mono_at_once(tmp_path: Path, rate: int) -> None:
    from csm_repl.audio import resample, to_mono

    x = torch.rand(3, 3 * rate + 17) - 0.5
    x -= x.mean()
    path = tmp_path / "a.wav"
    soundfile.write(path, x.T.numpy(), rate, "FLOAT")
    mono, expected = read_mono(path), resample(to_mono(x), rate, 24_000)
    # The offset is that of the first block.
    assert torch.allclose(mono - mono.mean(), expected - expected.mean(), atol=2e-3)


def test_channels_that_cancel_out_are_not_silence(tmp_path: Path) -> None:
    x = torch.from_numpy(voiced(1.0))
    path = tmp_path / "a.wav"
    soundfile.write(path, torch.stack([0.5 * x, -0.5 * x, 0 * x], 1).numpy(), 24_000, "FLOAT")
    assert torch.allclose(read_mono(path), 0.5 * x, atol=1e-3)


def test_an_offset_does_not_click_at_the_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(48_000, 0.3, np.float32), 48_000, "FLOAT")
    assert float(read_mono(path).abs().max()) < 1e-4


@pytest.mark.parametrize("data", [b"RIFF" + bytes(40), b"fLaC", b"OggS" + bytes(12), b"ID3" + bytes(20)])
def test_a_header_and_nothing_else(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(ClipError):
        read_mono(tmp_path / "a.wav")


@pytest.mark.parametrize(
    "data", [bytes(2000), b"RIFF" + bytes(2000), b"FORM" + bytes(2000), b"<html>" * 300, b"\0" * 3]
)
def test_ffmpeg_is_not_asked_for_what_only_calls_itself_sound(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of such files would take minutes."""

    def no_process(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr("subprocess.Popen", no_process)
    (tmp_path / "x.wav").write_bytes(data)
    with pytest.raises(ClipError, match=r"damaged|empty"):
        read_audio(tmp_path / "x.wav")
