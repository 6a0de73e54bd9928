"""All the ways in which the original and its forks load a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from csm_repl import Generator, load_csm_1b, load_csm_1b_local
from csm_repl.errors import CheckpointError, DeviceError

WAYS: list[Callable[[Path], Generator]] = [
    lambda folder: load_csm_1b(folder, "cpu"),
    lambda folder: load_csm_1b(str(folder), "cpu"),
    lambda folder: load_csm_1b(str(folder), device="cpu"),
    lambda folder: load_csm_1b(folder, torch.device("cpu")),
    lambda folder: load_csm_1b(folder / "model.safetensors", "cpu"),
    lambda folder: load_csm_1b(ckpt_path=folder, device="cpu"),
    lambda folder: load_csm_1b("cpu", model=folder),
    lambda folder: load_csm_1b(torch.device("cpu"), model=str(folder)),
    lambda folder: load_csm_1b_local(str(folder), "cpu"),
    lambda folder: load_csm_1b_local(folder / "model.safetensors", device="cpu"),
]


@pytest.mark.parametrize("load", WAYS)
def test_it_is_loaded_onto_the_device(load: Callable[[Path], Generator], tiny_checkpoint: Path) -> None:
    generator = load(tiny_checkpoint)
    assert generator.device == torch.device("cpu")
    assert len(generator.generate("Hi.", 0, [], 160, seed=1)) > 0


@pytest.mark.parametrize("value", [3, b"folder", ["folder"]])
@pytest.mark.parametrize("argument", ["model", "ckpt_path"])
def test_what_is_no_path_is_refused_by_name(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{argument}"):
        load_csm_1b(device="cpu", **{argument: value})


def test_two_models_are_one_too_many(tiny_checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="ckpt_path or model"):
        load_csm_1b(tiny_checkpoint, "cpu", model=tiny_checkpoint)


def test_a_file_that_is_not_the_models_is_not_taken_for_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for path in tiny_checkpoint.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "older.safetensors").touch()
    with pytest.raises(ValueError, match=r"ckpt_path.*older.*model\.safetensors"):
        load_csm_1b(tmp_path / "older.safetensors", "cpu")


def test_a_path_that_is_not_there_and_an_unknown_device_are_said(tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        load_csm_1b(Path("nowhere") / "at" / "all", "cpu")
    with pytest.raises(DeviceError, match="gpu"):
        load_csm_1b(tiny_checkpoint, "gpu")


def test_the_forks_number_of_codebooks_must_be_the_models(tiny_checkpoint: Path) -> None:
    generator = load_csm_1b_local(str(tiny_checkpoint), "cpu")
    n_codebooks = generator.codec.n_codebooks
    load_csm_1b_local(str(tiny_checkpoint), "cpu", n_codebooks)
    with pytest.raises(ValueError, match="audio_num_codebooks"):
        load_csm_1b_local(str(tiny_checkpoint), "cpu", audio_num_codebooks=n_codebooks + 1)


def test_an_adapter_is_added_to_the_model(micro_checkpoint: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(micro_checkpoint / "model.safetensors")
    name = "backbone.layers.0.attn.q_proj"
    n_out, n_in = weights[f"{name}.weight"].shape
    learnt = {f"{name}.lora_a.weight": torch.randn(2, n_in), f"{name}.lora_b.weight": torch.randn(n_out, 2)}
    save_file(learnt, tmp_path / "adapter.safetensors")
    (tmp_path / "adapter.json").write_text(
        '{"rank": 2, "alpha": 20, "targets": ["q_proj"], "base_model": "x/y"}'
    )
    plain = load_csm_1b(micro_checkpoint, "cpu").generate("Hi.", 0, [], 400, seed=1)
    for adapter in (tmp_path, str(tmp_path)):
        adapted = load_csm_1b(micro_checkpoint, "cpu", adapter=adapter).generate("Hi.", 0, [], 400, seed=1)
        assert not torch.equal(adapted[: len(plain)], plain[: len(adapted)])
    with pytest.raises(ValueError, match="adapter must be"):
        load_csm_1b(micro_checkpoint, "cpu", adapter=3)  # type: ignore[arg-type]
