"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl import audio
from csm_repl.audio import to_pcm16, write_audio, write_bytes_atomic
from csm_repl.errors import OutputError, UsageError
from tests.support.speech import tone

# --- arithmetic ---------------------------------------------------------------------------------------


@given(st.binary(max_size=100).filter(lambda data: len(data) % 2 == 0))
def test_16_bit_sound_survives_a_round_trip(data: bytes) -> None:
    samples = torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32) / 32768)
    assert to_pcm16(samples) == data


# --- writing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".wav", ".FLAC", ".mp3"])
def test_writes_by_the_ending_with_the_usual_mode_and_nothing_beside(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    write_audio(path, tone(0.5))
    info = soundfile.info(path)
    assert (info.samplerate, info.channels) == (24_000, 1)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_wav_and_flac_hold_exactly_the_pcm16(tmp_path: Path) -> None:
    x = torch.rand(1_000) * 2.2 - 1.1
    for name in ("a.wav", "a.flac"):
        write_audio(tmp_path / name, x)
        assert soundfile.read(tmp_path / name, dtype="int16")[0].tobytes() == to_pcm16(x)


def test_nothing_is_overwritten(wav: Path) -> None:
    before = wav.read_bytes()
    with pytest.raises(FileExistsError):
        write_audio(wav, tone(2.0))
    assert wav.read_bytes() == before
    assert list(wav.parent.iterdir()) == [wav]


def test_replace_replaces_what_a_link_leads_to(tmp_path: Path, wav: Path) -> None:
    link = tmp_path / "link.wav"
    link.symlink_to(wav)
    write_audio(link, tone(2.0), replace=True)
    assert link.is_symlink()
    assert soundfile.info(wav).frames == 48_000


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OutputError, match="no regular file"):
        write_bytes_atomic(tmp_path / "fifo", b"x", replace=True)
    assert (tmp_path / "fifo").is_fifo()


def test_a_file_system_without_hard_links(tmp_path: Path, wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    write_bytes_atomic(tmp_path / "new", b"x")
    assert (tmp_path / "new").read_bytes() == b"x"
    with pytest.raises(FileExistsError):
        write_bytes_atomic(wav, b"x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "tone.wav"]


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EFBIG, "ulimit"),
        (errno.EROFS, "may write to"),
        (errno.EACCES, "may write to"),
        (errno.EIO, "another folder or disk"),
    ],
)
def test_what_the_system_refuses_names_the_remedy_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match=remedy):
        write_audio(tmp_path / "a.wav", tone(0.1))
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_bytes_atomic(tmp_path / "a.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Make the folder"):
        write_bytes_atomic(tmp_path / "none" / "a.json", b"{}")


def test_an_unknown_ending(tmp_path: Path) -> None:
    for name in ("a.aiff", "a"):
        with pytest.raises(UsageError, match=r"Use one of \.wav, \.flac, \.mp3, \.ogg, \.opus"):
            write_audio(tmp_path / name, tone(0.1))


def test_no_sound_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no sound"):
        write_audio(tmp_path / "a.flac", torch.zeros(0))
    assert list(tmp_path.iterdir()) == []


def test_a_rate_that_mp3_does_not_have(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"Use \.wav"):
        write_audio(tmp_path / "a.mp3", tone(0.1), 96_001)


def test_everything_in_all_is_there() -> None:
    assert all(hasattr(audio, name) for name in audio.__all__)
