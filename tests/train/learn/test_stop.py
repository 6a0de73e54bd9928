"""A run that is asked to stop, wherever that hits, goes on to the end of one that was not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("torchtune")

from csm_repl.files.config import ModelConfig
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.data.items import Item
from csm_repl.train.events import Evaluated, Finished, TrainEvent
from csm_repl.train.learn.initialise import new_network
from csm_repl.train.learn.loop import Trainer
from csm_repl.train.options import TrainOptions
from tests.support.train_clips import many_clips


class Run:
    """Trains in a folder and notes what was written as the best."""

    def __init__(self, folder: Path, config: ModelConfig, tokenizer: Tokenizer, items: list[Item]) -> None:
        options = TrainOptions(
            mode="scratch", max_steps=6, eval_every=2, save_every=4, warmup_steps=0, lr=3e-3, out=folder
        )
        self.network = new_network(config, seed=0, device=torch.device("cpu"))
        self.trainer = Trainer(
            self.network, tokenizer, items[2:], items[:2], options, write_best=self._write_best
        )

    def _write_best(self, network: torch.nn.Module, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), folder / "best.pt")

    def go(self, *, stop_after: int | None = None) -> list[TrainEvent]:
        """Events; asked to stop when number `stop_after` of them comes."""
        events = []
        for number, event in enumerate(self.trainer.run()):
            events.append(event)
            if number == stop_after:
                self.trainer.stop()
        return events


def evaluations(events: list[TrainEvent]) -> list[tuple[int, float]]:
    return [(event.step, event.loss) for event in events if isinstance(event, Evaluated)]


@pytest.mark.parametrize("stop_after", range(0, 12, 2))
def test_a_stop_loses_no_evaluation_and_no_best_weights(
    tmp_path: Path, config: ModelConfig, tokenizer: Tokenizer, stop_after: int
) -> None:
    whole = Run(tmp_path / "whole", config, tokenizer, many_clips())
    wanted = whole.go()
    first = Run(tmp_path / "stopped", config, tokenizer, many_clips())
    events = first.go(stop_after=stop_after)
    if not isinstance(events[-1], Finished):
        assert first.trainer.save() is not None
        second = Run(tmp_path / "stopped", config, tokenizer, many_clips())
        events += second.go()
        first = second
    assert evaluations(events) == evaluations(wanted)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, first.network.state_dict()[name])
    best = [torch.load(tmp_path / run / "best" / "best.pt") for run in ("whole", "stopped")]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])


def test_an_interrupt_while_the_best_weights_are_written_leaves_their_loss_as_it_was(
    tmp_path: Path, config: ModelConfig, tokenizer: Tokenizer
) -> None:
    run = Run(tmp_path, config, tokenizer, many_clips())

    def interrupted(network: torch.nn.Module, folder: Path) -> None:
        raise KeyboardInterrupt

    run.trainer._write_best = interrupted
    with pytest.raises(KeyboardInterrupt):
        run.go()
    run.trainer.save()
    again = Run(tmp_path, config, tokenizer, many_clips())
    events = again.go()
    assert evaluations(events)[0][0] == 4
    assert events[-1].best_loss == min(loss for _, loss in evaluations(events))  # type: ignore[union-attr]
