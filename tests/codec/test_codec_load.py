"""What is said about a codec that cannot be loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from csm_repl.codec import load_codec
from csm_repl.errors import CheckpointError, ExitCode


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    for name in ("mimi.safetensors", "codec.json"):
        shutil.copy(tiny_checkpoint / name, tmp_path)
    return tmp_path


def error_of(folder: Path, *, n_codebooks: int = 32, described: bool = True) -> CheckpointError:
    description = folder / "codec.json" if described else None
    with pytest.raises(CheckpointError) as caught:
        load_codec(
            folder / "mimi.safetensors", description, n_codebooks=n_codebooks, device=torch.device("cpu")
        )
    assert caught.value.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert caught.value.remedy
    assert "\n" not in str(caught.value), "the message must be one paragraph"
    return caught.value


def describe(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "codec.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_more_codebooks_than_the_codec_has_are_named(folder: Path) -> None:
    assert "33 codebooks" in error_of(folder, n_codebooks=33).cause


def test_more_codebooks_than_kyutais_codec_has_are_named(folder: Path) -> None:
    assert "33 codebooks" in error_of(folder, n_codebooks=33, described=False).cause


@pytest.mark.parametrize("kept", [0, 10, 5000, -1])
def test_a_truncated_file_is_named(folder: Path, kept: int) -> None:
    path = folder / "mimi.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{path} cannot be loaded" in error_of(folder).cause


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "mimi.safetensors").unlink()
    assert f"{folder / 'mimi.safetensors'} cannot be loaded" in error_of(folder).cause


def test_weights_of_another_size_are_named(folder: Path) -> None:
    """Kyutai's sizes are assumed without a codec.json."""
    assert "cannot be loaded" in error_of(folder, described=False).cause


def test_a_missing_tensor_is_named(folder: Path) -> None:
    state = load_file(folder / "mimi.safetensors")
    name = next(name for name in state if "decoder_transformer" in name)
    del state[name]
    save_file(state, folder / "mimi.safetensors")
    assert name in error_of(folder).cause


@pytest.mark.parametrize("kind", ["encodec", None, 3, ["mimi"]])
def test_an_unknown_codec_is_named(folder: Path, kind: Any) -> None:
    describe(folder, lambda content: content.update(codec=kind))
    assert f"asks for the codec {kind!r}" in error_of(folder).cause


@pytest.mark.parametrize("text", ["", "{", "[]", "mimi"])
def test_a_codec_json_that_is_no_object_is_named(folder: Path, text: str) -> None:
    (folder / "codec.json").write_text(text)
    assert "codec.json" in error_of(folder).cause


@pytest.mark.parametrize(
    "config",
    [{}, [], "tiny", 3, {"quantizer": {}}, {"quantizer": {"n_q": "many"}}, {"quantizer": {"n_q": 32}}],
)
def test_sizes_that_are_no_mimis_are_named(folder: Path, config: Any) -> None:
    describe(folder, lambda content: content.update(config=config))
    assert "cannot be loaded" in error_of(folder).cause


def test_a_codec_json_without_sizes_means_kyutais(folder: Path) -> None:
    describe(folder, lambda content: content.pop("config"))
    assert "33 codebooks" in error_of(folder, n_codebooks=33).cause
