"""The loss, against sums written out by hand and against transformers."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch

from csm_repl.engine import spoken_text
from csm_repl.files.config import ModelConfig
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.model.weights.published import to_transformers
from csm_repl.train.data.batches import Batch, lay_out
from csm_repl.train.data.items import Item
from csm_repl.train.learn.loss import Losses, choose_frames, frame_losses, hide_frames, hide_voices
from csm_repl.train.learn.network import TrainableCSM
from tests.support.layout_writer import transformers_config
from tests.support.train_clips import FLAVORS, clip, speech


@pytest.fixture
def batch(tokenizer: Tokenizer, config: ModelConfig) -> Batch:
    items = [
        clip("a", "some words", 6, seed=1),
        Item("b", (speech("hi", 3, seed=2, in_loss=False), speech("you", 5, seed=3, speaker=1))),
    ]
    return lay_out(items, tokenizer, config)[0].batch([0, 1])


def losses_of(network: TrainableCSM, batch: Batch, chosen: torch.Tensor | None = None) -> Losses:
    if chosen is None:
        chosen = torch.arange(batch.n_targets)
    return frame_losses(network, batch, chosen, with_speaker=True)


@torch.no_grad()
def test_a_new_model_guesses_uniformly(network: TrainableCSM, batch: Batch) -> None:
    losses = losses_of(network, batch)
    assert float(losses.backbone) == pytest.approx(math.log(67), abs=0.05)
    assert float(losses.depth) == pytest.approx(math.log(67), abs=0.05)


@torch.no_grad()
def test_it_equals_the_sum_written_out_frame_by_frame(network: TrainableCSM, batch: Batch) -> None:
    """One sequence, one frame, one codebook at a time, without any of the loss's code."""
    sharpen(network)
    backbone: list[float] = []
    depth: list[float] = []
    for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
        for place in targets.nonzero().flatten().tolist():
            hidden = network.hidden_states(tokens[None, :place])[0, -1]
            frame = tokens[place, :-1]
            probabilities = network.codebook0_head(hidden).softmax(-1)
            backbone.append(-math.log(float(probabilities[frame[0]])))
            seen = [hidden]
            for codebook in range(1, 5):
                row = (codebook - 1) * 67 + int(frame[codebook - 1])
                seen.append(network.audio_embeddings.weight[row])
                state = network.decoder(network.projection(torch.stack(seen))[None])[1][0, -1]
                probabilities = (state @ network.audio_head[codebook - 1]).softmax(-1)
                depth.append(-math.log(float(probabilities[frame[codebook]])))
    losses = losses_of(network, batch)
    assert len(backbone) == losses.n_frames == 6 + 1 + 5 + 1
    assert float(losses.backbone) == pytest.approx(sum(backbone) / len(backbone), rel=1e-5)
    assert float(losses.depth) == pytest.approx(sum(depth) / len(depth), rel=1e-5)


def sharpen(network: TrainableCSM) -> None:
    """Heads begin near zero, where every loss is log V; larger ones tell frames apart."""
    with torch.no_grad():
        network.codebook0_head.weight.mul_(20)
        network.audio_head.mul_(20)


@torch.no_grad()
def test_chunks_of_the_depth_decoder_give_the_same_loss(network: TrainableCSM, batch: Batch) -> None:
    sharpen(network)
    whole = losses_of(network, batch)
    parts = frame_losses(network, batch, torch.arange(batch.n_targets), depth_chunk=3)
    torch.testing.assert_close(whole.depth, parts.depth)


@torch.no_grad()
def test_the_loss_on_some_frames_is_on_average_the_loss_on_all(network: TrainableCSM, batch: Batch) -> None:
    sharpen(network)
    n_frames = batch.n_targets
    each = torch.stack([losses_of(network, batch, torch.tensor([place])).depth for place in range(n_frames)])
    generator = torch.Generator().manual_seed(0)
    draws = [each[choose_frames(n_frames, 1 / 16, generator)].mean() for _ in range(3000)]
    whole = losses_of(network, batch).depth
    assert float(each.mean()) == pytest.approx(float(whole), rel=1e-5)
    # The mean of 3000 draws of one frame; three standard errors.
    error = 3 * float(each.std()) / math.sqrt(3000)
    assert float(torch.stack(draws).mean()) == pytest.approx(float(whole), abs=error)


@pytest.mark.parametrize(
    ("n_frames", "fraction", "n_chosen"), [(160, 1 / 16, 10), (3, 1 / 16, 1), (7, 1.0, 7), (5, 0.0, 1)]
)
def test_so_many_frames_are_chosen(n_frames: int, fraction: float, n_chosen: int) -> None:
    chosen = choose_frames(n_frames, fraction, torch.Generator().manual_seed(0))
    assert len(chosen) == len(set(chosen.tolist())) == n_chosen
    assert torch.equal(chosen, chosen.sort().values)


def test_text_alone_gives_no_gradient_to_the_heads_but_frames_reach_the_text(
    network: TrainableCSM, batch: Batch
) -> None:
    losses = losses_of(network, batch)
    (losses.backbone + losses.depth).backward()
    gradient = network.text_embeddings.weight.grad
    assert gradient is not None
    used = set(batch.tokens[..., -1][batch.tokens[..., -1] >= 0].tolist())
    assert set(gradient.abs().sum(1).nonzero().flatten().tolist()) == used


@pytest.mark.parametrize("part", ["backbone", "decoder", "projection", "audio_head", "audio_embeddings"])
def test_the_depth_decoders_loss_reaches_every_part(network: TrainableCSM, batch: Batch, part: str) -> None:
    losses_of(network, batch, torch.tensor([2])).depth.backward()
    named = [p for name, p in network.named_parameters() if name.startswith(part)]
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in named)


@torch.no_grad()
def test_the_speakers_loss_is_the_distance_to_his_numbers_embedding_on_every_frame(
    network: TrainableCSM, batch: Batch
) -> None:
    losses = losses_of(network, batch)
    early, _ = network.early_and_hidden_states(batch.tokens[:, :-1])
    zero, one = (
        network.text_embeddings.weight[int(batch.speaker_ids[1].max() + offset)] for offset in (-1, 0)
    )
    expected = []
    for item, row in (batch.speaker_ids[:, :-1] >= 0).nonzero().tolist():
        likeness = [
            10 * float(torch.cosine_similarity(early[item, row], name, dim=0)) for name in (zero, one)
        ]
        speaker = int(batch.speaker_ids[item, row] == batch.speaker_ids.max())
        expected.append(math.log(sum(map(math.exp, likeness))) - likeness[speaker])
    assert len(expected) == 6 + 3 + 5
    assert float(losses.speaker) == pytest.approx(sum(expected) / len(expected), rel=1e-5)


def test_the_speakers_loss_reaches_the_first_layers_only(network: TrainableCSM, batch: Batch) -> None:
    losses_of(network, batch).speaker.backward()
    first, last = network.backbone.layers[0], network.backbone.layers[-1]
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in first.parameters())
    assert all(p.grad is None for p in [*last.parameters(), *network.decoder.parameters()])


def transformers_model(network: TrainableCSM) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import CsmConfig, CsmForConditionalGeneration

        config = transformers_config(FLAVORS)
        # A Mimi that costs nothing; the codes are ours.
        config["codec_config"] = {
            "model_type": "mimi", "hidden_size": 16, "num_filters": 2, "codebook_size": 8, "codebook_dim": 8,
            "vector_quantization_hidden_dimension": 8, "num_quantizers": 5, "upsample_groups": 16,
            "num_hidden_layers": 1, "intermediate_size": 16, "num_attention_heads": 1,
            "num_key_value_heads": 1,
        }  # fmt: skip
        config.update(pad_token_id=0, bos_token_id=1, audio_token_id=298, audio_eos_token_id=299)
        config.update(codebook_pad_token_id=66)
        with torch.random.fork_rng(devices=[]):
            model = CsmForConditionalGeneration(CsmConfig(**config)).eval()
    tensors = to_transformers(network.state_dict(), network.config)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert all(name.startswith(("codec_model.", "backbone_model.embed_tokens")) for name in missing)
    model.tie_weights()
    return model


@torch.no_grad()
def test_it_equals_transformers_loss(network: TrainableCSM, batch: Batch) -> None:
    """transformers trains the depth decoder on all frames that it is given; so do we with all chosen."""
    sharpen(network)
    model = transformers_model(network)
    labels = batch.tokens[..., :-1].where(batch.targets.unsqueeze(-1), -100)
    theirs = model(inputs_embeds=network.embed(batch.tokens), labels=labels)
    ours = losses_of(network, batch)
    assert float(ours.backbone) == pytest.approx(float(theirs.backbone_loss), rel=1e-5)
    assert float(ours.depth) == pytest.approx(float(theirs.depth_decoder_loss), rel=1e-5)


@torch.no_grad()
def test_it_equals_transformers_loss_on_some_frames(network: TrainableCSM, batch: Batch) -> None:
    sharpen(network)
    model = transformers_model(network)
    chosen = torch.tensor([1, 4, 12])
    labels = batch.tokens[..., :-1].where(batch.targets.unsqueeze(-1), -100)
    places = batch.targets.nonzero()
    for place, (item, row) in enumerate(places.tolist()):
        if place not in chosen.tolist():
            labels[item, row, 1:] = -100
    theirs = model(inputs_embeds=network.embed(batch.tokens), labels=labels)
    ours = losses_of(network, batch, chosen)
    assert float(ours.depth) == pytest.approx(float(theirs.depth_decoder_loss), rel=1e-5)


def test_hidden_frames_are_frames_in_the_asked_for_share_and_nothing_else(batch: Batch) -> None:
    tokens = batch.tokens.repeat(200, 1, 1)
    heard = hide_frames(tokens, 0.3, torch.Generator().manual_seed(0))
    changed = (heard != tokens).any(-1)
    is_frame = (tokens[..., :-1] > 0).any(-1)
    assert not changed[~is_frame].any()
    assert (heard[changed] == -1).all()
    assert float(changed[is_frame].float().mean()) == pytest.approx(0.3, abs=0.03)
    assert hide_frames(tokens, 0.0, torch.Generator()) is tokens


def test_hidden_voices_are_returning_speakers_turns_in_the_asked_for_share_but_for_codebook_0(
    tokenizer: Tokenizer, config: ModelConfig
) -> None:
    speakers, n_frames = (0, 1, 0, 1), (3, 4, 5, 2)
    turns = tuple(
        speech("hi", n, seed=n, speaker=speaker) for speaker, n in zip(speakers, n_frames, strict=True)
    )
    items = [Item("a", turns), clip("b", "a single one that is longer than they", 40, seed=1)]
    batch = lay_out(items, tokenizer, config)[0].batch([0, 1] * 1000)
    heard = hide_voices(batch, 0.4, torch.Generator().manual_seed(1))
    hidden = (heard != batch.tokens).any(-1)
    assert (heard[hidden][:, 1:-1] == -1).all()
    assert torch.equal(heard[..., 0], batch.tokens[..., 0])
    assert torch.equal(heard[..., -1], batch.tokens[..., -1])
    n_text = len(tokenizer.encode(spoken_text(0, "hi")))
    # Each turn is its text, its frames and the closing frame.
    third_at = sum(n_frames[:2]) + 2 * (n_text + 1) + n_text
    fourth_at = third_at + n_frames[2] + 1 + n_text
    conversations = hidden[::2]
    third = conversations[:, third_at : third_at + n_frames[2]]
    fourth = conversations[:, fourth_at : fourth_at + n_frames[3]]
    assert int(hidden.sum()) == int(third.sum() + fourth.sum())
    for turn in (third, fourth):
        assert torch.equal(turn.all(1), turn.any(1))
        assert float(turn.all(1).float().mean()) == pytest.approx(0.4, abs=0.05)
    assert not torch.equal(third.all(1), fourth.all(1))
    assert hide_voices(batch, 0.0, torch.Generator()) is batch.tokens


@torch.no_grad()
def test_a_frame_without_its_voice_is_the_embedding_of_its_codebook_0(
    network: TrainableCSM, batch: Batch
) -> None:
    tokens = batch.tokens.clone()
    frame = (tokens[0, :, 0] > 0).nonzero()[0]
    tokens[0, frame, 1:-1] = -1
    expected = network.audio_embeddings.weight[tokens[0, frame, 0]]
    torch.testing.assert_close(network.embed(tokens)[0, frame], expected)


@torch.no_grad()
def test_what_is_hidden_changes_the_hidden_states_but_not_what_is_asked(
    network: TrainableCSM, batch: Batch
) -> None:
    sharpen(network)
    everything = torch.arange(batch.n_targets)
    plain = frame_losses(network, batch, everything)
    heard = hide_frames(batch.tokens, 0.9, torch.Generator().manual_seed(0))
    missing = frame_losses(network, batch, everything, heard=heard)
    assert missing.n_frames == plain.n_frames
    assert float(missing.backbone) != pytest.approx(float(plain.backbone), abs=1e-4)
    same = frame_losses(network, batch, everything, heard=batch.tokens.clone())
    assert float(same.backbone) == float(plain.backbone)
