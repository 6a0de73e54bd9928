"""Which source a name stands for, and several of them as one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from csm_repl.errors import UsageError
from csm_repl.train.data.sources.registry import read_manifest, read_manifests
from tests.support.speech import write_clip


def test_what_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no .*nowhere.*hf:NAME"):
        read_manifest(str(tmp_path / "nowhere"))


def test_several_sources_are_joined_in_their_order(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "c.wav", "Three.")
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"audio": "a.wav"}) + "\nnonsense\n")
    manifest = read_manifests([str(path), str(tmp_path / "clips")])
    assert [entry.name for entry in manifest.entries] == ["a.wav", "c.wav"]
    assert len(manifest.problems) == 1
    assert manifest.n_utterances == 2


def test_speakers_of_all_sources_are_numbered_together(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "anna" / "a.wav", "One.")
    write_clip(tmp_path / "clips" / "carl" / "a.wav", "Two.")
    path = tmp_path / "data.jsonl"
    path.write_text('{"audio": "a.wav", "speaker": "ben"}\n{"audio": "b.wav", "speaker": 0}\n')
    assert read_manifests([str(tmp_path / "clips"), str(path)]).numbers == {
        "0": 0,
        "anna": 1,
        "ben": 2,
        "carl": 3,
    }


@pytest.mark.parametrize("name", ["/dev/zero", "fifo"])
def test_what_is_neither_a_folder_nor_a_file_is_not_opened(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "fifo":
        os.mkfifo(path)
    with pytest.raises(UsageError, match="neither a folder nor a file"):
        read_manifest(str(path))
