"""Sound files of every kind, and files that are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from csm_repl.audio import TooLongError, read_audio, write_audio
from csm_repl.errors import ClipError
from tests.support.speech import dbfs, tone

needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="ffmpeg is not installed"
)


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3"])
def test_reads_what_soundfile_reads(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    soundfile.write(path, tone(0.5).numpy(), 24_000)
    x, rate = read_audio(path)
    assert rate == 24_000
    assert x.dtype == torch.float32
    assert x.shape[0] == 1
    assert x.shape[1] == pytest.approx(12_000, abs=2_500)  # mp3 pads
    assert dbfs(x) == pytest.approx(dbfs(tone(0.5)), abs=1.0)


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"), [(8_000, 1, "PCM_U8"), (96_000, 6, "PCM_24"), (44_100, 2, "DOUBLE")]
)
def test_reads_any_rate_width_and_number_of_channels(
    tmp_path: Path, rate: int, channels: int, subtype: str
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.repeat(tone(0.2, rate).numpy()[:, None], channels, 1), rate, subtype)
    x, got_rate = read_audio(path)
    assert x.shape == (channels, rate // 5)
    assert got_rate == rate


@needs_ffmpeg
@pytest.mark.parametrize(("ending", "codec"), [(".m4a", "aac"), (".m4a", "alac"), (".webm", "libopus")])
def test_reads_other_formats_through_ffmpeg(tmp_path: Path, wav: Path, ending: str, codec: str) -> None:
    path = tmp_path / f"-a b{ending}"
    command = ["ffmpeg", "-v", "error", "-i", str(wav), "-c:a", codec, str(path)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"this ffmpeg has no {codec}")
    x, rate = read_audio(path)
    assert x.shape[1] / rate == pytest.approx(1.0, abs=0.1)
    assert dbfs(x) == pytest.approx(dbfs(tone(1.0)), abs=1.0)


@needs_ffmpeg
def test_reads_a_file_with_the_wrong_ending(tmp_path: Path, wav: Path) -> None:
    path = tmp_path / "a.m4a"
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(wav), str(path)], check=True)
    misnamed = path.rename(tmp_path / "a.wav")
    assert read_audio(misnamed)[0].shape[1] > 20_000


def test_says_that_ffmpeg_is_missing_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x1cftypM4A " + bytes(100))
    with pytest.raises(ClipError, match=r"needs ffmpeg.*Install ffmpeg, or convert"):
        read_audio(tmp_path / "a.m4a")


def test_does_not_ask_for_ffmpeg_where_it_would_not_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "a.wav").write_bytes(b"no sound at all" * 20)
    with pytest.raises(ClipError, match="damaged, or of a format that is not known"):
        read_audio(tmp_path / "a.wav")


def test_importing_pydub_without_ffmpeg_is_silent(tmp_path: Path) -> None:
    code = "import csm_repl.audio as a; a.import_pydub()"
    run = subprocess.run(
        [sys.executable, "-W", "default", "-c", code],
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_importing_the_package_imports_no_heavy_library() -> None:
    code = (
        "import csm_repl.audio, csm_repl.voices, sys;"
        "sys.exit(', '.join({'torch', 'numpy', 'soundfile', 'pydub', 'whisper'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stderr.strip() == ""


def bad_files(folder: Path, wav: Path) -> dict[str, tuple[Path, str]]:
    """case -> file, part of the message"""
    data = wav.read_bytes()
    cases: dict[str, tuple[bytes | np.ndarray[Any, Any], str]] = {
        "empty": (b"", "is empty"),
        "header only": (data[:44], "only a header"),
        "half a header": (data[:20], "damaged"),
        "text": (b"hello " * 99, "damaged"),
        "not a number": (np.array([0.1, np.nan]), "not numbers"),
        "infinite": (np.array([0.1, np.inf]), "not numbers"),
    }
    found = {}
    for case, (content, message) in cases.items():
        path = folder / f"{case}.wav"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            soundfile.write(path, content, 24_000, "FLOAT")
        found[case] = path, message
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "fifo.wav")
    (folder / "dangling.wav").symlink_to(folder / "nothing")
    odd = folder / "rate.wav"
    soundfile.write(odd, np.zeros(10), 3)
    return {
        **found,
        "folder": (folder / "folder.wav", "is a folder"),
        "fifo": (folder / "fifo.wav", "no regular file"),
        "dangling link": (folder / "dangling.wav", "is not there"),
        "missing": (folder / "missing.wav", "is not there"),
        "rate of 3 Hz": (odd, "sample rate of 3 Hz"),
    }


def test_every_bad_file_has_its_message_and_a_remedy(tmp_path: Path, wav: Path) -> None:
    for case, (path, message) in bad_files(tmp_path, wav).items():
        with pytest.raises(ClipError, match=message) as caught:
            read_audio(path)
        assert caught.value.cause.endswith("."), case
        assert caught.value.remedy.endswith("."), case


@pytest.mark.parametrize(
    ("error", "message"), [(PermissionError(13, "no"), "not allowed"), (OSError(5, "I/O error"), "I/O error")]
)
def test_a_file_that_may_not_be_read(
    wav: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, message: str
) -> None:
    # Simulated, because the superuser may read everything.
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ClipError, match=message):
        read_audio(wav)


def test_a_wav_cut_short_is_read_as_far_as_it_goes(wav: Path) -> None:
    wav.write_bytes(wav.read_bytes()[:10_001])
    assert read_audio(wav)[0].shape == (1, 4_978)


@needs_ffmpeg
def test_a_flac_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    noise = torch.rand(48_000) - 0.5
    write_audio(path, noise)
    path.write_bytes(path.read_bytes()[:60_000])
    x, rate = read_audio(path)
    assert rate == 24_000
    assert 20_000 < x.shape[1] < 48_000
    assert torch.allclose(x[0, :20_000], noise[:20_000], atol=1e-4)


def test_a_long_file_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(8_000 * 600, "int16"), 8_000)
    monkeypatch.setattr(soundfile.SoundFile, "read", None)
    with pytest.raises(TooLongError, match="longer than 300 s"):
        read_audio(path, max_seconds=300)


# --- parts of a file, and open files


@pytest.mark.parametrize(("ending", "tolerance"), [(".wav", 1e-4), (".flac", 1e-4), (".mp3", None)])
def test_a_part_of_a_file_is_what_the_whole_has_there(
    tmp_path: Path, ending: str, tolerance: float | None
) -> None:
    path = tmp_path / f"a{ending}"
    write_audio(path, (torch.rand(48_000) - 0.5) / 2)
    whole, rate = read_audio(path)
    part, part_rate = read_audio(path, start_s=0.5, end_s=1.25)
    assert part_rate == rate
    assert part.shape == (1, 18_000)
    if tolerance is not None:  # an mp3's decoder starts anew where it is sought to
        assert torch.allclose(part, whole[:, 12_000:30_000], atol=tolerance)


def test_a_part_ends_where_the_file_does_and_its_own_length_counts(wav: Path) -> None:
    seconds = read_audio(wav)[0].shape[1] / read_audio(wav)[1]
    part, rate = read_audio(wav, start_s=seconds / 2, end_s=10 * seconds, max_seconds=0.6 * seconds)
    assert part.shape[1] == pytest.approx(rate * seconds / 2, abs=2)
    with pytest.raises(TooLongError):
        read_audio(wav, start_s=seconds / 10, max_seconds=seconds / 2)


def test_a_part_behind_the_end_is_a_clip_error(wav: Path) -> None:
    with pytest.raises(ClipError, match="ends before 99 s"):
        read_audio(wav, start_s=99.0)


@needs_ffmpeg
def test_a_part_of_what_ffmpeg_reads(tmp_path: Path) -> None:
    from csm_repl.audio import import_pydub

    source, path = tmp_path / "a.wav", tmp_path / "a.m4a"
    tone = torch.cat([torch.zeros(24_000), 0.5 * torch.sin(torch.arange(24_000) * 0.1)])
    write_audio(source, tone)
    import_pydub().AudioSegment.from_file(str(source)).export(str(path), format="ipod")
    part, rate = read_audio(path, start_s=1.25, end_s=1.75, max_seconds=0.6)
    assert (rate, part.shape) == (24_000, (1, 12_000))
    assert part.abs().mean() > 0.2


def test_an_open_file_is_read_and_refused_like_one_with_a_name(wav: Path) -> None:
    import io

    x, rate = read_audio(io.BytesIO(wav.read_bytes()))
    assert rate == read_audio(wav)[1]
    assert torch.equal(x, read_audio(wav)[0])
    with pytest.raises(ClipError, match="damaged"):
        read_audio(io.BytesIO(b"nothing that sounds"))
