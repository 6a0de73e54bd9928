"""Samples are what the exported model would say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchtune")

from csm_repl.codec import Codec, load_codec
from csm_repl.engine import Engine, build_prompt, spoken_text
from csm_repl.errors import OutputError
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.files.config import ModelConfig
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.model.weights.convert import load_csm
from csm_repl.text import ceiling_seconds
from csm_repl.train.learn.initialise import initial_state, load_network
from csm_repl.train.learn.network import TrainableCSM
from csm_repl.train.learn.sample_takes import TakeSampler, speaking_model
from tests.support.speech import read_pcm

CPU = torch.device("cpu")
SEED = 5


@pytest.fixture(scope="module")
def codec(tiny_checkpoint: Path) -> Codec:
    return load_codec(
        tiny_checkpoint / "mimi.safetensors", tiny_checkpoint / "codec.json", n_codebooks=32, device=CPU
    )


@pytest.fixture(scope="module")
def words(tiny_checkpoint: Path) -> Tokenizer:
    return Tokenizer(tiny_checkpoint / "tokenizer.json", vocab_size=300)


@pytest.fixture(scope="module")
def network(tiny_checkpoint: Path) -> TrainableCSM:
    return load_network(find_checkpoint(tiny_checkpoint), device=CPU)


def state(network: TrainableCSM) -> Mapping[str, torch.Tensor]:
    return network.state_dict()


def test_a_sample_is_the_engines_take_of_the_checkpoint(
    tmp_path: Path, tiny_checkpoint: Path, network: TrainableCSM, codec: Codec, words: Tokenizer
) -> None:
    sampler = TakeSampler(
        tmp_path / "samples", ["[3]Hello.", "Again."], tokenizer=words, codec=codec, state=state, seed=SEED
    )
    before = torch.random.get_rng_state()
    first, second = sampler(network, 12)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert [event.path.name for event in (first, second)] == ["step-000012-1.wav", "step-000012-2.wav"]
    assert [event.text for event in (first, second)] == ["Hello.", "Again."]
    engine = Engine(load_csm(find_checkpoint(tiny_checkpoint), device=CPU, dtype=torch.float32))
    take = engine.generate(
        build_prompt([], words.encode(spoken_text(3, "Hello.")), 32),
        seed=SEED + 1,
        max_frames=int(ceiling_seconds("Hello.") * codec.frame_rate),
    )
    frames = torch.stack(list(take), dim=1)
    wanted = (codec.decode(frames) * 32768).round().clamp(-32768, 32767)
    assert abs(wanted.numpy() - read_pcm(first.path)).max() <= 1
    assert first.seconds == pytest.approx(frames.shape[1] * 0.08)
    assert first.ended == (take.ended == "end")


def test_a_step_that_is_done_again_replaces_its_samples(
    tmp_path: Path, network: TrainableCSM, codec: Codec, words: Tokenizer
) -> None:
    sampler = TakeSampler(tmp_path, ["Hi."], tokenizer=words, codec=codec, state=state, seed=SEED)
    [first] = sampler(network, 1)
    data = first.path.read_bytes()
    [again] = sampler(network, 1)
    assert again.path.read_bytes() == data
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_an_output_error(
    tmp_path: Path, network: TrainableCSM, codec: Codec, words: Tokenizer
) -> None:
    (tmp_path / "file").write_text("")
    sampler = TakeSampler(
        tmp_path / "file" / "x", ["Hi."], tokenizer=words, codec=codec, state=state, seed=SEED
    )
    with pytest.raises(OutputError):
        list(sampler(network, 1))


def test_a_model_whose_tables_are_not_tied_speaks_too(config: ModelConfig) -> None:
    untied = replace(config, tied_audio_embeddings=False)
    tensors = initial_state(untied, seed=0)
    model = speaking_model(tensors, untied)
    assert model.depth_embeddings is not None
    assert torch.equal(model.depth_embeddings, tensors["depth_embeddings.weight"])


def test_training_on_does_not_change_a_model_that_speaks(network: TrainableCSM) -> None:
    model = speaking_model(network.state_dict(), network.config)
    with torch.no_grad():
        network.projection.weight.add_(1.0)
        same = torch.equal(model.projection.weight, network.projection.weight)
        network.projection.weight.sub_(1.0)
    assert not same
    assert not any(parameter.requires_grad for parameter in model.parameters())
