"""What the references folder holds: clips that are used, and files that cannot be."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from csm_repl.errors import OutOfMemoryError
from csm_repl.paths import unfinished_path
from csm_repl.voices import clip
from tests.support.fake_voices import RATE, Open, messages, record, the_problem
from tests.support.odd_sounds import encode
from tests.support.speech import voiced


def test_clips_go_to_the_speakers_that_their_names_say(root: Path, open_folder: Open) -> None:
    for name in ("reference2", "reference1-anna-2", "reference1-anna", "reference", "reference0"):
        record(root / f"{name}.wav")
    folder = open_folder()
    changes = folder.refresh()
    assert [(c.speaker, c.name, c.path.stem) for c in folder.clips] == [
        (0, None, "reference"),
        (0, None, "reference0"),
        (1, "anna", "reference1-anna"),
        (1, "anna", "reference1-anna-2"),
        (2, None, "reference2"),
    ]
    assert [len(folder.of(speaker)) for speaker in range(4)] == [2, 2, 1, 0]
    assert [folder.name(speaker) for speaker in (0, 1, 9)] == ["speaker 0", "anna", "speaker 9"]
    assert messages(changes)[2] == ("added", "Speaker 1 (anna) has the clip reference1-anna.wav, 1.0 s.")


def test_speakers_with_a_voice_are_known_by_number_with_their_names(root: Path, open_folder: Open) -> None:
    folder = open_folder()
    assert folder.speakers == {}
    for name in ("reference10", "reference1", "reference1-anna"):
        record(root / f"{name}.wav")
    (root / "reference4-bob.wav").write_bytes(b"no sound")
    folder.refresh()
    assert list(folder.speakers.items()) == [(1, "anna"), (10, None)]


def test_unrelated_files_never_shift_a_speaker(root: Path, open_folder: Open) -> None:
    record(root / "reference1.wav")
    for name in ("notes.txt", "README.md", "reference.wav.part", ".DS_Store", "._reference2.wav"):
        (root / name).write_bytes(b"junk")
    (root / "more").mkdir()
    folder = open_folder()
    assert len(folder.refresh()) == 1
    assert [clip.speaker for clip in folder.clips] == [1]
    assert folder.unusable == ()


def test_a_clip_has_its_words_length_and_codes(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav", 2.0, "\ufeff  Two\nlines,\twith \x1b marks. ", rate=44_100)
    folder = open_folder()
    folder.refresh()
    (clip,) = folder.clips
    assert clip.text == "Two lines, with marks."
    assert clip.transcript == "file"
    assert clip.seconds == pytest.approx(2.0, abs=0.001)
    assert clip.codes is not None
    assert clip.codes.dtype == torch.int64
    assert clip.codes.shape == (4, 25)


def test_without_a_codec_clips_are_listed_without_codes(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav")
    folder = open_folder(encode=None)
    folder.refresh()
    assert folder.clips[0].codes is None
    assert folder.clips[0].seconds == 1.0


def test_different_names_of_one_speaker_are_that_speakers_clips(root: Path, open_folder: Open) -> None:
    for name in ("reference1-bob", "reference1-Anna", "reference1"):
        record(root / f"{name}.wav")
    folder = open_folder()
    folder.refresh()
    assert [clip.name for clip in folder.of(1)] == [None, "Anna", "bob"]
    assert folder.name(1) == "Anna"


def test_two_clips_do_not_share_a_transcript(root: Path, open_folder: Open) -> None:
    first = record(root / "reference1.flac")
    record(root / "reference1.wav")
    record(root / "reference1-2.wav")
    folder = open_folder()
    folder.refresh()
    assert [clip.path.name for clip in folder.clips] == ["reference1.flac", "reference1-2.wav"]
    (unusable,) = folder.unusable
    assert "same transcript file as reference1.flac" in unusable.cause
    assert "reference1-3.wav" in unusable.remedy
    first.unlink()
    assert {change.kind for change in folder.refresh()} == {"added", "removed"}
    assert folder.unusable == ()


def test_no_folder_is_fine_and_one_made_later_is_noticed(root: Path, open_folder: Open) -> None:
    root.rmdir()
    folder = open_folder()
    assert folder.refresh() == []
    root.mkdir()
    record(root / "reference.wav")
    assert [change.kind for change in folder.refresh()] == ["added"]


def test_a_file_in_the_folders_place_is_told_once(tmp_path: Path, open_folder: Open) -> None:
    (tmp_path / "file").touch()
    folder = open_folder(root=tmp_path / "file")
    assert "is a file" in folder.refresh()[0].message
    assert folder.refresh() == []
    assert "is a file" in folder.problem


def test_an_unreadable_folder_is_told_once_and_its_clips_stay(
    root: Path, open_folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(root / "reference.wav")
    folder = open_folder()
    folder.refresh()

    def refuse(_: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        (change,) = folder.refresh()
        assert change.kind == "unusable"
        assert "Permission denied" in change.message
        assert folder.refresh() == []
    assert len(folder.clips) == 1
    assert folder.refresh() == []
    assert folder.problem == ""


def write_bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def write_samples(samples: Any, rate: int = RATE, subtype: str = "PCM_16") -> Callable[[Path], object]:
    return lambda path: soundfile.write(path, samples, rate, subtype)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (write_bytes(b""), "is empty"),
        (write_samples(np.zeros(0)), "only a header"),
        (write_bytes(b"RIFF\xff\xff"), "damaged"),
        (write_samples(np.ones(1)), "0.0417 ms long"),
        (write_samples(np.zeros(RATE)), "holds no speech"),
        (write_samples(np.ones(8_000 * 600, "int16"), 8_000), "longer than 300 s. Cut it to 5-30 s"),
        (write_samples(np.random.default_rng(0).uniform(-1, 1, 8_000 * 61), 8_000), "Cut it to 5-30 s"),
        (write_samples(np.full(RATE, np.nan), subtype="FLOAT"), "not numbers"),
        (Path.mkdir, "is a folder"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.symlink_to("nowhere"), "is not there"),
    ],
)
def test_a_bad_clip_is_listed_and_the_others_load(
    root: Path, open_folder: Open, make: Callable[[Path], object], message: str
) -> None:
    record(root / "reference.wav")
    folder = open_folder()
    folder.refresh()
    make(root / "reference1.wav")
    (root / "reference1.txt").write_text("Hello.")
    assert message in the_problem(folder, folder.refresh())
    assert [clip.speaker for clip in folder.clips] == [0]
    assert folder.refresh() == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Grüße".encode("latin-1"), "is not UTF-8. Save reference.txt again as UTF-8."),
        ("Hello".encode("utf-16-le"), "is not UTF-8"),
        ("Hello".encode("utf-32"), "is not UTF-8"),
        ("Hello".encode("utf-16") + b"!", "is not UTF-8"),
        (b"", "is empty. Write the words of the clip into reference.txt, or delete it so that Whisper does."),
        (b"\xef\xbb\xbf \n", "is empty"),
        (b"x" * 70_000, "too long"),
    ],
)
def test_a_bad_transcript(root: Path, open_folder: Open, content: bytes, message: str) -> None:
    record(root / "reference.wav").with_suffix(".txt").write_bytes(content)
    folder = open_folder()
    assert message in the_problem(folder, folder.refresh())
    assert (root / "reference.txt").read_bytes() == content


def test_a_transcript_that_is_a_folder(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav", text=None)
    (root / "reference.txt").mkdir()
    folder = open_folder()
    assert "is not a file" in the_problem(folder, folder.refresh())


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: unknown\nadvice"), OutOfMemoryError("The GPU is full.", "Use a CPU.")]
)
def test_a_clip_that_the_codec_cannot_encode(root: Path, open_folder: Open, error: Exception) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise error

    record(root / "reference.wav")
    folder = open_folder(encode=fail)
    assert str(error).splitlines()[0] in the_problem(folder, folder.refresh())


def test_files_that_look_like_clips_are_named_once(root: Path, open_folder: Open) -> None:
    record(root / "reference0.wav")
    for name in ("reference_15.wav", "anna.wav", "bob.wav", "reference3.wma", "README.md"):
        (root / name).write_bytes(b"?")
    folder = open_folder()
    ignored = [change for change in folder.refresh() if change.kind == "ignored"]
    assert all(change.is_warning for change in ignored)
    assert [file.better for file in folder.ignored] == [
        "reference1-anna.wav", "reference2-bob.wav", "", "reference15.wav"
    ]  # fmt: skip
    assert ignored[0].message == (
        "anna.wav is not taken as a clip. Its name does not say whose voice it is. "
        "Rename it to reference1-anna.wav, for example."
    )
    assert folder.refresh() == []
    (root / "anna.wav").unlink()
    record(root / "reference 4.wav")
    (change,) = folder.refresh()
    assert "Rename it to reference4.wav" in change.message
    assert [clip.speaker for clip in folder.clips] == [0]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize("ending", ["opus", "aac", "aiff", "aif", "caf", "webm", "m4a", "mp3", "ogg", "flac"])
def test_clips_of_every_format(root: Path, open_folder: Open, tmp_path: Path, ending: str) -> None:
    source = tmp_path / "source.wav"
    soundfile.write(source, voiced(2.0), RATE)
    encode(source, root / f"reference1-anna.{ending}")
    (root / "reference1-anna.txt").write_text("Hello.")
    folder = open_folder()
    folder.refresh()
    (found,) = folder.clips
    assert (found.speaker, found.name, found.text) == (1, "anna", "Hello.")
    assert found.seconds == pytest.approx(2.0, abs=0.15)


def test_three_thousand_junk_clips_are_a_few_lines(
    root: Path, open_folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a program was started for a file that cannot be sound")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    for number in range(3_000):
        (root / f"reference{number % 1_000}-x{number}.{('wav', 'mp3', 'm4a')[number % 3]}").write_bytes(
            b"junk" * 9
        )
    record(root / "reference.wav")
    folder = open_folder()
    changes = folder.refresh()
    assert len(changes) < 10
    assert "2,994 more clips cannot be used. csm-repl voices lists everything." in changes[-1].message
    assert len(folder.unusable) == 3_000
    assert [clip.speaker for clip in folder.clips] == [0]
    assert folder.refresh() == []


def test_what_is_no_file_is_neither_opened_nor_waited_for(
    root: Path, open_folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(root / "reference.wav")
    os.mkfifo(root / "reference1.wav")
    record(root / "reference2.wav", text=None)
    os.mkfifo(root / "reference2.txt")
    (root / "reference3.wav").symlink_to("reference3.wav")
    (root / "reference4.wav").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(root)  # the path of a socket has a hundred characters at most
        listening.bind("reference5.wav")
        folder = open_folder()
        folder.refresh()
    causes = {bad.speaker: bad.cause for bad in folder.unusable}
    assert causes == {
        1: "This is no regular file.",
        2: "Its transcript is not a file.",
        3: "The file cannot be read: Too many levels of symbolic links.",
        4: "This is no regular file.",
        5: "This is no regular file.",
    }
    assert [clip.speaker for clip in folder.clips] == [0]


def test_a_folder_that_is_a_loop_is_not_empty(root: Path, tmp_path: Path, open_folder: Open) -> None:
    (tmp_path / "loop").symlink_to("loop")
    folder = open_folder(root=tmp_path / "loop")
    (change,) = folder.refresh()
    assert change.is_warning
    assert "cannot be read: Too many levels of symbolic links." in folder.problem


def test_a_huge_file_is_refused_before_it_is_read(
    root: Path, open_folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (root / "reference.wav").open("wb") as file:
        file.write(b"RIFF")
        file.truncate(3 << 30)  # of which nothing is on the disk
    monkeypatch.setattr(clip, "content_digest", None)
    folder = open_folder()
    assert "3.2 GB, more than any clip" in the_problem(folder, folder.refresh())


def test_what_a_killed_process_left_beside_the_clips_is_cleared(root: Path, open_folder: Open) -> None:
    name = unfinished_path(root).name.split("-")
    left = root / "-".join([*name[:3], str(2**22 + 1), name[4]])  # no process has that number
    left.write_bytes(b"half")
    open_folder()
    assert not left.exists()
