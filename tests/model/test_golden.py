"""The golden tokens (tests/golden/README.md) from every layout that a checkpoint can come in."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from csm_repl.engine import Engine, SamplingOptions, build_prompt
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.weights.convert import load_csm
from tests.support.layout_writer import (
    read_original,
    transformers_config,
    transformers_state,
    write_config,
    write_shards,
)

GREEDY = SamplingOptions(temperature=1.0, top_k=1)
Case = dict[str, Any]


def golden_rows(case: Case) -> torch.Tensor:
    context = [(s["text_ids"], torch.tensor(s["codes"]).T) for s in case["context"]]
    return build_prompt(context, case["text_ids"], 32)


def speak(engine: Engine, case: Case) -> list[list[int]]:
    take = engine.generate(golden_rows(case), options=GREEDY, max_frames=len(case["frames"]))
    return [frame.tolist() for frame in take]


def load(folder: Path) -> Engine:
    return Engine(load_csm(find_checkpoint(folder), device=torch.device("cpu"), dtype=torch.float32))


def as_published(golden: Path, folder: Path) -> None:
    shutil.copytree(golden, folder)


def as_pickle(golden: Path, folder: Path) -> None:
    config, state = read_original(golden)
    write_config(folder, config)
    torch.save(state, folder / "ckpt.pt")


def as_nested_pickle(golden: Path, folder: Path) -> None:
    config, state = read_original(golden)
    write_config(folder, config)
    torch.save({"model": state, "step": 7}, folder / "ckpt.pt")


def as_transformers_file(golden: Path, folder: Path) -> None:
    config, state = read_original(golden)
    write_config(folder, transformers_config(config))
    save_file(transformers_state(state, config), folder / "model.safetensors")


def as_transformers_shards(golden: Path, folder: Path) -> None:
    config, state = read_original(golden)
    write_config(folder, transformers_config(config))
    write_shards(folder, transformers_state(state, config), stem="model")


def as_named_shards(golden: Path, folder: Path) -> None:
    """As on the hub, without the original's weights: the keys of both layouts and a named index."""
    config, state = read_original(golden)
    both = {**transformers_config(config), **config}
    write_config(folder, {**both, "transformers_weights": "transformers.safetensors.index.json"})
    write_shards(folder, transformers_state(state, config), stem="transformers")


def as_named_file(golden: Path, folder: Path) -> None:
    config, state = read_original(golden)
    both = {**transformers_config(config), **config}
    write_config(folder, {**both, "transformers_weights": "transformers.safetensors"})
    save_file(transformers_state(state, config), folder / "transformers.safetensors")


def as_on_the_hub(golden: Path, folder: Path) -> None:
    """Both layouts side by side."""
    as_named_shards(golden, folder)
    shutil.copy(golden / "model.safetensors", folder)


def as_fine_tune_of_the_hub(golden: Path, folder: Path) -> None:
    """save_pretrained keeps the original's keys in the config; the weights are transformers'."""
    config, state = read_original(golden)
    both = {**transformers_config(config), **config}
    write_config(folder, {**both, "transformers_weights": "transformers.safetensors.index.json"})
    save_file(transformers_state(state, config), folder / "model.safetensors")


def as_sharded_fine_tune_of_the_hub(golden: Path, folder: Path) -> None:
    config, state = read_original(golden)
    both = {**transformers_config(config), **config}
    write_config(folder, {**both, "transformers_weights": "transformers.safetensors.index.json"})
    write_shards(folder, transformers_state(state, config), stem="model")


LAYOUTS = [
    as_published,
    as_pickle,
    as_nested_pickle,
    as_transformers_file,
    as_transformers_shards,
    as_named_shards,
    as_named_file,
    as_on_the_hub,
    as_fine_tune_of_the_hub,
    as_sharded_fine_tune_of_the_hub,
]


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_layout_speaks_the_golden_tokens(
    write: Callable[[Path, Path], None], golden_folder: Path, golden_cases: list[Case], tmp_path: Path
) -> None:
    write(golden_folder, tmp_path / "model")
    engine = load(tmp_path / "model")
    assert [speak(engine, case) for case in golden_cases] == [case["frames"] for case in golden_cases]


@pytest.mark.parametrize("number", range(3))
def test_golden_tokens_do_not_depend_on_the_cases_before(
    number: int, golden_model: Any, golden_cases: list[Case]
) -> None:
    assert speak(Engine(golden_model), golden_cases[number]) == golden_cases[number]["frames"]


@pytest.mark.parametrize("number", range(3))
def test_golden_tokens_come_out_of_a_fully_cached_prompt(
    number: int, golden_model: Any, golden_cases: list[Case]
) -> None:
    engine, case = Engine(golden_model), golden_cases[number]
    speak(engine, case)
    take = engine.generate(golden_rows(case), options=GREEDY, max_frames=12)
    frames = [frame.tolist() for frame in take]
    assert (take.n_prefilled, frames) == (1, case["frames"])


def test_golden_tokens_come_out_of_the_prefix_after_another_conversation(
    golden_model: Any, golden_cases: list[Case]
) -> None:
    engine, case = Engine(golden_model), golden_cases[2]
    other_turn = {**case, "text_ids": [9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 2, 3], "frames": [None] * 9}
    other_conversation = {**case, "context": case["context"][:1]}
    for before in (other_turn, other_conversation):
        speak(engine, before)
    n_shared = 6 + 5 + 1
    take = engine.generate(golden_rows(case), options=GREEDY, max_frames=12)
    frames = [frame.tolist() for frame in take]
    n_rows = len(golden_rows(case))
    assert (take.n_prefilled, frames) == (n_rows - n_shared, case["frames"])
