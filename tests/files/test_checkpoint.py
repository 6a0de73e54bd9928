"""What is said about a model folder whose config or index is broken; the weights' errors are convert's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from csm_repl.errors import CheckpointError
from csm_repl.files.checkpoint import find_checkpoint
from tests.support.broken_models import checked_error, write_as_shards
from tests.support.layout_writer import write_config


@pytest.fixture
def folder(micro_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    target = tmp_path / "model"
    target.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(micro_checkpoint / name, target)
    return target


@pytest.fixture
def sharded(folder: Path) -> Path:
    return write_as_shards(folder)


def error_of(folder: Path) -> CheckpointError:
    return checked_error(lambda: find_checkpoint(folder))


@pytest.mark.parametrize("text", ["", "{", "not json", "\x00\x01", '{"a": 1,}'])
def test_a_config_that_is_no_json_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert f"{folder / 'config.json'} cannot be read as JSON" in error_of(folder).cause


def test_a_config_in_latin_1_is_named(folder: Path) -> None:
    (folder / "config.json").write_bytes('{"name": "Zo\xeb"}'.encode("latin-1"))
    assert "cannot be read as JSON" in error_of(folder).cause


def test_a_config_that_is_a_list_is_named(folder: Path) -> None:
    (folder / "config.json").write_text("[]")
    assert "no JSON object" in error_of(folder).cause


def test_a_config_without_flavors_is_named(folder: Path) -> None:
    write_config(folder, {"text_vocab_size": 300, "audio_vocab_size": 2051, "audio_num_codebooks": 4})
    assert "does not describe a CSM" in error_of(folder).cause


def test_an_unknown_flavor_is_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_config(folder, {**config, "decoder_flavor": "llama-3B"})
    assert "llama-3B" in error_of(folder).cause


def test_a_missing_config_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert f"There is no config.json in {folder}" in error_of(folder).cause


def test_missing_weights_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "model.safetensors or ckpt.pt" in error_of(folder).cause


def rewrite_index(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    assert "lacks model-00002-of-00003.safetensors" in error_of(sharded).cause


@pytest.mark.parametrize(
    "name", ["../other.safetensors", "/etc/passwd", "deeper/model.safetensors", "..", ""]
)
def test_an_index_that_names_files_outside_its_folder_is_refused(sharded: Path, name: str) -> None:
    rewrite_index(sharded, lambda index: index["weight_map"].update({"lm_head.weight": name}))
    assert "outside its folder" in error_of(sharded).cause


@pytest.mark.parametrize("weight_map", [None, {}, [], "model.safetensors"])
def test_an_index_without_a_weight_map_is_named(sharded: Path, weight_map: Any) -> None:
    rewrite_index(sharded, lambda index: index.update(weight_map=weight_map))
    assert "has no weight_map" in error_of(sharded).cause


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_in_place_of_a_file_is_named_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    error = error_of(folder)
    assert name in error.cause
    assert "no regular file" in error.cause


def test_a_config_nested_without_end_is_named(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 50_000)
    assert "nested too deep" in error_of(folder).cause


def test_a_ckpt_pt_alone_is_csm_1b_as_it_was_in_its_first_weeks(
    tmp_path: Path, micro_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    from csm_repl import load_csm_1b

    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "codec.json",
        "codec.safetensors",
        "mimi.safetensors",
    ):
        if (micro_checkpoint / name).is_file():
            (tmp_path / name).symlink_to(micro_checkpoint / name)
    torch.save(load_file(micro_checkpoint / "model.safetensors"), tmp_path / "ckpt.pt")
    found = find_checkpoint(tmp_path)
    assert (found.config.backbone.n_layers, found.config.decoder.n_layers) == (16, 4)
    assert (found.config.text_vocab_size, found.config.audio_vocab_size) == (128_256, 2051)
    assert found.config.n_codebooks == 32
    # Of another model it is an error that says so, and not a shape in a traceback.
    with pytest.raises(CheckpointError, match="belongs to the model"):
        load_csm_1b(tmp_path / "ckpt.pt", "cpu")
    config = json.loads((micro_checkpoint / "config.json").read_text())
    monkeypatch.setattr("csm_repl.files.checkpoint.FIRST_CONFIG", config)
    assert len(load_csm_1b(tmp_path / "ckpt.pt", "cpu").generate("Hi.", 0, [], 160, seed=1)) > 0
    (tmp_path / "ckpt.pt").rename(tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        find_checkpoint(tmp_path)
