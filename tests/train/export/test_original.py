"""What is written in the original layout is read back bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from csm_repl.errors import TrainingError, UsageError
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.config import FLAVORS as NAMED
from csm_repl.files.config import ModelConfig, RopeConfig, TransformerConfig, parse_config
from csm_repl.files.hub import find_model
from csm_repl.files.json_files import read_config
from csm_repl.model.weights.published import read_published
from csm_repl.train import files
from csm_repl.train.export.companions import companions
from csm_repl.train.export.original import original_config, write_original
from csm_repl.train.learn.network import TrainableCSM
from tests.support.layout_writer import transformers_config
from tools.random_checkpoint import FULL_FLAVORS


def test_export_and_import_are_exact(network: TrainableCSM, tmp_path: Path) -> None:
    state = network.state_dict()
    write_original(tmp_path, state, network.config, dtype=torch.float32)
    found = find_checkpoint(tmp_path)
    again = read_published(found)
    assert found.config == network.config
    assert set(again) == set(state)
    assert all(torch.equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_rounded_once(network: TrainableCSM, tmp_path: Path, dtype: torch.dtype) -> None:
    write_original(tmp_path, network.state_dict(), network.config, dtype=dtype)
    stored = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(stored[name], tensor.to(dtype)) for name, tensor in network.state_dict().items())


def test_the_golden_model_goes_through_unchanged(golden_folder: Path, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(golden_folder)
    write_original(tmp_path, read_published(checkpoint), checkpoint.config)
    before, after = (load_file(folder / "model.safetensors") for folder in (golden_folder, tmp_path))
    assert set(before) == set(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_hubs_config_keeps_its_named_flavors() -> None:
    parsed = parse_config(FULL_FLAVORS, source="hub")
    assert original_config(parsed) == FULL_FLAVORS


def test_a_config_from_transformers_is_told_in_the_originals_words(golden_folder: Path) -> None:
    original = read_config(golden_folder / "config.json")
    config = parse_config(transformers_config(original), source="x", transformers=True)
    written = parse_config(original_config(config), source="y")
    assert replace(written.backbone, rope=RopeConfig()) == replace(config.backbone, rope=RopeConfig())
    assert written.backbone.rope == RopeConfig()


@pytest.mark.parametrize(
    "change",
    [
        {"tied_audio_embeddings": False},
        {"backbone": replace(NAMED["llama-1B"], rope=RopeConfig(low_freq_factor=2.0))},
        {"decoder": replace(NAMED["llama-100M"], head_dim=64)},
    ],
    ids=["untied", "rope", "heads"],
)
def test_what_the_original_layout_cannot_say_is_refused(change: dict[str, Any]) -> None:
    config = replace(parse_config(FULL_FLAVORS, source="hub"), **change)
    with pytest.raises(UsageError) as caught:
        original_config(config)
    assert "transformers' layout" in caught.value.remedy


def test_plain_rope_and_other_sizes_survive() -> None:
    size = TransformerConfig(3, 4, 2, 64, 96, 16, 512, 1e-6, RopeConfig(base=10_000.0, factor=1.0))
    config = ModelConfig(size, size, 300, 67, 5)
    assert parse_config(json.loads(json.dumps(original_config(config))), source="x") == config


def test_tokenizer_and_codec_come_along(tiny_checkpoint: Path, network: TrainableCSM, tmp_path: Path) -> None:
    write_original(tmp_path, network.state_dict(), network.config, files=companions(tiny_checkpoint))
    files = find_model(str(tmp_path), offline=True)
    for path in (files.tokenizer, files.codec, files.codec_config):
        assert path is not None
        assert path.parent == tmp_path
        assert path.read_bytes() == (tiny_checkpoint / path.name).read_bytes()


def test_a_borrowed_tokenizer_comes_along(tokenizer_file: Path, tmp_path: Path) -> None:
    assert companions(tmp_path, tokenizer=tokenizer_file) == {"tokenizer.json": tokenizer_file}


def test_a_second_export_replaces_the_first(new: Callable[[], TrainableCSM], tmp_path: Path) -> None:
    network = new()
    write_original(tmp_path, network.state_dict(), network.config)
    with torch.no_grad():
        network.projection.weight.zero_()
    write_original(tmp_path, network.state_dict(), network.config)
    assert not load_file(tmp_path / "model.safetensors")["projection.weight"].any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def test_a_full_disk_leaves_the_earlier_model(
    network: TrainableCSM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_original(tmp_path, network.state_dict(), network.config)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*is intact"):
        write_original(tmp_path, network.state_dict(), network.config)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
