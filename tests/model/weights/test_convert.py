"""Loading: what is said about broken checkpoints, and how much memory a good one costs."""

from __future__ import annotations

import gc
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from csm_repl.errors import CheckpointError
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.csm import CSM
from csm_repl.model.weights.convert import load_csm
from tests.support.broken_models import checked_error, write_as_shards
from tests.support.layout_writer import (
    read_original,
    write_config,
)
from tests.support.weight_files import assert_equal, mapped_from, mapped_ranges


def load(folder: Path, dtype: torch.dtype = torch.float32) -> CSM:
    return load_csm(find_checkpoint(folder), device=torch.device("cpu"), dtype=dtype)


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
    return checked_error(lambda: load(folder))


@pytest.fixture
def sharded(folder: Path) -> Path:
    return write_as_shards(folder)


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change(folder, backbone__layers__1__attn__k_proj__weight=None)
    assert "backbone.layers.1.attn.k_proj.weight" in error_of(folder).cause


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(folder: Path, value: float) -> None:
    name = "backbone.layers.1.attn.k_proj.weight"
    tensor = load_file(folder / "model.safetensors")[name]
    tensor[1, 2] = value
    change(folder, backbone__layers__1__attn__k_proj__weight=tensor)
    assert f"{name} holds NaN or infinity" in error_of(folder).cause


def test_a_weight_that_float16_cannot_hold_is_the_dtypes_fault(folder: Path) -> None:
    name = "projection.weight"
    tensor = load_file(folder / "model.safetensors")[name].float()
    tensor[0, 0] = 1e6
    change(folder, projection__weight=tensor)
    error = checked_error(lambda: load(folder, torch.float16))
    assert name in error.cause
    assert "bfloat16" in error.remedy
    load(folder)


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


def test_a_truncated_shard_is_named(sharded: Path) -> None:
    path = sharded / "model-00003-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert f"{path} is truncated or corrupt" in error_of(sharded).cause


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
    assert f"{path} holds more than tensors" in error.cause
    assert "could run code" in error.cause


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
    assert f"{path} is truncated or corrupt" in error_of(folder).cause


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod."])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state, "step": 3},
        lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"state_dict": state, "epoch": 1},
        lambda state: {"model": {"state_dict": state}},
    ],
)
def test_what_trainers_wrap_is_unwrapped(folder: Path, wrap: Any, prefix: str) -> None:
    _, state = read_original(folder)
    expected = load(folder)
    as_pickle(folder, wrap({prefix + name: tensor for name, tensor in state.items()}))
    assert_equal(expected, load(folder))


def test_prefixes_in_safetensors_are_no_part_of_the_names(folder: Path) -> None:
    expected = load(folder)
    state = load_file(folder / "model.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in state.items()}, folder / "model.safetensors")
    assert_equal(expected, load(folder))


@pytest.mark.parametrize("content", [[1, 2], {"model": [1]}, {"a": "b"}])
def test_a_pickle_without_tensors_is_refused(folder: Path, content: Any) -> None:
    as_pickle(folder, content)
    assert "lacks" in error_of(folder).cause or "no dictionary" in error_of(folder).cause


# Memory


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
