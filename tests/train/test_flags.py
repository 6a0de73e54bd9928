"""The command line is the registry of options."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from csm_repl.cli import main
from csm_repl.errors import UsageError
from csm_repl.train.flags import flag_of, option_fields, parse_merge, parse_train
from csm_repl.train.options import DataOptions, TrainOptions


def test_without_flags_every_option_has_its_default() -> None:
    job = parse_train(["clips"])
    assert job.options == TrainOptions()
    assert job.data == DataOptions()
    assert (job.sources, job.scratch, job.resume, job.dry_run) == (("clips",), None, True, False)


def test_every_option_has_a_flag_and_help() -> None:
    named = {item.name for item in option_fields(TrainOptions, DataOptions)}
    assert named == {field.name for field in dataclasses.fields(TrainOptions)} - {"mode"} | {
        field.name for field in dataclasses.fields(DataOptions)
    }
    assert all(item.metadata["help"] for item in option_fields(TrainOptions, DataOptions))


@pytest.mark.parametrize(
    ("flags", "values"),
    [
        (["--full"], {"mode": "full"}),
        (["--from-scratch", "x"], {"mode": "scratch"}),
        (["--max-steps", "7"], {"max_steps": 7}),
        (["--epochs", "0.5"], {"epochs": 0.5}),
        (["--depth-fraction", "1/8"], {"depth_fraction": 0.125}),
        (["--betas", "0.8, 0.9"], {"betas": (0.8, 0.9)}),
        (["--loss-speakers", "1,3"], {"loss_speakers": (1, 3)}),
        (["--lora-targets", "q_proj,mlp"], {"lora_targets": ("q_proj", "mlp")}),
        (["--dtype", "bfloat16"], {"dtype": "bfloat16"}),
        (["--gradient-checkpointing"], {"gradient_checkpointing": True}),
        (["-o", "runs/x"], {"out": Path("runs/x")}),
        (["--sample-text", "[1]A, b.", "--sample-text", "C"], {"sample_texts": ("[1]A, b.", "C")}),
    ],
)
def test_flags_become_options_of_the_right_type(flags: list[str], values: dict[str, Any]) -> None:
    assert parse_train(["clips", *flags]).options == TrainOptions(**values)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-steps", "many"], "--max-steps must be a whole number, not 'many'"),
        (["--max-steps", "0"], "max-steps must be at least 1, not 0"),
        (["--lr", "nan"], "lr must be at least 0"),
        (["--held-out", "1"], "held-out must be between 0 and 0.9"),
        (["--depth-fraction", "1/0"], "--depth-fraction must be a number"),
        (["--betas", "0.9"], "--betas must be 2 values"),
        (["--loss-speakers", ","], "--loss-speakers must not be empty"),
        (["--loss-speakers", "-1"], "loss-speakers must be at least 0"),
        (["--dtype", "int8"], "--dtype must be one of auto, bfloat16, float32"),
        (["--full", "--lora"], "not allowed with"),
        (["--from-scratch", "x", "--model", "y"], "Give one of them"),
        (["--turns", "0"], "turns must be between 1 and 100"),
        (["--nonsense"], "nonsense"),
        (["--device", "gpu"], "device must be"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(flags: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_train(["clips", *flags])


def test_data_are_needed_and_merge_needs_a_folder(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert main(["merge", "adapter"]) == 2
    shown = capfd.readouterr().err
    assert "DATA" in shown
    assert "--out" in shown


def test_settings_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSM_REPL_MODEL", "my/model")
    monkeypatch.setenv("CSM_REPL_OFFLINE", "1")
    assert parse_train(["clips"]).settings.model == "my/model"
    assert parse_train(["clips"]).settings.offline
    assert parse_train(["clips", "--model", "other/model"]).settings.model == "other/model"


def test_a_merges_words() -> None:
    job = parse_merge(["a", "--model", "m/m", "-o", "out", "--layout", "transformers", "--dtype", "float32"])
    assert (job.adapter, job.out, job.layout, job.dtype) == (
        Path("a"),
        Path("out"),
        "transformers",
        "float32",
    )
    assert job.settings.model == "m/m"


@pytest.mark.parametrize("command", ["train", "merge"])
def test_help_imports_nothing_heavy_and_names_every_flag(command: str) -> None:
    code = (
        "import sys\nfrom csm_repl.cli import main\n"
        f"try: main([{command!r}, '--help'])\nexcept SystemExit: pass\nprint('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    shown, _, modules = done.stdout.partition("\nMODULES ")
    assert not {"torch", "numpy", "rich", "huggingface_hub", "datasets", "matplotlib"} & set(modules.split())
    if command == "train":
        assert all(flag_of(item) in shown for item in option_fields(TrainOptions, DataOptions))


def test_a_missing_extra_is_told_with_its_command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torchtune" else find(name))
    assert main(["train", str(tmp_path)]) == 2
    shown = capfd.readouterr().err
    assert "torchtune" in shown
    assert "pip install 'csm-repl[train]'" in shown
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name)
    )
    assert main(["train", str(tmp_path), "--tensorboard"]) == 2
    assert "pip install tensorboard" in capfd.readouterr().err
