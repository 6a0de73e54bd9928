"""What is known from an earlier start, and what Whisper writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from csm_repl.errors import ClipError, OutputError
from csm_repl.voices import PrepareOptions, VoiceFolder, clip
from tests.support.fake_voices import Codec, Listener, Open, record, the_problem


def test_the_next_start_neither_encodes_nor_listens(
    root: Path, open_folder: Open, codec: Codec, listener: Listener
) -> None:
    record(root / "reference.wav")
    record(root / "reference1.wav", 2.0, text=None)
    first = open_folder()
    first.refresh()
    second = open_folder()
    second.refresh()
    assert (codec.calls, listener.calls) == (2, 1)
    for one, other in zip(first.clips, second.clips, strict=True):
        assert (one.text, one.transcript, one.seconds) == (other.text, other.transcript, other.seconds)
        assert one.codes is not None
        assert other.codes is not None
        assert torch.equal(one.codes, other.codes)


def test_a_renamed_clip_is_in_the_cache(root: Path, open_folder: Open, codec: Codec) -> None:
    path = record(root / "reference.wav")
    folder = open_folder()
    folder.refresh()
    path.rename(root / "reference3.wav")
    (root / "reference.txt").rename(root / "reference3.txt")
    assert [change.kind for change in folder.refresh()] == ["added", "removed"]
    assert codec.calls == 1


@pytest.mark.parametrize("change", [{"codec_id": "other"}, {"options": PrepareOptions(False)}])
def test_another_codec_or_preparation_encodes_again(
    root: Path, open_folder: Open, codec: Codec, change: dict[str, Any]
) -> None:
    record(root / "reference.wav")
    open_folder().refresh()
    open_folder(**change).refresh()
    assert codec.calls == 2


def test_a_damaged_cache_is_worked_around(
    root: Path, tmp_path: Path, open_folder: Open, codec: Codec
) -> None:
    record(root / "reference.wav", text=None)
    open_folder().refresh()
    for path in (tmp_path / "cache").rglob("*.*"):
        path.write_bytes(b"damaged")
    folder = open_folder()
    folder.refresh()
    assert len(folder.clips) == 1
    assert codec.calls == 2
    open_folder().refresh()
    assert codec.calls == 2


def test_a_full_disk_costs_the_cache_only(root: Path, tmp_path: Path, open_folder: Open) -> None:
    (tmp_path / "cache").touch()
    record(root / "reference.wav")
    folder = open_folder()
    folder.refresh()
    assert len(folder.clips) == 1


def test_a_missing_transcript_is_written_for_the_user_to_correct(
    root: Path, open_folder: Open, listener: Listener, codec: Codec
) -> None:
    record(root / "reference.wav", text=None)
    folder = open_folder(cache_dir=None)
    (change,) = folder.refresh()
    assert change.message.endswith("Whisper wrote reference.txt; correct it there where it is wrong.")
    assert (root / "reference.txt").read_text() == "I am 1.0 seconds.\n"
    assert folder.clips[0].transcript == "whisper"
    before = folder.clips[0]
    assert folder.refresh() == []
    assert folder.clips[0] is before
    assert (listener.calls, listener.closed > 0, codec.calls) == (1, True, 1)
    (root / "reference.txt").write_text("I am one second.")
    folder.refresh()
    assert (folder.clips[0].text, folder.clips[0].transcript) == ("I am one second.", "file")


def test_listening_is_announced_only_where_it_happens(
    root: Path, open_folder: Open, listener: Listener
) -> None:
    def announced(folder: VoiceFolder) -> list[str]:
        return [change.path.name for change in folder.look() if change.kind == "listening"]

    record(root / "reference.wav")
    record(root / "reference1.wav", 2.0, text=None)
    record(root / "reference2.wav", 3.0, text="")
    folder = open_folder()
    assert announced(folder) == ["reference1.wav"]
    assert announced(folder) == []
    (root / "reference1.txt").unlink()
    assert announced(open_folder()) == []  # the cache knows the words
    listener.listens = False
    record(root / "reference3.wav", 4.0, text=None)
    assert announced(folder) == []


def test_whoever_leaves_while_whisper_is_announced_loses_nothing(
    root: Path, open_folder: Open, listener: Listener
) -> None:
    record(root / "reference.wav")
    record(root / "reference1.wav", text=None)
    folder = open_folder()
    changes = folder.look()
    assert next(changes).kind == "listening"
    changes.close()
    assert ([clip.speaker for clip in folder.clips], listener.calls) == ([0], 0)
    assert [change.kind for change in folder.refresh()] == ["added", "added"]


@pytest.mark.parametrize("start_again", [False, True])
def test_a_replaced_clip_is_heard_again_unless_the_user_edited_the_words(
    root: Path, open_folder: Open, start_again: bool
) -> None:
    record(root / "reference.wav", 1.0, text=None)
    record(root / "reference1.wav", 1.0, text=None)
    folder = open_folder()
    folder.refresh()
    (root / "reference1.txt").write_text("Mine.")
    folder.refresh()
    record(root / "reference.wav", 2.0, text=None)
    record(root / "reference1.wav", 2.0, text=None)
    if start_again:
        folder = open_folder()
    folder.refresh()
    assert [clip.text for clip in folder.clips] == ["I am 2.0 seconds.", "Mine."]
    assert (root / "reference1.txt").read_text() == "Mine."


def test_a_replaced_clip_keeps_its_words_where_nobody_can_listen(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav", 1.0, text=None)
    open_folder().refresh()
    record(root / "reference.wav", 2.0, text=None)
    folder = open_folder(transcriber=None)
    (change,) = folder.refresh()
    assert "Whisper wrote reference.txt for an earlier reference.wav; check it." in change.message
    assert folder.clips[0].text == "I am 1.0 seconds."


def test_a_deleted_transcript_is_written_again(root: Path, open_folder: Open, listener: Listener) -> None:
    record(root / "reference.wav", text="wrong words")
    folder = open_folder()
    folder.refresh()
    (root / "reference.txt").unlink()
    (change,) = folder.refresh()
    assert change.kind == "changed"
    assert folder.clips[0].text == "I am 1.0 seconds."
    assert folder.refresh() == []
    (root / "reference.txt").unlink()
    assert "was missing. Whisper wrote reference.txt" in folder.refresh()[0].message
    assert listener.calls == 1


@pytest.mark.parametrize("error", [ClipError("No network.", "Write the words.")])
def test_whisper_that_cannot_listen_never_ends_the_start(
    root: Path, open_folder: Open, codec: Codec, error: ClipError
) -> None:
    record(root / "reference.wav", text=None)
    folder = open_folder(transcriber=Listener(error), cache_dir=None)
    assert the_problem(folder, folder.refresh()) == str(error)
    (root / "reference.txt").write_text("Hello.")
    assert [change.kind for change in folder.refresh()] == ["added"]
    assert codec.calls == 1


def test_no_transcriber_asks_for_the_words(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav", text=None)
    folder = open_folder(transcriber=None)
    assert "There is no transcript reference.txt. Write" in the_problem(folder, folder.refresh())


def test_whisper_that_hears_nothing(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav", text=None)
    folder = open_folder(transcriber=Listener("  "))
    assert "heard no words in the clip. Write them into reference.txt" in the_problem(
        folder, folder.refresh()
    )
    assert not (root / "reference.txt").exists()


def test_words_written_while_whisper_is_announced_are_not_touched(
    root: Path, open_folder: Open, listener: Listener
) -> None:
    record(root / "reference.wav", text=None)
    folder = open_folder()
    for change in folder.look():
        if change.kind == "listening":
            (root / "reference.txt").write_text("My words.")
    assert (folder.clips[0].text, folder.clips[0].transcript) == ("My words.", "file")
    assert ((root / "reference.txt").read_text(), listener.calls) == ("My words.", 0)


def test_a_user_who_is_faster_than_whisper_wins(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav", text=None)

    class Slow(Listener):
        def transcribe(self, samples: torch.Tensor, rate: int) -> str:
            (root / "reference.txt").write_text("My words.")
            return "Whisper's words."

    folder = open_folder(transcriber=Slow())
    folder.refresh()
    assert (folder.clips[0].text, folder.clips[0].transcript) == ("My words.", "file")
    assert (root / "reference.txt").read_text() == "My words."


def test_a_read_only_folder_keeps_the_transcript_in_the_cache(
    root: Path, open_folder: Open, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OutputError(f"{path} cannot be written: Read-only file system.", "Choose another folder.")

    # Simulated, because the superuser may write everywhere.
    monkeypatch.setattr(clip, "write_bytes_atomic", refuse)
    record(root / "reference.wav", text=None)
    for _ in range(2):
        folder = open_folder()
        (change,) = folder.refresh()
        assert "transcript is used, but not saved" in change.message
        assert "Read-only file system" in change.message
        assert folder.clips[0].text == "I am 1.0 seconds."
        assert folder.refresh() == []
    assert listener.calls == 1


def test_a_transcript_with_capital_letters_in_its_ending_is_found(root: Path, open_folder: Open) -> None:
    record(root / "REFERENCE1.WAV", text=None)
    (root / "REFERENCE1.TXT").write_text("Found.")
    folder = open_folder()
    folder.refresh()
    assert [clip.text for clip in folder.clips] == ["Found."]
