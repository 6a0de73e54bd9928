"""Data sets of the `datasets` library, on disk; the hub's loader is a stand-in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from csm_repl.errors import ClipError, UsageError
from csm_repl.train.data.sounds import RowSound
from csm_repl.train.data.sources.dataset import read_rows
from csm_repl.train.data.sources.registry import read_manifest
from tests.support.speech import voiced, write_clip

datasets = pytest.importorskip("datasets")


def wav_bytes(seconds: float = 0.5, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, voiced(seconds, rate=rate), rate, format="WAV")
    return buffer.getvalue()


def frame_positions(n: int = 3, **columns: list[Any]) -> Any:
    values = [{"bytes": wav_bytes(0.5 + 0.1 * index), "path": None} for index in range(n)]
    content = {"audio": values, "text": [f"Row {index}." for index in range(n)], **columns}
    return datasets.Dataset.from_dict(content).cast_column("audio", datasets.Audio(decode=False))


def test_an_audio_column_is_read_without_being_decoded_by_datasets(tmp_path: Path) -> None:
    # decode=True needs torchcodec, which is not a dependency.
    rows = frame_positions().cast_column("audio", datasets.Audio())
    rows.save_to_disk(str(tmp_path / "set"))
    manifest = read_manifest(str(tmp_path / "set"))
    assert [entry.turns[0].text for entry in manifest.entries] == ["Row 0.", "Row 1.", "Row 2."]
    samples, rate = manifest.entries[1].turns[0].sound.read(30.0)
    assert (rate, samples.shape) == (24_000, (1, 14_400))


def test_a_path_column_is_relative_to_the_data_sets_folder(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"audio": ["a.wav"], "sentence": ["Hello."]})
    rows.save_to_disk(str(tmp_path / "set"))
    write_clip(tmp_path / "set" / "a.wav", None, 0.5)
    [entry] = read_manifest(str(tmp_path / "set")).entries
    assert entry.turns[0].text == "Hello."
    assert entry.turns[0].sound.read(30.0)[0].shape == (1, 12_000)
    assert entry.turns[0].sound.digest() == entry.turns[0].sound.digest()


def test_arrays_are_sound_too() -> None:
    array = {"array": voiced(0.5).tolist(), "sampling_rate": 24_000}
    rows = datasets.Dataset.from_dict({"audio": [array], "text": ["Hello."]})
    [entry] = read_rows(rows, "set", folder=None).entries
    samples, rate = entry.turns[0].sound.read(30.0)
    assert (rate, samples.shape) == (24_000, (1, 12_000))
    np.testing.assert_allclose(samples[0], voiced(0.5), atol=1e-6)


def test_speakers_may_be_names_numbers_or_nothing() -> None:
    manifest = read_rows(frame_positions(speaker=["p7", None, "p7"]), "set", folder=None)
    assert [entry.turns[0].speaker for entry in manifest.entries] == ["p7", "", "p7"]
    manifest = read_rows(frame_positions(speaker_id=[7000, 2, 7000]), "set", folder=None)
    assert [entry.turns[0].speaker for entry in manifest.entries] == ["7000", "2", "7000"]


def test_rows_of_one_conversation_are_its_turns() -> None:
    rows = frame_positions(4, conversation_id=["b", "a", "b", "a"], speaker=[0, 0, 1, 1])
    manifest = read_rows(rows, "set", folder=None)
    assert [[turn.text for turn in entry.turns] for entry in manifest.entries] == [
        ["Row 0.", "Row 2."],
        ["Row 1.", "Row 3."],
    ]


def test_a_conversation_with_a_row_without_words_is_left_out() -> None:
    rows = frame_positions(4, conversation_id=["b", "a", "b", "a"])
    rows = rows.map(lambda row: {"text": "" if row["text"] == "Row 2." else row["text"]})
    manifest = read_rows(rows, "set", folder=None)
    assert [problem.name for problem in manifest.problems] == ["set[2]"]
    assert [len(entry.turns) for entry in manifest.entries] == [2]


def test_a_split_is_train_or_the_one_that_is_named(tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": frame_positions(3), "test": frame_positions(1)})
    both.save_to_disk(str(tmp_path / "set"))
    assert len(read_manifest(str(tmp_path / "set")).entries) == 3
    assert len(read_manifest(f"{tmp_path / 'set'}:test").entries) == 1
    with pytest.raises(UsageError, match=r"no split 'dev', but train, test"):
        read_manifest(f"{tmp_path / 'set'}:dev")


def test_missing_columns_are_a_clear_error() -> None:
    rows = datasets.Dataset.from_dict({"sound": ["a.wav"], "text": ["A"]})
    with pytest.raises(UsageError, match="columns sound, text; audio and text are needed"):
        read_rows(rows, "set", folder=None)


def test_a_row_without_sound_is_a_clip_error() -> None:
    rows = datasets.Dataset.from_dict({"audio": [{"bytes": None, "path": None}], "text": ["A"]})
    [entry] = read_rows(rows, "set", folder=None).entries
    with pytest.raises(ClipError, match="holds no sound"):
        entry.turns[0].sound.digest()


def test_the_hubs_name_config_split_and_manners_reach_the_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def load(repo: str, config: str | None, **arguments: Any) -> Any:
        seen.update(repo=repo, config=config, offline=datasets.config.HF_HUB_OFFLINE, **arguments)
        return frame_positions(2)

    monkeypatch.setattr(datasets, "load_dataset", load)
    manifest = read_manifest("hf:owner/name/en:dev", offline=True, token="secret")
    assert len(manifest.entries) == 2
    assert (seen["repo"], seen["config"], seen["split"]) == ("owner/name", "en", "dev")
    assert (seen["token"], seen["offline"]) == ("secret", True)
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_data_set_that_is_not_there_is_one_sentence_with_its_page() -> None:
    with pytest.raises(UsageError, match=r"huggingface\.co/datasets/owner/nothing"):
        read_manifest("hf:owner/nothing", offline=True)


@pytest.mark.parametrize(
    "value",
    [
        {"path": "a\0b"},
        {"path": "/"},
        {"path": 5},
        "\ud800.wav",
        "x" * 5_000,
        None,
        {"bytes": b"noise"},
        {"bytes": "text"},
        {"bytes": 10**15},
        {"array": [1, "a"], "sampling_rate": 24_000},
        *({"array": [0.1] * 99, "sampling_rate": rate} for rate in (0.5, -3, float("inf"), "abc", [1], None)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_absurd_values_are_clip_errors(value: Any, tmp_path: Path) -> None:
    sound = RowSound([{"audio": value}], 0, "audio", tmp_path)
    sound.stamp()
    with pytest.raises(ClipError):
        sound.read(30.0)
