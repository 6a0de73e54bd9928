"""A run that goes on after a stop is the run that was never stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from csm_repl.errors import TrainingError
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.events import Evaluated, Finished, StepDone, TrainEvent
from csm_repl.train.learn.loop import Trainer
from tests.support.train_clips import many_clips
from tests.support.train_runs import make_trainer


def figures(events: list[TrainEvent]) -> dict[tuple[str, int], tuple[float, ...]]:
    """What a run has told, without the times it took."""
    told: dict[tuple[str, int], tuple[float, ...]] = {}
    for event in events:
        if isinstance(event, StepDone):
            told["step", event.step] = (event.loss, event.depth_loss, event.grad_norm, event.lr, event.epoch)
        elif isinstance(event, Evaluated):
            told["evaluated", event.step] = (event.loss, event.depth_loss, event.is_best)
        elif isinstance(event, Finished):
            told["finished", event.step] = (event.best_loss,)
    return told


def stop_after(trainer: Trainer, step: int) -> None:
    for event in trainer.run():
        if isinstance(event, StepDone) and event.step == step:
            return


@pytest.mark.parametrize(
    ("stop", "options"),
    [(5, {}), (11, {}), (8, {"mode": "lora", "lora_dropout": 0.2})],
    ids=["where it is saved", "behind it", "lora"],
)
def test_a_stopped_run_goes_on_bit_by_bit(
    tokenizer: Tokenizer, tmp_path: Path, stop: int, options: dict[str, Any]
) -> None:
    whole = make_trainer(tokenizer, tmp_path / "whole", **options)
    expected = figures(list(whole.run()))
    stop_after(make_trainer(tokenizer, tmp_path / "stopped", **options), stop)
    again = make_trainer(tokenizer, tmp_path / "stopped", **options)
    told = figures(list(again.run()))
    first = 1 + (stop - 1) // 5 * 5
    assert min(step for kind, step in told if kind == "step") == first
    assert told == {key: value for key, value in expected.items() if key[1] >= first}
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, again.network.state_dict()[name]), name


def test_saving_on_the_way_out_loses_no_step(tokenizer: Tokenizer, tmp_path: Path) -> None:
    first = make_trainer(tokenizer, tmp_path)
    stop_after(first, 3)
    assert first.save() == first.state_path
    told = figures(list(make_trainer(tokenizer, tmp_path).run()))
    assert min(step for kind, step in told if kind == "step") == 4


def test_a_run_that_is_done_has_nothing_left_to_do(tokenizer: Tokenizer, tmp_path: Path) -> None:
    done = figures(list(make_trainer(tokenizer, tmp_path).run()))
    told = figures(list(make_trainer(tokenizer, tmp_path).run()))
    assert told == {("finished", 12): done["finished", 12]}


def test_without_resume_a_run_starts_anew(tokenizer: Tokenizer, tmp_path: Path) -> None:
    stop_after(make_trainer(tokenizer, tmp_path), 6)
    told = figures(list(make_trainer(tokenizer, tmp_path).run(resume=False)))
    assert ("step", 1) in told


def test_other_data_are_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    stop_after(make_trainer(tokenizer, tmp_path), 6)
    with pytest.raises(TrainingError, match="other data"):
        list(make_trainer(tokenizer, tmp_path, many_clips(9)).run())


def test_another_mode_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    stop_after(make_trainer(tokenizer, tmp_path), 6)
    with pytest.raises(TrainingError, match="another"):
        list(make_trainer(tokenizer, tmp_path, mode="lora").run())


def test_a_damaged_state_is_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    trainer = make_trainer(tokenizer, tmp_path)
    stop_after(trainer, 6)
    trainer.state_path.write_bytes(trainer.state_path.read_bytes()[:5000])
    with pytest.raises(TrainingError, match="damaged") as caught:
        list(make_trainer(tokenizer, tmp_path).run())
    assert "--out" in caught.value.remedy


def test_an_interrupt_amid_an_update_saves_nothing(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tokenizer, tmp_path)
    stop_after(trainer, 6)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer._optimiser, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(trainer.run(resume=False))
    assert trainer.save() is None


_PROGRAM = """
import sys
from pathlib import Path
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.events import StepDone
from tests.support.train_runs import make_trainer
tokenizer = Tokenizer(Path(sys.argv[1]), vocab_size=300)
for event in make_trainer(tokenizer, Path(sys.argv[2]), max_steps=200).run():
    if isinstance(event, StepDone):
        sys.stdout.write(f"{event.step}\\n")
        sys.stdout.flush()
"""


@pytest.mark.slow(reason="trains twice, 200 steps")
def test_a_killed_program_goes_on_bit_by_bit(
    tokenizer: Tokenizer, tokenizer_file: Path, tmp_path: Path
) -> None:
    expected = figures(list(make_trainer(tokenizer, tmp_path / "whole", max_steps=200).run()))
    command = [sys.executable, "-c", _PROGRAM, str(tokenizer_file), str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 23:
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    told = figures(list(make_trainer(tokenizer, tmp_path / "killed", max_steps=200).run()))
    first = min(step for kind, step in told if kind == "step")
    assert first > 20
    assert told == {key: value for key, value in expected.items() if key[1] >= first}
