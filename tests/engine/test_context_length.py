"""Contexts of other lengths than the model was made with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from csm_repl import load_csm_1b
from csm_repl.engine import Engine, PromptTooLongError, build_prompt
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.csm import CSM
from csm_repl.model.weights.convert import load_csm


def load(folder: Path, n_positions: int | None, *, native: bool = True, quantize: str = "none") -> CSM:
    return load_csm(
        find_checkpoint(folder),
        device=torch.device("cpu"),
        dtype=torch.float32,
        quantize=quantize,
        n_positions=n_positions,
        native=native,
    )


def prompt_of(n_positions: int) -> torch.Tensor:
    return build_prompt([], [256, *(30 + i % 90 for i in range(n_positions - 2)), 257], 4)


@pytest.mark.parametrize("n_positions", [64, 100, 3000])
def test_a_take_ends_where_the_context_does(endless_checkpoint: Path, n_positions: int) -> None:
    engine = Engine(load(endless_checkpoint, n_positions))
    take = engine.generate(prompt_of(n_positions - 30))
    assert (len(list(take)), take.ended) == (30, "context")
    with pytest.raises(PromptTooLongError, match=str(n_positions)):
        engine.generate(prompt_of(n_positions))


@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_the_native_kernels_give_what_pytorch_gives_behind_position_2048(
    micro_checkpoint: Path, quantize: str
) -> None:
    prompt = prompt_of(3900)
    logits = [
        Engine(load(micro_checkpoint, 4096, native=native, quantize=quantize)).next_logits(prompt)
        for native in (True, False)
    ]
    assert (logits[0] - logits[1]).norm() / logits[1].norm() < (1e-4 if quantize == "none" else 0.05)


def test_within_its_own_length_a_longer_context_changes_no_code(micro_checkpoint: Path) -> None:
    takes = [
        torch.stack(list(Engine(load(micro_checkpoint, n)).generate(prompt_of(60), seed=3, max_frames=30)))
        for n in (None, 5000)
    ]
    assert torch.equal(*takes)


def test_the_python_api_takes_a_length_and_refuses_what_is_none(micro_checkpoint: Path) -> None:
    generator = load_csm_1b(micro_checkpoint, "cpu", n_positions=64)
    with pytest.raises(ValueError, match="of the model's 64 positions"):
        generator.generate("Much too long. " * 20, 0, [])
    for value in (63, 2**20 + 1, 100.5, "many"):
        with pytest.raises(ValueError, match="n_positions"):
            load_csm_1b(micro_checkpoint, "cpu", n_positions=value)  # type: ignore[arg-type]
