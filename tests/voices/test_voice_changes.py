"""Clips that come, change and go between two lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from csm_repl.errors import ClipError
from csm_repl.voices import clip
from tests.support.fake_voices import Codec, Listener, Open, messages, record, the_problem


def test_nothing_changed_is_nothing_done(
    root: Path, open_folder: Open, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(root / "reference.wav")
    (root / "reference1.wav").touch()
    folder = open_folder()
    folder.refresh()
    clips = folder.clips

    def fail(*_: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(Path, "open", fail)
    assert folder.refresh() == []
    assert folder.clips[0] is clips[0]
    assert codec.calls == 1


def test_a_replaced_clip_is_encoded_again(root: Path, open_folder: Open, codec: Codec) -> None:
    record(root / "reference.wav", 1.0)
    folder = open_folder()
    folder.refresh()
    record(root / "reference.wav", 2.0, text=None)
    assert messages(folder.refresh()) == [("changed", "reference.wav was replaced and is 2.0 s long now.")]
    assert codec.calls == 2
    assert folder.clips[0].seconds == 2.0


def test_a_clip_replaced_within_the_clocks_resolution_is_noticed(root: Path, open_folder: Open) -> None:
    path = record(root / "reference.wav", 1.0)
    before = path.stat()
    folder = open_folder()
    folder.refresh()
    other = record(root / "other.wav", 2.0)
    other.write_bytes(other.read_bytes()[: before.st_size])
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.rename(path)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    # Its header says 2.0 s.
    assert [change.kind for change in folder.refresh()] == ["changed", "remark"]


def test_a_touched_clip_is_the_same_clip(root: Path, open_folder: Open, codec: Codec) -> None:
    path = record(root / "reference.wav")
    folder = open_folder(cache_dir=None)
    folder.refresh()
    (before,) = folder.clips
    os.utime(path, (1, 1))
    assert folder.refresh() == []
    assert folder.clips[0] is before
    assert codec.calls == 1


def test_an_edited_transcript_takes_effect_without_encoding(
    root: Path, open_folder: Open, codec: Codec
) -> None:
    record(root / "reference.wav")
    folder = open_folder(cache_dir=None)
    folder.refresh()
    (root / "reference.txt").write_text("Other words.")
    assert messages(folder.refresh()) == [("changed", "The transcript of reference.wav was changed.")]
    assert folder.clips[0].text == "Other words."
    assert codec.calls == 1


def test_a_corrected_transcript_makes_the_clip_usable_without_encoding(
    root: Path, open_folder: Open, codec: Codec
) -> None:
    record(root / "reference.wav", text="")
    folder = open_folder(cache_dir=None)
    folder.refresh()
    (root / "reference.txt").write_text("Now there are words.")
    assert [change.kind for change in folder.refresh()] == ["added"]
    assert codec.calls == 1


def test_a_deleted_clip_is_noticed(root: Path, open_folder: Open) -> None:
    one, two = record(root / "reference1-anna.wav"), record(root / "reference1-anna-2.wav")
    folder = open_folder()
    folder.refresh()
    two.unlink()
    assert messages(folder.refresh()) == [("removed", "reference1-anna-2.wav is gone.")]
    one.unlink()
    gone = "reference1-anna.wav is gone. Speaker 1 (anna) has no clip any more."
    assert messages(folder.refresh()) == [("removed", gone)]
    assert folder.clips == ()


def test_a_clip_that_becomes_bad_is_no_longer_used(root: Path, open_folder: Open) -> None:
    path = record(root / "reference.wav")
    folder = open_folder()
    folder.refresh()
    path.write_bytes(b"")
    the_problem(folder, folder.refresh())
    assert folder.clips == ()


def test_a_clip_that_is_still_being_copied_becomes_usable(root: Path, open_folder: Open) -> None:
    data = record(root / "reference.wav", 2.0).read_bytes()
    (root / "reference.wav").write_bytes(data[:30])
    folder = open_folder()
    the_problem(folder, folder.refresh())
    (root / "reference.wav").write_bytes(data)
    assert [change.kind for change in folder.refresh()] == ["added"]


def test_a_clip_that_grows_while_it_is_read_waits_for_the_next_line(root: Path, open_folder: Open) -> None:
    path = record(root / "reference.wav", 2.0, text=None)
    data = path.read_bytes()
    path.write_bytes(data[:60_000])

    class Slow(Listener):
        def transcribe(self, samples: torch.Tensor, rate: int) -> str:
            if self.calls == 0:
                path.write_bytes(data)
            return super().transcribe(samples, rate)

    folder = open_folder(transcriber=Slow())
    assert "still being written" in the_problem(folder, folder.refresh())
    assert not (root / "reference.txt").exists()
    folder.refresh()
    assert folder.clips[0].text == "I am 2.0 seconds."


def test_rights_that_were_given_are_noticed(
    root: Path, open_folder: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = record(root / "reference.wav")
    folder = open_folder()

    def refuse(_: Path) -> None:
        raise ClipError("You are not allowed to read the file.", "Give yourself the right to read it.")

    with monkeypatch.context() as patch:
        # Simulated, because the superuser may read everything.
        patch.setattr(clip, "check_readable", refuse)
        the_problem(folder, folder.refresh())
    assert folder.refresh() == []
    path.chmod(0o640)
    assert [change.kind for change in folder.refresh()] == ["added"]


def test_unusable_clips_are_tried_again_on_request(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav", text=None)
    listener = Listener(ClipError("No network.", "Write the words."))
    folder = open_folder(transcriber=listener)
    folder.refresh()
    listener.words = "Hello."
    assert folder.refresh() == []
    assert [change.kind for change in folder.refresh(retry=True)] == ["added"]


def test_ctrl_c_keeps_what_was_loaded_and_tells_it_later(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav")
    record(root / "reference1.wav", text=None)
    listener = Listener()
    folder = open_folder(transcriber=listener)

    def interrupt(samples: torch.Tensor, rate: int) -> str:
        raise KeyboardInterrupt

    listener.transcribe = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        folder.refresh()
    assert [clip.speaker for clip in folder.clips] == [0]
    assert listener.closed == 1
    del listener.transcribe  # type: ignore[attr-defined]
    assert [change.kind for change in folder.refresh()] == ["added", "added"]
