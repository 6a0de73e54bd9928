"""One step's gradients: every option of the loss must reach them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from csm_repl.files.config import ModelConfig
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.data.batches import Batch, lay_out
from csm_repl.train.data.items import Item
from csm_repl.train.learn.loss import frame_losses
from csm_repl.train.learn.network import TrainableCSM
from csm_repl.train.learn.passes import Passes
from csm_repl.train.options import TrainOptions
from tests.support.train_clips import speech

PLAIN = TrainOptions(depth_fraction=1.0, dtype="float32")


@pytest.fixture
def batches(tokenizer: Tokenizer, config: ModelConfig) -> list[Batch]:
    turns = tuple(speech("hi", 6, seed=turn, speaker=turn % 2) for turn in range(4))
    sequences, _ = lay_out([Item("a", turns), Item("b", turns[1:])], tokenizer, config)
    return [sequences.batch([0]), sequences.batch([1])]


def gradients(network: TrainableCSM, batches: list[Batch], options: TrainOptions) -> dict[str, torch.Tensor]:
    network.zero_grad(set_to_none=True)
    Passes(network, options).gradients(batches, 7)
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone_weight": 0.5}, {"depth_weight": 0.5}, {"depth_fraction": 0.25}, {"frame_dropout": 0.5},
        {"voice_dropout": 0.9}, {"speaker_weight": 0.5},
    ],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_the_option_reaches_the_gradients(
    network: TrainableCSM, batches: list[Batch], changed: dict[str, Any]
) -> None:
    plain = gradients(network, batches, PLAIN)
    assert largest_difference(plain, gradients(network, batches, PLAIN)) == 0.0
    assert largest_difference(plain, gradients(network, batches, replace(PLAIN, **changed))) > 1e-4


def test_the_speakers_loss_is_added_as_often_as_its_weight_says(
    network: TrainableCSM, batches: list[Batch]
) -> None:
    plain = gradients(network, batches, PLAIN)
    with_speaker = gradients(network, batches, replace(PLAIN, speaker_weight=0.25))
    network.zero_grad(set_to_none=True)
    for batch in batches:
        losses = frame_losses(network, batch, torch.arange(1), with_speaker=True)
        (losses.speaker * 0.25 / len(batches)).backward()
    for name, parameter in network.named_parameters():
        added = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(with_speaker[name] - plain[name], added, rtol=1e-3, atol=1e-6)
