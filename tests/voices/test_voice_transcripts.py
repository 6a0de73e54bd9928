"""What is known from an earlier start, and what Whisper writes."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from csm_repl.errors import ClipError, OutputError
from csm_repl.voices import PrepareOptions, VoiceFolder, clip
from csm_repl.voices.transcribe import DoubtfulWordsError
from tests.support.fake_voices import Codec, Listener, Open, record, the_problem
from tests.support.speech import voiced


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
    assert "It has no transcript. Write the words of the clip into reference.txt" in the_problem(
        folder, folder.refresh()
    )


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


@pytest.mark.parametrize(
    ("clip", "txt"),
    [
        ("REFERENCE1.WAV", "REFERENCE1.TXT"),
        ("reference1-Anna.wav", "Reference1-anna.txt"),
        ("reference1-zoe\u0308.wav", "reference1-zo\u00eb.txt"),
        ("reference1-ZO\u00cb.wav", "reference1-zoe\u0308.txt"),
        ("reference1-straße.wav", "reference1-STRASSE.txt"),
    ],
)
def test_a_transcript_is_found_whatever_became_of_its_letters(
    root: Path, open_folder: Open, clip: str, txt: str
) -> None:
    record(root / clip, text=None)
    (root / txt).write_text("Found.")
    folder = open_folder()
    folder.refresh()
    assert [clip.text for clip in folder.clips] == ["Found."]


def test_a_transcript_is_that_of_the_clip_with_just_its_name(root: Path, open_folder: Open) -> None:
    record(root / "reference1.wav", text="Mine.")
    record(root / "Reference1.wav", 2.0, text=None)
    folder = open_folder()
    folder.refresh()
    assert {clip.path.name: clip.text for clip in folder.clips} == {
        "reference1.wav": "Mine.",
        "Reference1.wav": "I am 2.0 seconds.",
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_the_encodings_of_a_transcript(root: Path, open_folder: Open, encoding: str) -> None:
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    record(root / "reference.wav").with_suffix(".txt").write_bytes(mark + "Grüße, Zoë.\r\n".encode(encoding))
    folder = open_folder()
    folder.refresh()
    assert [clip.text for clip in folder.clips] == ["Grüße, Zoë."]


# --- what Whisper is not sure of


def test_doubtful_words_are_said_to_be_so_and_not_written(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav", text=None)
    doubt = DoubtfulWordsError("Whisper heard the same words over and over.", "Write them.")
    listener = Listener(doubt)
    folder = open_folder(transcriber=listener)
    assert the_problem(folder, folder.refresh()) == str(doubt)
    assert not (root / "reference.txt").exists()
    again = open_folder(transcriber=listener)
    assert [change.kind for change in again.look()] == ["unusable"]  # nobody listens to it a second time
    assert listener.calls == 1
    listener.name, listener.words = "larger", "Good words."
    larger = open_folder(transcriber=listener)
    larger.refresh()
    assert [clip.text for clip in larger.clips] == ["Good words."]


def test_doubtful_words_do_not_keep_those_of_another_recording(root: Path, open_folder: Open) -> None:
    record(root / "reference.wav", 1.0, text=None)
    open_folder().refresh()
    record(root / "reference.wav", 2.0, text=None)
    folder = open_folder(transcriber=Listener(DoubtfulWordsError("It is noise.", "Speak.")))
    assert the_problem(folder, folder.refresh()) == "It is noise. Speak."


# --- recordings that are too long


def talk(path: Path, seconds: float) -> Path:
    """Sentences of four seconds with half a second between them."""
    x = voiced(seconds)
    rate = 24_000
    for start in range(0, len(x), int(4.5 * rate)):
        x[start + 4 * rate : start + int(4.5 * rate)] = 0
    soundfile.write(path, x, rate)
    return path


@pytest.mark.parametrize("seconds", [70.0, 400.0])
def test_a_long_recording_without_a_transcript_is_cut_at_a_pause(
    root: Path, open_folder: Open, listener: Listener, codec: Codec, seconds: float
) -> None:
    talk(root / "reference.wav", seconds)
    folder = open_folder()
    added, remark = folder.refresh()
    (clip,) = folder.clips
    assert 10.0 <= clip.seconds <= 20.0
    assert clip.seconds % 4.5 == pytest.approx(4.25, abs=0.2)  # in the middle of a pause
    assert clip.text == f"I am {clip.seconds:.1f} seconds."
    assert "Whisper wrote reference.txt" in added.message
    assert remark.is_warning
    assert f"its first {clip.seconds:.0f} s are used" in remark.message
    assert folder.refresh() == []
    # The next start finds all of it, and the user's corrections change nothing but the words.
    again = open_folder()
    again.refresh()
    assert (again.clips[0].seconds, again.clips[0].text) == (clip.seconds, clip.text)
    (root / "reference.txt").write_text("I am corrected.")
    for corrected in (again, open_folder()):
        corrected.refresh()
        assert (corrected.clips[0].seconds, corrected.clips[0].text) == (clip.seconds, "I am corrected.")
    assert (listener.calls, codec.calls) == (1, 1)


def test_a_long_recording_with_a_transcript_is_refused(root: Path, open_folder: Open) -> None:
    talk(root / "reference.wav", 70.0)
    (root / "reference.txt").write_text("Much text.")
    folder = open_folder()
    assert "Cut it to 5-30 s, and its transcript with it." in the_problem(folder, folder.refresh())
    (root / "reference.txt").unlink()
    folder.refresh()
    assert len(folder.clips) == 1


def test_a_long_recording_whose_transcript_was_deleted(root: Path, open_folder: Open) -> None:
    talk(root / "reference.wav", 70.0)
    open_folder().refresh()
    (root / "reference.txt").unlink()
    for _ in range(2):
        folder = open_folder()
        folder.refresh()
        assert len(folder.clips) == 1


def test_what_is_mostly_cut_away_is_said(root: Path, open_folder: Open) -> None:
    x = np.zeros(10 * 24_000, np.float32)
    x[:48_000] = voiced(2.0)
    soundfile.write(root / "reference.wav", x, 24_000)
    (root / "reference.txt").write_text("Hello.")
    for _ in range(2):  # from the cache as well
        folder = open_folder()
        _, remark = folder.refresh()
        assert remark.message.startswith("reference.wav: Only 2.1 of its 10.0 s are used")
        assert folder.clips[0].remark in remark.message
        assert folder.refresh() == []


def test_a_clip_that_is_cut_short_is_said_to_be(root: Path, open_folder: Open) -> None:
    soundfile.write(root / "reference.wav", voiced(4.0), 24_000)
    data = (root / "reference.wav").read_bytes()
    (root / "reference.wav").write_bytes(data[: len(data) * 3 // 4])
    (root / "reference.txt").write_text("Hello.")
    for _ in range(2):  # from the cache as well
        folder = open_folder()
        _, remark = folder.refresh()
        assert "It seems to be cut short: its header says 4.0 s, and there are 3.0." in remark.message
        assert folder.clips[0].remark in remark.message
        assert folder.refresh() == []
