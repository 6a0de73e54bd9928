"""The measure of quality tells bf16, int8, int4 and a broken scale apart."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.quality import compare, entropy, forced_logits, measure
from csm_repl.engine import Engine, SamplingOptions, text_positions
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.csm import CSM
from csm_repl.model.layers.cpu_linear import Int4NativeLinear, Int8Linear, QuantizedLinear
from csm_repl.model.weights.convert import load_csm
from tests.support.paths import ROOT

SOME_KL = {"bfloat16": 3e-5, "int8": 3e-5, "int4": 5e-3}
"""Nats in the depth codebooks of the tiny random model: 2.5e-6, 4e-6 and 6e-4 were seen."""
TOP1 = {"bfloat16": 0.9, "int8": 0.9, "int4": 0.6}


def random_logits(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_model_agrees_with_itself() -> None:
    logits = random_logits(3, 4, 50, seed=0)
    comparison = compare(logits, logits.clone())
    assert comparison.kl.abs().max() < 1e-12
    assert comparison.agrees.all()


def test_kl_and_entropy_are_those_of_torch_distributions() -> None:
    first, second = random_logits(3, 4, 50, seed=0), random_logits(3, 4, 50, seed=1)
    p = torch.distributions.Categorical(logits=first.double())
    q = torch.distributions.Categorical(logits=second.double())
    torch.testing.assert_close(compare(first, second).kl, torch.distributions.kl_divergence(p, q))
    torch.testing.assert_close(entropy(first), p.entropy())


def test_what_a_forced_model_would_have_chosen_is_what_it_chooses(micro_model: CSM) -> None:
    rows = text_positions([5, 6, 7], micro_model.config.n_codebooks)
    take = Engine(micro_model).generate(rows, options=SamplingOptions(temperature=0), max_frames=5)
    frames = torch.stack(list(take))
    assert torch.equal(forced_logits(micro_model, rows, frames).argmax(-1), frames)


def results(folder: Path, modes: list[str]) -> dict[str, dict[str, Any]]:
    checkpoint = find_checkpoint(folder)
    rows = text_positions(list(range(40)), checkpoint.config.n_codebooks)
    return dict(measure(checkpoint, rows, modes, n_frames=6, seed=3))


@pytest.fixture(scope="module")
def found(tiny_checkpoint: Path) -> dict[str, dict[str, Any]]:
    return results(tiny_checkpoint, ["bfloat16", "int8", "int4", "int8:float32"])


def test_int8_agrees_closely_and_int4_less(found: dict[str, dict[str, Any]]) -> None:
    for mode, limit in SOME_KL.items():
        assert found[mode]["kl_depth"] < limit, mode
        assert found[mode]["top1_depth"] > TOP1[mode], mode
    assert found["int8"]["kl_depth"] * 20 < found["int4"]["kl_depth"]
    assert found["int4"]["top1_depth"] < found["int8"]["top1_depth"]


def test_float32_beside_int8_is_closer_than_bfloat16(found: dict[str, dict[str, Any]]) -> None:
    assert found["int8:float32"]["kl_depth"] < found["int8"]["kl_depth"]


@pytest.mark.parametrize(
    ("kind", "mode", "name"),
    [(Int8Linear, "int8", "scales"), (Int4NativeLinear, "int4", "scales")],
)
def test_a_broken_scale_is_seen(
    kind: type[QuantizedLinear],
    mode: str,
    name: str,
    tiny_checkpoint: Path,
    found: dict[str, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quantize = kind.quantize

    def broken(weight: torch.Tensor) -> dict[str, torch.Tensor]:
        state = quantize(weight)
        # Rolled by a row: each is right for its neighbour, and of the right size on the whole.
        return {**state, name: state[name].roll(1, dims=0)}

    monkeypatch.setattr(kind, "quantize", staticmethod(broken))
    spoilt = results(tiny_checkpoint, [mode])[mode]
    assert spoilt["kl_depth"] > 2 * SOME_KL[mode] > 2 * found[mode]["kl_depth"]


def test_a_golden_model_in_int8_says_nearly_the_same(golden_folder: Path, golden_cases: list[Any]) -> None:
    model = load_csm(
        find_checkpoint(golden_folder), device=torch.device("cpu"), dtype=torch.float32, quantize="int8"
    )
    case = golden_cases[0]
    rows = text_positions(case["text_ids"], 32)
    frames = torch.tensor(case["frames"])
    assert not case["context"]
    chosen = forced_logits(model, rows, frames).argmax(-1)
    assert (chosen == frames).double().mean() > 0.9


@pytest.mark.slow(reason="runs a benchmark")
def test_the_command_prints_a_table_and_writes_json(tiny_checkpoint: Path) -> None:
    command = [sys.executable, "-m", "bench.quality", "--model", str(tiny_checkpoint), "--frames", "2"]
    done = subprocess.run(
        [*command, "--modes", "int8", "--context", "8"], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    assert "| int8 |" in done.stdout
    path = Path(done.stdout.partition("written: ")[2].strip())
    content = json.loads(path.read_text())
    path.unlink()
    assert content["results"]["int8"]["kl_by_codebook"]
    assert content["n_prompt"] > 8
