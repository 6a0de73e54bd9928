"""A small run that stops, goes on, and can be told apart from another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from csm_repl.files.config import parse_config
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.data.items import Item
from csm_repl.train.learn.initialise import new_network
from csm_repl.train.learn.loop import Trainer
from csm_repl.train.learn.lora import add_lora
from csm_repl.train.options import TrainOptions
from tests.support.train_clips import FLAVORS, many_clips

OPTIONS: dict[str, Any] = {
    "mode": "scratch", "max_steps": 12, "accumulate": 2, "ema": 0.9, "depth_fraction": 0.25,
    "batch_frames": 100, "warmup_steps": 3, "eval_every": 4, "save_every": 5,
}  # fmt: skip


def make_trainer(tokenizer: Tokenizer, out: Path, items: list[Item] | None = None, **options: Any) -> Trainer:
    chosen = TrainOptions(**{**OPTIONS, **options, "out": out})
    network = new_network(parse_config(FLAVORS, source="flavors"), seed=0, device=torch.device("cpu"))
    if chosen.mode == "lora":
        add_lora(network, chosen)
    items = many_clips() if items is None else items
    return Trainer(network, tokenizer, items[2:], items[:2], chosen)
