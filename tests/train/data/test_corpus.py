"""From manifests to items, with a codec that counts and a Whisper that is none."""

from __future__ import annotations

import json
import os
import shutil
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from csm_repl.errors import CsmReplError, OutOfMemoryError, UsageError
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.data.code_cache import CodeCache
from csm_repl.train.data.corpus import Corpus, CorpusReader, prepare_options, word_finder
from csm_repl.train.data.sources.registry import read_manifests
from csm_repl.train.events import LeftOut, LeftOutTotal, Note, Reading
from csm_repl.train.options import DataOptions
from csm_repl.voices.cache import ClipCache
from tests.support.fake_voices import Listener
from tests.support.speech import write_clip


class FakeCodec:
    """Codes that tell clips apart; counts what it encodes."""

    id = "fake"
    sample_rate = 24_000
    frame_rate = 12.5
    samples_per_frame = 1_920
    n_codebooks = 4

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None

    def encode(self, samples: torch.Tensor) -> torch.Tensor:
        assert samples.dtype == torch.float32
        assert samples.ndim == 1
        self.calls += 1
        if self.error is not None:
            raise self.error
        n_frames = -(-len(samples) // self.samples_per_frame)
        return (torch.arange(4 * n_frames).view(4, n_frames) + len(samples)) % 2_000 + 1


class Reader:
    """One call of the reader with all that it needs; what it told is kept."""

    def __init__(self, tokenizer: Tokenizer, cache_dir: Path | None) -> None:
        self.codec = FakeCodec()
        self.listener = Listener()
        self.tokenizer = tokenizer
        self.cache_dir = cache_dir
        self.options = DataOptions()
        self.max_positions = 500
        self.events: list[Any] = []
        self.cache: CodeCache | None = None

    def read(self, source: Path) -> Corpus:
        preparation = prepare_options(self.options).fingerprint
        self.cache = CodeCache(self.cache_dir, preparation=preparation, codec_id=self.codec.id, n_codebooks=4)
        clips = ClipCache(self.cache_dir, preparation=preparation, codec_id=self.codec.id)
        reader = CorpusReader(
            codec=self.codec,  # type: ignore[arg-type]
            tokenizer=self.tokenizer,
            max_positions=self.max_positions,
            options=self.options,
            cache=self.cache,
            words=word_finder(self.options, self.listener, clips),
        )
        self.events = []
        events = reader.read(read_manifests([str(source)]))
        while True:
            try:
                self.events.append(next(events))
            except StopIteration as end:
                return end.value

    @property
    def left_out(self) -> list[tuple[str, str]]:
        return [(event.name, event.cause) for event in self.events if isinstance(event, LeftOut)]

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]

    @property
    def last(self) -> Reading:
        return [event for event in self.events if isinstance(event, Reading)][-1]


@pytest.fixture
def reading(tokenizer: Tokenizer, tmp_path: Path) -> Reader:
    return Reader(tokenizer, tmp_path / "cache")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    for number in range(3):
        write_clip(folder / f"{number}.wav", f"Clip {number}.", 1.0 + number, 110 + 20 * number)
    return folder


def texts(corpus: Corpus) -> list[str]:
    return [turn.text for item in corpus.items for turn in item.turns]


def test_clips_become_items_with_small_codes_in_the_manifests_order(reading: Reader, clips: Path) -> None:
    corpus = reading.read(clips)
    assert [item.name for item in corpus.items] == ["0.wav", "1.wav", "2.wav"]
    assert texts(corpus) == ["Clip 0.", "Clip 1.", "Clip 2."]
    assert [item.n_frames for item in corpus.items] == [13, 25, 38]
    assert {item.turns[0].codes.dtype for item in corpus.items} == {torch.int16}
    assert {len(item.turns[0].codes) for item in corpus.items} == {4}
    assert corpus.seconds == pytest.approx(76 / 12.5)
    assert (reading.last.n_done, reading.last.n_total, reading.last.n_encoded) == (3, 3, 3)


def test_the_second_time_nothing_is_encoded_and_the_codes_are_the_same(
    reading: Reader, clips: Path, tokenizer: Tokenizer
) -> None:
    first = reading.read(clips)
    again = Reader(tokenizer, reading.cache_dir)
    second = again.read(clips)
    assert (reading.codec.calls, again.codec.calls) == (3, 0)
    for old, new in zip(first.items, second.items, strict=True):
        assert torch.equal(old.turns[0].codes, new.turns[0].codes)


def test_an_unchanged_file_is_not_even_read_again(
    reading: Reader, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading.read(clips)

    def refuse(self: object) -> str:
        raise AssertionError("the file was read")

    monkeypatch.setattr("csm_repl.train.data.sounds.FileSound.digest", refuse)
    assert len(reading.read(clips).items) == 3


def test_a_copy_under_another_name_is_not_encoded_again_but_a_changed_file_is(
    reading: Reader, clips: Path
) -> None:
    reading.read(clips)
    shutil.copy(clips / "0.wav", clips / "copy.wav")
    shutil.copy(clips / "0.txt", clips / "copy.txt")
    write_clip(clips / "1.wav", "Clip 1.", 1.5)
    reading.read(clips)
    assert reading.codec.calls == 4


def test_a_clip_that_several_lines_name_is_encoded_once(reading: Reader, clips: Path) -> None:
    turn = {"audio": "0.wav", "text": "Clip 0."}
    lines = [turn, {"turns": [turn, {"audio": "1.wav", "text": "Clip 1."}]}]
    (clips / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus = reading.read(clips / "data.jsonl")
    assert reading.codec.calls == 2
    assert [len(item.turns) for item in corpus.items] == [1, 2]


def test_parts_of_a_file_are_items_of_their_own(reading: Reader, clips: Path) -> None:
    lines = [
        {"audio": "2.wav", "start": 0.0, "end": 1.0, "text": "One."},
        {"audio": "2.wav", "start": 1.0, "text": "Two."},
        {"audio": "2.wav", "start": 5.0, "text": "Behind the end."},
    ]
    (clips / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus = reading.read(clips / "data.jsonl")
    assert [item.n_frames for item in corpus.items] == [13, 25]
    assert reading.left_out == [("2.wav 5- s", "The file ends before 5 s, where the part starts.")]
    assert reading.read(clips / "data.jsonl").items[0].n_frames == 13
    assert reading.codec.calls == 2


def test_what_cannot_be_used_is_told_and_the_rest_is_taken(reading: Reader, clips: Path) -> None:
    (clips / "a-broken.wav").write_bytes(b"RIFF nonsense")
    (clips / "b-empty.wav").write_bytes(b"")
    write_clip(clips / "c-no-words.wav", " ")
    write_clip(clips / "d-long.wav", "Long.", 31.0)
    write_clip(clips / "e-short.wav", "Short.", 0.2)
    (clips / "f-gone.wav").symlink_to("nowhere.wav")
    corpus = reading.read(clips)
    assert texts(corpus) == ["Clip 0.", "Clip 1.", "Clip 2."]
    assert corpus.n_left_out == 6
    causes = dict(reading.left_out)
    assert list(causes) == [
        "a-broken.wav", "b-empty.wav", "c-no-words.wav", "d-long.wav", "e-short.wav", "f-gone.wav",
    ]  # fmt: skip
    assert "damaged" in causes["a-broken.wav"]
    assert "0 bytes" in causes["b-empty.wav"]
    assert "transcript is empty" in causes["c-no-words.wav"]
    assert "longer than 30 s" in causes["d-long.wav"]
    assert "0.24 s long, and the shortest" in causes["e-short.wav"]
    assert "not there" in causes["f-gone.wav"]


def test_a_conversation_with_an_unusable_turn_is_left_out_whole(reading: Reader, clips: Path) -> None:
    good, bad = {"audio": "0.wav", "text": "Clip 0."}, {"audio": "nowhere.wav", "text": "Gone."}
    (clips / "data.jsonl").write_text("\n".join(map(json.dumps, [{"turns": [good, bad]}, good])))
    corpus = reading.read(clips / "data.jsonl")
    assert len(corpus.items) == 1
    assert reading.left_out == [("nowhere.wav", "The file is not there. The whole conversation is left out.")]


def test_an_item_with_more_positions_than_the_model_has_is_told(reading: Reader, clips: Path) -> None:
    reading.max_positions = 45  # the longest takes 12 ids, 38 frames and the end
    corpus = reading.read(clips)
    assert len(corpus.items) == 2
    assert reading.left_out == [("2.wav", "It takes 51 positions, and the model has 45.")]


def test_a_damaged_clip_is_looked_at_again_when_it_was_mended(reading: Reader, clips: Path) -> None:
    good = (clips / "0.wav").read_bytes()
    (clips / "0.wav").write_bytes(b"RIFF nonsense")
    assert len(reading.read(clips).items) == 2
    (clips / "0.wav").write_bytes(good)
    assert len(reading.read(clips).items) == 3


def test_nothing_left_is_an_error_that_names_the_first_fault(reading: Reader, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes(b"")
    with pytest.raises(UsageError, match=r"Nothing is left.*a\.wav: The file is empty"):
        reading.read(tmp_path / "clips")


def test_whisper_writes_missing_transcripts_once_and_the_users_correction_counts(
    reading: Reader, clips: Path
) -> None:
    (clips / "1.txt").unlink()
    corpus = reading.read(clips)
    assert texts(corpus) == ["Clip 0.", "I am 2.0 seconds.", "Clip 2."]
    assert (clips / "1.txt").read_text() == "I am 2.0 seconds.\n"
    assert reading.notes == ["Whisper wrote 1 transcripts beside their clips; correct them there."]
    assert (reading.listener.calls, reading.listener.closed) == (1, 1)
    (clips / "1.txt").write_text("Two seconds.")
    assert texts(reading.read(clips))[1] == "Two seconds."
    assert reading.listener.calls == 1
    assert reading.codec.calls == 3


def test_without_anybody_to_listen_the_clip_is_left_out(
    reading: Reader, clips: Path, tokenizer: Tokenizer
) -> None:
    from csm_repl.errors import ClipError

    (clips / "1.txt").unlink()
    reading.listener = Listener(ClipError("Whisper is off.", "Write the words."))
    assert len(reading.read(clips).items) == 2
    assert reading.left_out == [("1.wav", "Whisper is off.")]


def test_a_full_disk_is_told_once_and_the_run_goes_on(
    reading: Reader, clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes, *, replace: bool = False) -> None:
        from csm_repl.audio import output_error

        raise output_error(path, OSError(28, os.strerror(28)))

    monkeypatch.setattr("csm_repl.train.data.code_cache.write_bytes_atomic", full)
    corpus = reading.read(clips)
    assert len(corpus.items) == 3
    [note] = reading.notes
    assert "not kept for the next run" in note
    assert os.strerror(28) in note


def test_a_stop_in_the_middle_keeps_what_was_encoded(
    reading: Reader, clips: Path, tokenizer: Tokenizer
) -> None:
    encode: Callable[[torch.Tensor], torch.Tensor] = reading.codec.encode

    def interrupted(samples: torch.Tensor) -> torch.Tensor:
        if reading.codec.calls == 2:
            raise KeyboardInterrupt
        return encode(samples)

    reading.codec.encode = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        reading.read(clips)
    again = Reader(tokenizer, reading.cache_dir)
    assert len(again.read(clips).items) == 3
    assert again.codec.calls == 1


def test_a_codec_without_memory_ends_the_reading_with_the_remedy(reading: Reader, clips: Path) -> None:
    reading.codec.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(OutOfMemoryError, match="--max-seconds"):
        reading.read(clips)


def test_a_codec_that_refuses_a_clip_costs_that_clip_only(reading: Reader, clips: Path) -> None:
    reading.codec.error = RuntimeError("odd length")
    with pytest.raises(CsmReplError, match="The codec cannot encode the clip: odd length"):
        reading.read(clips)


def test_silences_stay_unless_they_are_to_be_shortened(reading: Reader, tmp_path: Path) -> None:
    import numpy as np
    import soundfile

    from tests.support.speech import voiced

    folder = tmp_path / "clips"
    folder.mkdir()
    gap = np.zeros(3 * 24_000, dtype=np.float32)
    soundfile.write(folder / "a.wav", np.concatenate([voiced(1.0), gap, voiced(1.0)]), 24_000)
    (folder / "a.txt").write_text("One, two.")
    assert reading.read(folder).items[0].n_frames == 63
    reading.options = DataOptions(shorten_silence=True)
    assert reading.read(folder).items[0].n_frames < 35


def test_a_clip_that_is_mostly_cut_as_silence_is_told(reading: Reader, clips: Path) -> None:
    write_clip(clips / "quiet.wav", "Clip.", 1.0)
    with wave.open(str(clips / "quiet.wav"), "rb") as file:
        spoken = file.readframes(file.getnframes())
    with wave.open(str(clips / "quiet.wav"), "wb") as file:
        file.setparams((1, 2, 24_000, 0, "NONE", ""))
        file.writeframes(spoken + bytes(2 * 24_000 * 4))
    reading.options = DataOptions(shorten_silence=True)
    reading.read(clips)
    [note] = reading.notes
    assert note.startswith("Of 1 clip more than half was cut as silence (most of quiet.wav: 1.")
    assert "of 5.0 s are left" in note


def test_a_part_that_goes_on_behind_the_files_end_is_left_out(reading: Reader, clips: Path) -> None:
    lines = [{"audio": "0.wav", "text": "A", "start": 0.2, "end": end} for end in (1.0, 1.3, 3.0)]
    (clips / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert len(reading.read(clips / "data.jsonl").items) == 2
    [(name, cause)] = reading.left_out
    assert name == "0.wav 0.2-3 s"
    assert "The file ends 2.0 s before the part of it that is named does" in cause


def test_what_is_left_out_is_counted_by_its_reason(reading: Reader, clips: Path) -> None:
    lines = [{"audio": f"no{n}.wav", "text": "A"} for n in range(30)]
    lines += [{"audio": "0.wav", "text": "A"}, {"audio": "/", "text": "A"}]
    (clips / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus = reading.read(clips / "data.jsonl")
    [total] = [event for event in reading.events if isinstance(event, LeftOutTotal)]
    assert (total.n, total.n_total, corpus.n_left_out) == (31, 32, 31)
    assert [(n, name) for _, n, name in total.reasons] == [(30, "no0.wav"), (1, "data.jsonl, line 32")]


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_codes_that_were_damaged_on_the_disk_are_made_again(
    damage: str, reading: Reader, clips: Path
) -> None:
    wanted = reading.read(clips)
    assert reading.cache_dir is not None
    [shard] = reading.cache_dir.rglob("*.npz")
    data = bytearray(shard.read_bytes())
    data[data.find(b"codes.npy") + 250] ^= 1
    shard.write_bytes(data[:300] if damage == "cut" else data)
    found = reading.read(clips)
    assert reading.codec.calls == 6
    for item, other in zip(wanted.items, found.items, strict=True):
        assert torch.equal(item.turns[0].codes, other.turns[0].codes)
    reading.read(clips)
    assert reading.codec.calls == 6


def test_the_end_of_the_reading_is_reported_once(reading: Reader, clips: Path) -> None:
    reading.read(clips)
    assert sum(isinstance(event, Reading) and event.n_done == event.n_total for event in reading.events) == 1
