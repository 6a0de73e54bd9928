"""What `csm-repl voices` shows of a folder where much went wrong."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from csm_repl.cli import main
from csm_repl.front.voice_list import voice_faults, voice_list
from csm_repl.voices import PrepareOptions, VoiceFolder
from tests.support.fake_voices import record


def looked_at(root: Path) -> VoiceFolder:
    folder = VoiceFolder(
        root, options=PrepareOptions(), encode=None, codec_id="none", transcriber=None, cache_dir=None
    )
    folder.refresh()
    return folder


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> VoiceFolder:
    """Forty odd files beside three voices."""
    root = tmp_path_factory.mktemp("odd")
    for name in ("reference-ada", "reference1-ben", "reference1-ben-2", "reference2"):
        record(root / f"{name}.wav", text="The rain had stopped by the evening, and the streets were quiet.")
    for name in (
        "reference_15",
        "reference 1",
        "anna",
        "reference1 (copy)",
        "bob",
        "my voice",
        "c",
        "reference1000",
    ):
        record(root / f"{name}.wav", text=None)
    for number in (20, 21, 22):
        record(root / f"reference{number}.wav", text=None)
    for number in range(30, 40):
        (root / f"reference{number}.wav").write_bytes(b"")
    for number in range(40, 46):
        (root / f"reference{number}.wav").write_bytes(b"no sound")
    for number in (50, 51):
        record(root / f"reference{number}.wav").with_suffix(".txt").write_bytes(b"Gr\xfc\xdfe")
    for number, seconds in ((52, 61.0), (53, 62.0)):
        record(root / f"reference{number}.wav", seconds, rate=8_000)
    os.mkfifo(root / "reference60.wav")
    (root / "reference61.wav").mkdir()
    (root / "reference62.wav").symlink_to("reference62.wav")
    (root / "reference63.wav").symlink_to("nowhere")
    record(root / "reference64.wav").with_suffix(".txt").write_bytes(b"")
    (root / "reference65.wma").write_bytes(b"?")
    (root / "reference1.WAV.txt").write_text("Hello.")
    (root / "reference2-\x1b[31m.wav").write_bytes(b"?")
    record(root / "reference66.wav")
    record(root / "reference66.flac")
    return looked_at(root)


def cells(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


def test_forty_odd_files_are_one_screenful(odd_folder: VoiceFolder) -> None:
    lines = voice_list(odd_folder, whisper=True, width=80, height=23)
    assert len(lines) <= 23
    assert max(map(cells, lines)) <= 80
    text = "\n".join(lines)
    title = " ".join(text.split())
    assert "5 clips of 4 speakers, 26 cannot be used, 3 wait for Whisper, 11 not taken." in title
    assert "0 ada, 1 ben (2 clips), 2, 66" in text
    assert "csm-repl voices | less" in lines[-1]
    # The quickest to mend first: a name, a transcript, then the fault of most files.
    order = ["Rename", "reference20.wav", "reference30.wav", "reference40.wav"]
    assert sorted(order, key=text.index) == order
    assert "\x1b" not in text


def test_everything_is_there_where_there_is_room(odd_folder: VoiceFolder) -> None:
    text = " ".join(" ".join(voice_list(odd_folder, whisper=True, width=100)).split())
    files = [*odd_folder.unusable, *odd_folder.ignored]
    assert len(files) == 40
    for file in files:
        assert file.path.name.replace("\x1b", "\\x1b") in text, file
    assert "reference_15.wav to reference15.wav" in text
    assert "reference20.wav, reference21.wav, reference22.wav: No transcript yet. Whisper writes it" in text
    assert "reference50.wav, reference51.wav: Its transcript is not UTF-8. Save NAME.txt again as" in text
    assert "The clip is … s long; a voice can use 60 s. Cut it to 5-30 s" in text
    assert "Convert it to reference65.wav." in text
    assert "less shows everything" not in text


@pytest.mark.parametrize("width", [20, 40, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 10, 24, 60])
def test_any_terminal_is_enough(odd_folder: VoiceFolder, width: int, height: int) -> None:
    lines = voice_list(odd_folder, whisper=False, width=width, height=height)
    assert 1 <= len(lines) <= height
    assert max(map(cells, lines)) <= width


def test_a_fault_of_many_files_is_a_line_for_the_doctor(odd_folder: VoiceFolder) -> None:
    faults = voice_faults(odd_folder, whisper=False)
    assert "reference30.wav, reference31.wav, reference32.wav, 7 more: The file is empty" in "\n".join(faults)
    assert any(fault.startswith("reference20.wav") and "Write the words" in fault for fault in faults)


def test_clips_are_lines_where_all_is_well(tmp_path: Path) -> None:
    record(tmp_path / "reference-ada.wav", 2.0, text="Hello there, " * 20)
    record(tmp_path / "reference1-録音.wav", 1.0, text="こんにちは。" * 20)
    lines = voice_list(looked_at(tmp_path), whisper=True, width=60, height=23)
    assert " ".join(lines).count("2 clips of 2 speakers.") == 1
    assert [cells(line) for line in lines[-2:]] == [60, pytest.approx(60, abs=1)]
    assert "ada" in lines[-2]
    assert "2.0 s  Hello there" in lines[-2]


def test_a_clip_of_which_little_is_used_is_named(tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    from tests.support.speech import voiced

    soundfile.write(tmp_path / "reference.wav", np.append(voiced(2.0), np.zeros(240_000)), 24_000)
    (tmp_path / "reference.txt").write_text("Hello.")
    assert "reference.wav: Only 2.1 of its 12.0 s are used" in "\n".join(
        voice_list(looked_at(tmp_path), whisper=True, width=80, height=23)
    )


# --- the command


def voices(root: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["voices", "--references", str(root)])
    return code, " ".join(capsys.readouterr().out.split())


def test_what_waits_for_whisper_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "reference.wav", text=None)
    code, shown = voices(tmp_path, capsys)
    assert code == 0
    assert "No transcript yet. Whisper writes it when csm-repl starts." in shown
    assert main(["voices", "--references", str(tmp_path), "--whisper-model", "off"]) == 1
    assert "It has no transcript. Write the words" in capsys.readouterr().out


def test_a_folder_that_cannot_be_read_is_not_called_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    code, shown = voices(tmp_path / "loop", capsys)
    assert code == 1
    assert "cannot be read: Too many levels of symbolic links." in shown
    (tmp_path / "file").touch()
    code, shown = voices(tmp_path / "file", capsys)
    assert code == 1
    assert "is a file. Name a folder with --references." in shown


def test_no_folder_and_an_empty_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert voices(tmp_path / "none", capsys)[1].startswith("There is no folder")
    code, shown = voices(tmp_path, capsys)
    assert code == 0
    assert shown.startswith("No clips in")
    assert shown.endswith("Put reference.wav and reference1.wav there.")
