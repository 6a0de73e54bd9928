"""Adapters: what they train, what is written, and that a merged model is base plus adapter."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from csm_repl.errors import CheckpointError, UsageError
from csm_repl.files.adapters import find_adapter
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.hub import ModelFiles, find_model
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.model.weights.adapters import read_adapter
from csm_repl.model.weights.convert import load_csm
from csm_repl.train.events import CheckpointSaved, StepDone
from csm_repl.train.export.companions import companions
from csm_repl.train.export.merge import merge_adapter
from csm_repl.train.export.original import write_original
from csm_repl.train.learn.initialise import load_network
from csm_repl.train.learn.loop import Trainer
from csm_repl.train.learn.lora import adapted_state, add_lora, write_adapter
from csm_repl.train.learn.network import TrainableCSM
from csm_repl.train.learn.optimiser import trainable
from csm_repl.train.options import TrainOptions
from tests.support.train_clips import load_engine, say_again, two_clips
from tools.random_checkpoint import random_mimi_state, tiny_mimi_config

CPU = torch.device("cpu")
ALL = ("q_proj", "k_proj", "v_proj", "output_proj", "mlp")


@pytest.fixture
def base(new: Callable[[], TrainableCSM], tokenizer_file: Path, tmp_path: Path) -> ModelFiles:
    """A model folder, complete with a tiny Mimi."""
    from safetensors.torch import save_file

    network = new()
    folder = tmp_path / "base"
    write_original(
        folder,
        network.state_dict(),
        network.config,
        files={"tokenizer.json": tokenizer_file},
        dtype=torch.float32,
    )
    sizes = tiny_mimi_config(5)
    (folder / "codec.json").write_text(json.dumps({"codec": "mimi", "config": sizes}))
    save_file(random_mimi_state(sizes, seed=0), folder / "mimi.safetensors")
    return find_model(str(folder), offline=True)


def base_network(base: ModelFiles) -> TrainableCSM:
    return load_network(find_checkpoint(base.folder), device=CPU)


def stir(network: TrainableCSM) -> None:
    """An adapter begins at zero; this one changes something."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in trainable(network).values():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))


def logits_of(network: TrainableCSM) -> torch.Tensor:
    """Logits of all codebooks along a fixed sequence."""
    network.eval()
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 67, (1, 20, 6), generator=generator)
    tokens[:, :, -1] = -1
    with torch.no_grad():
        hidden = network.hidden_states(tokens)[0]
        first = network.codebook0_head(hidden)
        return torch.cat([first, network.depth_logits(hidden, tokens[0, :, :-1]).flatten(1)], dim=1)


def test_a_new_adapter_changes_nothing(network: TrainableCSM) -> None:
    before = logits_of(network)
    add_lora(network, TrainOptions())
    assert torch.equal(logits_of(network), before)


def test_it_leaves_the_global_random_state(network: TrainableCSM) -> None:
    before = torch.get_rng_state()
    add_lora(network, TrainOptions())
    assert torch.equal(before, torch.get_rng_state())


def test_adapters_sit_in_backbone_and_depth_decoder_and_are_all_that_is_trained(
    network: TrainableCSM,
) -> None:
    add_lora(network, TrainOptions(lora_rank=3))
    names = trainable(network)
    assert len(names) == 2 * 7 * (2 + 2)
    assert all(name.endswith((".lora_a.weight", ".lora_b.weight")) for name in names)
    assert {name.split(".")[0] for name in names} == {"backbone", "decoder"}
    assert {tuple(p.shape) for name, p in names.items() if "backbone.layers.0.attn.k_proj" in name} == {
        (3, 64),
        (32, 3),
    }


def test_only_the_chosen_targets_get_one(network: TrainableCSM) -> None:
    add_lora(network, TrainOptions(lora_targets=("q_proj", "w2", "heads")))
    kinds = {name.removesuffix(".lora_a.weight").split(".")[-1] for name in trainable(network)}
    kinds = {kind for kind in kinds if kind not in {"weight"}}
    assert kinds == {"q_proj", "w2", "audio_head"}
    assert network.codebook0_head.weight.requires_grad
    assert not network.projection.weight.requires_grad


def test_an_unknown_target_is_a_usage_error(network: TrainableCSM) -> None:
    with pytest.raises(UsageError, match="'wq'") as caught:
        add_lora(network, TrainOptions(lora_targets=("wq",)))
    assert "q_proj" in caught.value.remedy


def test_frozen_matrices_can_be_stored_in_bf16(network: TrainableCSM) -> None:
    add_lora(network, TrainOptions(), frozen=torch.bfloat16)
    kinds = {(p.requires_grad, p.ndim > 1): p.dtype for p in network.parameters()}
    assert kinds == {
        (True, True): torch.float32,
        (False, True): torch.bfloat16,
        (False, False): torch.float32,
    }
    with torch.autocast("cpu", torch.bfloat16):
        assert logits_of(network).isfinite().all()


def test_the_adapters_state_has_the_published_names(network: TrainableCSM) -> None:
    names = set(network.state_dict())
    spec = add_lora(network, TrainOptions())
    assert set(adapted_state(network, spec)) == names


@pytest.mark.parametrize("targets", [ALL, (*ALL, "heads", "projection")])
def test_merged_weights_give_the_logits_of_base_plus_adapter(
    base: ModelFiles, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    network = base_network(base)
    spec = add_lora(network, TrainOptions(lora_rank=4, lora_alpha=12.0, lora_targets=targets))
    plain = logits_of(network)
    stir(network)
    adapted = logits_of(network)
    assert (adapted - plain).abs().max() > 0.05
    write_adapter(tmp_path / "adapter", network, spec, base_model="base")
    notice = merge_adapter(base, find_adapter(tmp_path / "adapter"), tmp_path / "merged", layout="original")
    assert notice is None
    merged = logits_of(load_network(find_checkpoint(tmp_path / "merged"), device=CPU))
    # W x + s B A x against (W + s B A) x in float32: the sums are rounded in another order.
    torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-5)


def test_both_layouts_hold_the_same_merged_weights(base: ModelFiles, tmp_path: Path) -> None:
    network = base_network(base)
    spec = add_lora(network, TrainOptions())
    stir(network)
    write_adapter(tmp_path / "adapter", network, spec, base_model="base")
    states = []
    for layout in ("original", "transformers"):
        merge_adapter(base, find_adapter(tmp_path / "adapter"), tmp_path / layout, layout=layout)  # type: ignore[arg-type]
        found = find_checkpoint(tmp_path / layout)
        assert found.layout == layout
        states.append(load_csm(found, device=CPU, dtype=torch.float32).state_dict())
    # transformers' audio tokens may add tokens of text embeddings.
    n_words = len(states[0]["text_embeddings"])
    states[1]["text_embeddings"] = states[1]["text_embeddings"][:n_words]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_merged_model_has_the_base_models_dtype(base: ModelFiles, tmp_path: Path) -> None:
    network = base_network(base)
    spec = add_lora(network, TrainOptions())
    write_adapter(tmp_path / "adapter", network, spec, base_model="base")
    half = tmp_path / "half"
    write_original(half, base_network(base).state_dict(), network.config, files=companions(base.folder))
    merge_adapter(
        find_model(str(half), offline=True),
        find_adapter(tmp_path / "adapter"),
        tmp_path / "merged",
        layout="original",
    )
    with safe_open(tmp_path / "merged" / "model.safetensors", "pt") as handle:
        assert {handle.get_tensor(name).dtype for name in handle.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_an_adapter_is_read_as_it_was_written(network: TrainableCSM, tmp_path: Path) -> None:
    spec = add_lora(network, TrainOptions(lora_rank=5, lora_alpha=7.5, lora_targets=("mlp", "heads")))
    stir(network)
    write_adapter(tmp_path, network, spec, base_model="some/model")
    adapter = read_adapter(find_adapter(tmp_path), network.config)
    assert adapter.files.base_model == "some/model"
    live = trainable(network)
    read = {}
    for name, change in adapter.changes.items():
        if change.whole is not None:
            read[name] = change.whole
            continue
        stem = name.removesuffix(".weight")
        read |= {f"{stem}.lora_a.weight": change.down, f"{stem}.lora_b.weight": change.up}
        assert change.scale == 1.5
    assert set(read) == set(live)
    assert all(torch.equal(read[name], live[name]) for name in live)


def test_an_adapter_of_another_model_is_refused(
    base: ModelFiles, golden_folder: Path, tmp_path: Path
) -> None:
    network = load_network(find_checkpoint(golden_folder), device=CPU)
    write_adapter(tmp_path, network, add_lora(network, TrainOptions()), base_model="csm-tiny")
    with pytest.raises(CheckpointError, match="does not fit") as caught:
        merge_adapter(base, find_adapter(tmp_path), tmp_path / "merged", layout="original")
    assert "csm-tiny" in caught.value.remedy


@pytest.mark.parametrize("damage", ["adapter.json", "adapter.safetensors"])
def test_a_damaged_adapter_is_told(network: TrainableCSM, tmp_path: Path, damage: str) -> None:
    write_adapter(tmp_path, network, add_lora(network, TrainOptions()), base_model="x")
    (tmp_path / damage).write_bytes((tmp_path / damage).read_bytes()[:20])
    with pytest.raises(CheckpointError, match=r"cannot be read|truncated") as caught:
        read_adapter(find_adapter(tmp_path), network.config)
    assert str(tmp_path / damage) in caught.value.cause
    assert "Copy the adapter again" in caught.value.remedy


@pytest.mark.slow(reason="trains for hundreds of steps")
def test_lora_learns_two_clips_by_heart(base: ModelFiles, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Adapters on a random base, with its heads: through training, the adapter's file, merging, engine."""
    options = TrainOptions(
        max_steps=250, lr=5e-3, warmup_steps=10, depth_fraction=1.0, batch_frames=100, lora_rank=16,
        lora_dropout=0.0, lora_targets=(*ALL, "heads", "projection"), eval_every=1000, out=tmp_path / "run",
    )  # fmt: skip
    network = base_network(base)
    spec = add_lora(network, options)
    frozen = {name: p.clone() for name, p in network.named_parameters() if not p.requires_grad}
    trainer = Trainer(
        network,
        tokenizer,
        two_clips(),
        two_clips(),
        options,
        write_best=lambda network, folder: write_adapter(folder, network, spec, base_model="base"),
    )
    events = list(trainer.run())
    assert [event.kind for event in events if isinstance(event, CheckpointSaved)] == ["best", "state"]
    assert [event for event in events if isinstance(event, StepDone)][-1].accuracy == 1.0
    now = dict(network.named_parameters())
    assert all(torch.equal(now[name], tensor) for name, tensor in frozen.items())
    merge_adapter(base, find_adapter(trainer.best_folder), tmp_path / "merged", layout="original")
    engine = load_engine(tmp_path / "merged")
    for item in two_clips():
        ended, codes = say_again(engine, tokenizer, item.turns[0])
        assert ended == "end"
        assert torch.equal(codes, item.turns[0].codes.long())
