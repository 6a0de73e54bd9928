"""The network that is trained is the model that speaks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from csm_repl.engine import build_prompt
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.config import ModelConfig, parse_config
from csm_repl.model.csm import CSM
from csm_repl.model.weights.convert import load_csm
from csm_repl.model.weights.published import half_to_pairs, pairs_to_half, read_published
from csm_repl.train.learn.initialise import load_network, new_network
from csm_repl.train.learn.network import TrainableCSM
from tests.support.layout_writer import read_original, transformers_config, transformers_state, write_config
from tests.support.train_clips import FLAVORS

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def golden_network(golden_folder: Path) -> TrainableCSM:
    return load_network(find_checkpoint(golden_folder), device=CPU).eval()


def golden_rows(case: dict[str, Any]) -> torch.Tensor:
    context = [(part["text_ids"], torch.tensor(part["codes"]).T) for part in case["context"]]
    return build_prompt(context, case["text_ids"], 32, begun=torch.tensor(case["frames"]).T)


def test_its_tensors_have_the_published_names(golden_network: TrainableCSM, golden_folder: Path) -> None:
    published = load_file(golden_folder / "model.safetensors")
    state = golden_network.state_dict()
    assert set(state) == set(published)
    assert all(torch.equal(state[name], tensor.float()) for name, tensor in published.items())


@torch.no_grad()
def test_it_predicts_the_golden_frames(
    golden_network: TrainableCSM, golden_cases: list[dict[str, Any]]
) -> None:
    for case in golden_cases:
        frames = torch.tensor(case["frames"])
        tokens = golden_rows(case)[None]
        before = slice(tokens.shape[1] - len(frames) - 1, tokens.shape[1] - 1)
        hidden = golden_network.hidden_states(tokens)[0, before]
        assert torch.equal(golden_network.codebook0_head(hidden).argmax(-1), frames[:, 0])
        assert torch.equal(golden_network.depth_logits(hidden, frames).argmax(-1), frames[:, 1:])


@torch.no_grad()
def test_its_hidden_states_are_the_engines(
    golden_network: TrainableCSM, golden_model: CSM, golden_cases: list[dict[str, Any]]
) -> None:
    tokens = golden_rows(golden_cases[-1])
    ours = golden_network.hidden_states(tokens[None])[0, -1]
    cache = golden_model.new_backbone_cache()
    theirs = golden_model.run_backbone(golden_model.embed(tokens), cache, 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_padding_on_the_right_changes_nothing(golden_network: TrainableCSM) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = build_prompt([], [1, 2, 3], 32, begun=torch.randint(0, 2048, (32, 6), generator=generator))
    padded = torch.full((2, 20, 33), -1)
    padded[1, : len(tokens)] = tokens
    alone = golden_network.hidden_states(tokens[None])[0]
    torch.testing.assert_close(golden_network.hidden_states(padded)[1, : len(tokens)], alone)


@torch.no_grad()
def test_early_states_are_those_after_a_third_of_the_layers(golden_network: TrainableCSM) -> None:
    tokens = build_prompt([], [1, 2, 3], 32)[None]
    layers = golden_network.backbone.layers
    expected = golden_network.embed(tokens)
    for layer in layers[: len(layers) // 3]:
        expected = layer(expected)
    early, hidden = golden_network.early_and_hidden_states(tokens)
    assert 0 < len(layers) // 3 < len(layers)
    torch.testing.assert_close(early, expected)
    assert torch.equal(hidden, golden_network.hidden_states(tokens))


def test_both_layouts_give_the_same_network(golden_folder: Path, tmp_path: Path) -> None:
    config, state = read_original(golden_folder)
    write_config(tmp_path, transformers_config(config))
    save_file(transformers_state(state, config), tmp_path / "model.safetensors")
    original = read_published(find_checkpoint(golden_folder))
    transformers = read_published(find_checkpoint(tmp_path))
    assert set(original) == set(transformers)
    assert all(torch.equal(original[name], transformers[name]) for name in original)


def test_untied_embeddings_are_kept_apart(tmp_path: Path) -> None:
    flavors = {**FLAVORS}
    config = transformers_config(flavors)
    config["tie_codebooks_embeddings"] = False
    parsed = parse_config(config, source="config", transformers=True)
    network = new_network(parsed, seed=0, device=CPU)
    assert network.depth_embeddings is not None
    network.depth_logits(torch.randn(3, 64), torch.randint(0, 67, (3, 5))).sum().backward()
    assert network.depth_embeddings.weight.grad is not None
    assert network.audio_embeddings.weight.grad is None


def test_reordering_for_half_rotation_can_be_undone() -> None:
    weight = torch.randn(4 * 6, 10)
    assert torch.equal(half_to_pairs(pairs_to_half(weight, 4), 4), weight)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state(config: ModelConfig) -> None:
    before = torch.get_rng_state()
    first, second = (new_network(config, seed=3, device=CPU).state_dict() for _ in range(2))
    other = new_network(config, seed=4, device=CPU).state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["projection.weight"], other["projection.weight"])


def test_gradient_checkpointing_gives_the_same_gradients(new: Callable[[], TrainableCSM]) -> None:
    tokens = build_prompt([], [1, 2, 3], 5, begun=torch.randint(0, 67, (5, 6)))[None]
    gradients = []
    for checkpointed in (False, True):
        network = new()
        network.gradient_checkpointing = checkpointed
        hidden = network.hidden_states(tokens)[0, 3:]
        network.depth_logits(hidden, torch.ones(len(hidden), 5, dtype=torch.int64)).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for plain, again in zip(*gradients, strict=True):
        assert (plain is None) == (again is None)
        if plain is not None and again is not None:
            torch.testing.assert_close(plain, again)


@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_the_rotary_table_stays_float32_in_a_bf16_network(golden_folder: Path) -> None:
    network = load_network(find_checkpoint(golden_folder), device=CPU).to(torch.bfloat16)
    tokens = build_prompt([], [1, 2, 3], 32)[None]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        network.hidden_states(tokens)
    table = network.backbone.layers[0].attn.pos_embeddings._table
    assert table.dtype == torch.float32


def test_a_model_made_from_published_tensors_speaks_as_before(golden_folder: Path) -> None:
    # The reader copies: what is trained must not be a view of the mapped file.
    checkpoint = find_checkpoint(golden_folder)
    network = load_network(checkpoint, device=CPU)
    with torch.no_grad():
        network.projection.weight.zero_()
    model = load_csm(checkpoint, device=CPU, dtype=torch.float32)
    assert model.projection.weight.abs().sum() > 0
