"""Loading: what is said about broken checkpoints, and how much memory a good one costs."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from layout_writer import (
    read_original,
    transformers_config,
    transformers_state,
    write_config,
    write_shards,
)
from safetensors.torch import load_file, save_file

from csm_repl.errors import CheckpointError, ExitCode
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.csm import CSM
from csm_repl.model.weights.convert import load_csm


def load(folder: Path, dtype: torch.dtype = torch.float32) -> CSM:
    return load_csm(find_checkpoint(folder), device=torch.device("cpu"), dtype=dtype)


@pytest.fixture
def folder(micro_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    target = tmp_path / "model"
    target.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(micro_checkpoint / name, target)
    return target


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replaces tensors (`.` written as `__`); None removes one."""
    state = load_file(folder / "model.safetensors")
    for key, tensor in tensors.items():
        name = key.replace("__", ".")
        assert name in state
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
    save_file(state, folder / "model.safetensors")


def error_of(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    error = caught.value
    assert error.exit_code == ExitCode.MODEL_UNAVAILABLE
    assert error.remedy
    assert "\n" not in str(error), "the message must be one paragraph"
    assert len(str(error)) < 600
    return error


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change(folder, backbone__layers__1__attn__k_proj__weight=None)
    assert "backbone.layers.1.attn.k_proj.weight" in error_of(folder).cause


def test_many_missing_tensors_are_counted(folder: Path) -> None:
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")
    assert "more" in error_of(folder).cause


def test_a_wrong_shape_is_named_with_both_sizes(folder: Path) -> None:
    change(folder, projection__weight=torch.zeros(16, 31))
    assert "projection.weight is 16x31, the config asks for 16x32" in error_of(folder).cause


def test_weights_of_another_size_than_the_config_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    write_config(folder, {**config, "backbone_flavor": "llama-1B"})
    assert "lacks" in error_of(folder).cause


@pytest.mark.parametrize("kept", [0, 1, 7, 100, 4000, -1])
def test_a_truncated_file_is_named(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{path} is truncated or corrupt" in error_of(folder).cause


def test_a_file_that_is_no_safetensors_is_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(b"<html>502 Bad Gateway</html>" * 50)
    assert f"{path} is truncated or corrupt" in error_of(folder).cause


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_integer_weights_are_refused(folder: Path, dtype: torch.dtype) -> None:
    state = load_file(folder / "model.safetensors")
    name = "backbone.layers.0.mlp.w1.weight"
    change(folder, backbone__layers__0__mlp__w1__weight=torch.zeros_like(state[name], dtype=dtype))
    error = error_of(folder)
    assert name in error.cause
    assert "Quantised" in error.remedy


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


@pytest.fixture
def sharded(folder: Path) -> Path:
    """The same model as three shards with an index, in transformers' layout."""
    config, state = read_original(folder)
    (folder / "model.safetensors").unlink()
    write_config(folder, transformers_config(config))
    write_shards(folder, transformers_state(state, config), stem="model")
    return folder


def rewrite_index(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    assert "lacks model-00002-of-00003.safetensors" in error_of(sharded).cause


def test_a_truncated_shard_is_named(sharded: Path) -> None:
    path = sharded / "model-00003-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert f"{path} is truncated or corrupt" in error_of(sharded).cause


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


def test_a_missing_tensor_in_transformers_layout_has_transformers_name(sharded: Path) -> None:
    path = sharded / "model-00001-of-00003.safetensors"
    state = load_file(path)
    name = next(iter(state))
    save_file({key: tensor for key, tensor in state.items() if key != name}, path)
    assert name in error_of(sharded).cause


# ckpt.pt


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def as_pickle(folder: Path, content: Any) -> Path:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "ckpt.pt")
    return folder / "ckpt.pt"


def test_code_in_a_pickle_is_not_run(folder: Path, tmp_path: Path) -> None:
    _, state = read_original(folder)
    mark = tmp_path / "it-ran"
    path = as_pickle(folder, {**state, "bomb": Bomb(mark)})
    error = error_of(folder)
    assert not mark.exists()
    assert f"{path} is truncated, corrupt or holds more than tensors." in error.cause


def test_the_bomb_of_the_test_above_works(folder: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()


def test_a_refused_pickle_is_not_answered_with_torchs_advice_to_trust_it(
    folder: Path, tmp_path: Path
) -> None:
    as_pickle(folder, {"bomb": Bomb(tmp_path / "it-ran")})
    assert "weights_only" not in str(error_of(folder))


@pytest.mark.parametrize("kept", [0, 3, 500, -100])
def test_a_truncated_pickle_is_named(folder: Path, kept: int) -> None:
    _, state = read_original(folder)
    path = as_pickle(folder, state)
    path.write_bytes(path.read_bytes()[:kept])
    assert f"{path} is truncated, corrupt" in error_of(folder).cause


@pytest.mark.parametrize("content", [[1, 2], {"model": [1]}, {"a": "b"}])
def test_a_pickle_without_tensors_is_refused(folder: Path, content: Any) -> None:
    as_pickle(folder, content)
    assert "lacks" in error_of(folder).cause or "no dictionary" in error_of(folder).cause


# Memory


def mapped_ranges(path: Path) -> list[tuple[int, int]]:
    """Where a file is mapped into this process."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux says what is mapped where")
    lines = (line.split() for line in maps.read_text().splitlines())
    ends = (words[0].split("-") for words in lines if words[-1] == str(path.resolve()))
    return [(int(low, 16), int(high, 16)) for low, high in ends]


def mapped_from(model: CSM, path: Path) -> set[str]:
    """The parameters whose memory is the file's."""
    ranges = mapped_ranges(path)
    return {
        name
        for name, tensor in model.named_parameters()
        if any(low <= tensor.data_ptr() < high for low, high in ranges)
    }


def unfused(model: CSM) -> set[str]:
    return {name for name, _ in model.named_parameters() if "wqkv" not in name and "gate_up" not in name}


def test_parameters_stored_as_they_are_share_the_mapped_file(folder: Path) -> None:
    model = load(folder, torch.bfloat16)
    assert mapped_from(model, folder / "model.safetensors") == unfused(model)


def test_fused_parameters_are_copies_of_their_own_size(folder: Path) -> None:
    model = load(folder, torch.bfloat16)
    for name, tensor in model.named_parameters():
        if name not in unfused(model):
            assert tensor.untyped_storage().nbytes() == tensor.numel() * 2


def test_cast_parameters_do_not_keep_the_file_mapped(folder: Path) -> None:
    model = load(folder, torch.float32)
    gc.collect()
    assert mapped_ranges(folder / "model.safetensors") == []
    assert model.dtype == torch.float32


def test_parameters_of_a_pickle_share_the_mapped_file(folder: Path) -> None:
    _, state = read_original(folder)
    path = as_pickle(folder, state)
    model = load(folder, torch.bfloat16)
    assert mapped_from(model, path) == unfused(model)


def test_nothing_stays_on_the_meta_device(folder: Path) -> None:
    model = load(folder)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"cpu"}


def test_parameters_need_no_gradients(folder: Path) -> None:
    assert not any(parameter.requires_grad for parameter in load(folder).parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_all_parameters_have_the_dtype_asked_for(folder: Path, dtype: torch.dtype) -> None:
    assert {parameter.dtype for parameter in load(folder, dtype).parameters()} == {dtype}


def test_fused_rows_lie_in_the_order_query_key_value(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    names = [f"backbone.layers.1.attn.{kind}_proj.weight" for kind in "qkv"]
    fused = dict(load(folder, torch.bfloat16).named_parameters())["backbone.layers.1.wqkv.weight"]
    assert torch.equal(fused, torch.cat([state[name] for name in names]))
