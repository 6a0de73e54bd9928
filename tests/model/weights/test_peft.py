"""An adapter in PEFT's form, against the sum written out: W + alpha / r * B A under transformers' names."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from csm_repl.errors import CheckpointError
from csm_repl.files.adapters import find_adapter
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.config import parse_config
from csm_repl.files.hub import find_model
from csm_repl.files.json_files import read_config
from csm_repl.model.csm import CSM
from csm_repl.model.weights.adapters import read_adapter
from csm_repl.model.weights.convert import load_csm
from tests.support.layout_writer import (
    read_original,
    transformers_config,
    transformers_state,
    write_config,
)
from tests.support.weight_files import assert_equal

CPU = torch.device("cpu")
MODULES = (
    "backbone_model.layers.0.self_attn.q_proj",
    "backbone_model.layers.1.self_attn.k_proj",
    "backbone_model.layers.0.mlp.down_proj",
    "depth_decoder.model.layers.0.self_attn.v_proj",
)
RANK, ALPHA = 3, 6


@pytest.fixture
def base(micro_checkpoint: Path, tmp_path: Path) -> Path:
    """The model in transformers' layout."""
    folder = tmp_path / "base"
    shutil.copytree(micro_checkpoint, folder)
    config, state = read_original(folder)
    write_config(folder, transformers_config(config))
    save_file(
        {name: tensor.clone().contiguous() for name, tensor in transformers_state(state, config).items()},
        folder / "model.safetensors",
    )
    return folder


def write_peft(folder: Path, base: Path, **config: Any) -> dict[str, torch.Tensor]:
    """An adapter for `MODULES`; returns what it adds, by transformers' names, before scaling."""
    folder.mkdir()
    state, tensors, sums = load_file(base / "model.safetensors"), {}, {}
    generator = torch.Generator().manual_seed(3)
    for module in MODULES:
        n_out, n_in = state[f"{module}.weight"].shape
        down = torch.randn(RANK, n_in, generator=generator)
        up = torch.randn(n_out, RANK, generator=generator)
        tensors[f"base_model.model.{module}.lora_A.weight"] = down
        tensors[f"base_model.model.{module}.lora_B.weight"] = up
        sums[f"{module}.weight"] = up @ down
    save_file(tensors, folder / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "base_model_name_or_path": "x/y", **config}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return sums


def load(folder: Path, adapter: Path | None = None) -> CSM:
    checkpoint = find_checkpoint(folder)
    learnt = None if adapter is None else read_adapter(find_adapter(adapter), checkpoint.config)
    return load_csm(checkpoint, device=CPU, dtype=torch.float32, adapter=learnt)


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, ALPHA / RANK),
        ({"use_rslora": True}, ALPHA / math.sqrt(RANK)),
        ({"alpha_pattern": {}}, ALPHA / RANK),
    ],
)
@pytest.mark.parametrize("layout", ["transformers", "original"])
def test_it_is_added_to_a_base_of_either_layout(
    base: Path, micro_checkpoint: Path, tmp_path: Path, layout: str, config: dict[str, Any], scale: float
) -> None:
    sums = write_peft(tmp_path / "adapter", base, **config)
    adapted = load(base if layout == "transformers" else micro_checkpoint, tmp_path / "adapter")
    plain = load(base)
    # The sum written out, in the base itself.
    state = load_file(base / "model.safetensors")
    for name, change in sums.items():
        state[name] = (state[name].float() + scale * change).to(state[name].dtype)
    save_file(
        {name: tensor.float().contiguous() for name, tensor in state.items()}, base / "model.safetensors"
    )
    expected = load(base)
    theirs = dict(expected.named_parameters())
    for name, tensor in adapted.named_parameters():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-2, atol=1e-2)
    with pytest.raises(AssertionError):
        assert_equal(plain, adapted)


def test_the_value_for_one_module_wins(base: Path, tmp_path: Path) -> None:
    write_peft(tmp_path / "adapter", base, alpha_pattern={"q_proj": 0.5})
    config = parse_config(read_config(base / "config.json"), source="config.json", transformers=True)
    changes = read_adapter(find_adapter(tmp_path / "adapter"), config).changes
    scales = {name.split(".")[-2]: change.scale for name, change in changes.items()}
    assert scales == {"q_proj": 0.5 / RANK, "k_proj": 2.0, "w2": 2.0, "v_proj": 2.0}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"r": 4}, "rank 3"),
        ({"lora_alpha": "much"}, "lora_alpha"),
        ({"something_new": 1}, "something_new"),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(
    base: Path, tmp_path: Path, config: dict[str, Any], why: str
) -> None:
    write_peft(tmp_path / "adapter", base, **config)
    with pytest.raises(CheckpointError, match=why):
        load(base, tmp_path / "adapter")


def test_an_adapter_given_as_a_model_and_a_model_as_an_adapter_are_named(base: Path, tmp_path: Path) -> None:
    write_peft(tmp_path / "adapter", base)
    with pytest.raises(CheckpointError, match=r"holds an adapter for x/y, and no model\. Use --adapter"):
        find_model(str(tmp_path / "adapter"))
    with pytest.raises(CheckpointError, match=r"holds a model, and no adapter\. Use --model"):
        find_adapter(base)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no adapter"):
        find_adapter(tmp_path / "empty")
