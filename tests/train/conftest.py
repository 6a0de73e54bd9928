"""The sizes, tokenizer and networks of the tiny model that is trained in tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from csm_repl.files.config import ModelConfig, parse_config
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.learn.initialise import new_network
from csm_repl.train.learn.network import TrainableCSM
from tests.support.train_clips import FLAVORS
from tools.random_checkpoint import write_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    return parse_config(FLAVORS, source="flavors")


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder / "tokenizer.json"


@pytest.fixture(scope="session")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer(tokenizer_file, vocab_size=300)


@pytest.fixture
def new(config: ModelConfig) -> Callable[[], TrainableCSM]:
    """Makes networks with the same weights."""
    return lambda: new_network(config, seed=0, device=CPU)


@pytest.fixture
def network(new: Callable[[], TrainableCSM]) -> TrainableCSM:
    return new()
