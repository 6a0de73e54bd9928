"""A run learns, ends when it should, and keeps what it should."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from csm_repl.errors import OutOfMemoryError, TrainingError, UsageError
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.data.items import Item
from csm_repl.train.events import CheckpointSaved, Evaluated, Finished, Sampled, StepDone, TrainEvent
from csm_repl.train.export.original import write_original
from csm_repl.train.learn import passes, state
from csm_repl.train.learn.loop import Trainer
from csm_repl.train.learn.network import TrainableCSM
from csm_repl.train.learn.schedule import RunProgress, learning_rate
from csm_repl.train.options import TrainOptions
from tests.support.train_clips import load_engine, many_clips, say_again, two_clips

_Event = TypeVar("_Event")
MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make(new: Callable[[], TrainableCSM], tokenizer: Tokenizer, tmp_path: Path) -> MakeTrainer:
    """Makes a trainer of a new network; two clips are held out unless told otherwise."""

    def make(
        items: list[Item] | None = None,
        held_out: list[Item] | None = None,
        network: TrainableCSM | None = None,
        make_samples: Any = None,
        **options: Any,
    ) -> Trainer:
        chosen: dict[str, Any] = {
            "mode": "scratch", "max_steps": 6, "batch_frames": 100, "warmup_steps": 2, "eval_every": 1000,
            "save_every": 1000, "out": tmp_path / "run", **options,
        }  # fmt: skip
        return Trainer(
            network or new(),
            tokenizer,
            many_clips() if items is None else items,
            many_clips(2) if held_out is None else held_out,
            TrainOptions(**chosen),
            write_best=lambda network, folder: write_original(
                folder, network.state_dict(), network.config, dtype=torch.float32
            ),
            make_samples=make_samples,
        )

    return make


def of_kind(events: list[TrainEvent], kind: type[_Event]) -> list[_Event]:
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def overfitted(
    tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[TrainEvent], Path]:
    """Two clips learnt by heart, from scratch."""
    from csm_repl.files.config import parse_config
    from csm_repl.train.learn.initialise import new_network
    from tests.support.train_clips import FLAVORS

    out = tmp_path_factory.mktemp("overfit")
    options = TrainOptions(
        mode="scratch", max_steps=100, lr=3e-3, warmup_steps=5, depth_fraction=1.0, batch_frames=100,
        eval_every=1000, save_every=1000, out=out,
    )  # fmt: skip
    network = new_network(parse_config(FLAVORS, source="flavors"), seed=0, device=torch.device("cpu"))
    trainer = Trainer(
        network,
        tokenizer,
        two_clips(),
        two_clips(),
        options,
        write_best=lambda network, folder: write_original(
            folder, network.state_dict(), network.config, dtype=torch.float32
        ),
    )
    return list(trainer.run()), out / "best"


@pytest.mark.parametrize("number", [0, 1])
def test_two_clips_are_learnt_by_heart_and_spoken_to_their_last_frame(
    overfitted: tuple[list[TrainEvent], Path], tokenizer: Tokenizer, number: int
) -> None:
    turn = two_clips()[number].turns[0]
    ended, codes = say_again(load_engine(overfitted[1]), tokenizer, turn)
    assert ended == "end"
    assert torch.equal(codes, turn.codes.long())


def test_the_loss_falls_from_a_guess_to_almost_nothing(
    overfitted: tuple[list[TrainEvent], Path],
) -> None:
    steps = of_kind(overfitted[0], StepDone)
    assert steps[0].loss == pytest.approx(2 * math.log(67), rel=0.02)
    assert steps[-1].loss < 0.2
    assert steps[-1].accuracy == 1.0
    evaluated = of_kind(overfitted[0], Evaluated)[-1]
    assert evaluated.is_best
    assert evaluated.loss == pytest.approx(steps[-1].loss, rel=0.2)


def test_the_depth_decoder_is_trained_too(make: MakeTrainer, new: Callable[[], TrainableCSM]) -> None:
    trainer = make()
    before = new().state_dict()
    list(trainer.run())
    for name, tensor in trainer.network.state_dict().items():
        assert not torch.equal(tensor, before[name]), f"{name} has not changed"


def test_every_step_is_told_with_its_figures(make: MakeTrainer) -> None:
    events = list(make(max_steps=4, accumulate=2).run())
    steps = of_kind(events, StepDone)
    assert [event.step for event in steps] == [1, 2, 3, 4]
    assert {event.n_steps for event in steps} == {4}
    assert all(event.n_items > 0 and event.n_frames > event.n_items for event in steps)
    assert all(event.grad_norm > 0 and event.seconds > 0 for event in steps)
    assert [event.epoch for event in steps] == sorted(event.epoch for event in steps)
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "all 4 steps are done"


def test_a_run_of_epochs_sees_every_item_as_often(make: MakeTrainer) -> None:
    events = list(make(max_steps=None, epochs=2.0).run())
    steps = of_kind(events, StepDone)
    assert sum(event.n_items for event in steps) == 2 * 12
    assert steps[-1].epoch == 2.0
    assert steps[-1].n_steps == steps[-1].step


def test_time_ends_a_run_in_good_order(make: MakeTrainer) -> None:
    events = list(make(max_steps=None, epochs=1e6, max_minutes=0.005).run())
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert "minutes are up" in finished.reason
    assert [event.kind for event in of_kind(events, CheckpointSaved)] == ["best", "state"]
    steps = of_kind(events, StepDone)
    assert steps[-1].lr < steps[1].lr


def test_accumulated_batches_are_one_large_batch(make: MakeTrainer, new: Callable[[], TrainableCSM]) -> None:
    # One step over everything: once in one batch, once in several that are summed up.
    weights = []
    for batch_frames, accumulate in ((10_000, 1), (100, None)):
        trainer = make(batch_frames=batch_frames, max_steps=1, depth_fraction=1.0)
        if accumulate is None:
            n_batches = len(trainer._plan.epoch(0))
            assert n_batches > 3
            trainer.options = replace(trainer.options, accumulate=n_batches)
        [step] = of_kind(list(trainer.run(resume=False)), StepDone)
        weights.append((step.loss, step.grad_norm))
    assert weights[0] == pytest.approx(weights[1], rel=1e-5)


def test_the_held_out_loss_is_the_same_every_time(make: MakeTrainer) -> None:
    trainer = make(depth_fraction=1 / 16)
    before = torch.get_rng_state()
    first, second = trainer.evaluate(), trainer.evaluate()
    assert first == second
    assert torch.equal(before, torch.get_rng_state())


def test_training_does_not_touch_the_global_random_state(make: MakeTrainer) -> None:
    before = torch.get_rng_state()
    list(make().run())
    assert torch.equal(before, torch.get_rng_state())


def test_a_run_stops_when_the_held_out_loss_gets_no_better(make: MakeTrainer) -> None:
    events = list(make(lr=0.0, eval_every=2, patience=2, max_steps=50).run())
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert "not better in the last 2 evaluations" in finished.reason
    assert finished.step == 6
    assert [event.is_best for event in of_kind(events, Evaluated)] == [True, False, False]


def test_the_best_weights_are_kept_and_not_the_last(make: MakeTrainer) -> None:
    trainer = make(eval_every=1, max_steps=2)
    run = trainer.run()
    events: list[TrainEvent] = []
    for event in run:
        events.append(event)
        if isinstance(event, CheckpointSaved) and event.kind == "best":
            best = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
            break
    with torch.no_grad():
        trainer.network.codebook0_head.weight.add_(torch.randn_like(trainer.network.codebook0_head.weight))
    events += list(run)
    assert [event.is_best for event in of_kind(events, Evaluated)] == [True, False]
    saved = load_engine(trainer.best_folder).model
    assert torch.equal(saved.codebook0_head.weight, best["codebook0_head.weight"])


def test_without_a_held_out_set_the_newest_weights_are_the_best(make: MakeTrainer) -> None:
    trainer = make(held_out=[], max_steps=3)
    events = list(trainer.run())
    assert not of_kind(events, Evaluated)
    assert [event.kind for event in of_kind(events, CheckpointSaved)] == ["best", "state"]
    saved = load_engine(trainer.best_folder).model
    assert torch.equal(saved.projection.weight, trainer.network.projection.weight)


def test_the_average_is_what_is_evaluated_and_saved(make: MakeTrainer) -> None:
    trainer = make(ema=0.9, max_steps=5)
    events = list(trainer.run())
    live = trainer.network.projection.weight.detach().clone()
    with trainer.use_average():
        averaged = trainer.network.projection.weight.detach().clone()
    assert not torch.equal(live, averaged)
    assert torch.equal(trainer.network.projection.weight, live)
    assert torch.equal(load_engine(trainer.best_folder).model.projection.weight, averaged)
    assert of_kind(events, Evaluated)[-1].loss == trainer.evaluate().loss


def test_autocast_learns_too_and_keeps_the_weights_in_float32(make: MakeTrainer) -> None:
    trainer = make(dtype="bfloat16", max_steps=20, lr=3e-3)
    steps = of_kind(list(trainer.run()), StepDone)
    assert steps[-1].loss < 0.95 * steps[0].loss
    assert {parameter.dtype for parameter in trainer.network.parameters()} == {torch.float32}


def test_gradient_checkpointing_changes_no_figure(make: MakeTrainer) -> None:
    plain, checkpointed = (
        of_kind(list(make(gradient_checkpointing=on, max_steps=3).run(resume=False)), StepDone)
        for on in (False, True)
    )
    for first, second in zip(plain, checkpointed, strict=True):
        assert first.loss == pytest.approx(second.loss, rel=1e-5)


def test_samples_are_asked_for_every_so_many_steps(make: MakeTrainer) -> None:
    asked: list[int] = []

    def make_samples(network: TrainableCSM, step: int) -> Iterator[Sampled]:
        assert not network.training
        asked.append(step)
        yield Sampled(step, Path("x.wav"), "x", 1.0, True)

    events = list(make(make_samples=make_samples, sample_every=2, max_steps=5).run())
    assert asked == [2, 4]
    assert [event.step for event in of_kind(events, Sampled)] == [2, 4]


# --- what goes wrong ----------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_state(make: MakeTrainer) -> None:
    trainer = make(save_every=2, max_steps=10)
    run = trainer.run()
    for event in run:
        if isinstance(event, CheckpointSaved) and event.kind == "state":
            break
    kept = trainer.state_path.read_bytes()
    with torch.no_grad():
        trainer.network.projection.weight[0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"At step 3 the loss \(nan\)") as caught:
        list(run)
    assert "--lr" in caught.value.remedy
    assert trainer.state_path.read_bytes() == kept


def test_memory_that_does_not_suffice_is_explained(
    make: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: Any, **__: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(passes, "frame_losses", too_much)
    with pytest.raises(OutOfMemoryError, match="--batch-frames 100") as caught:
        list(make().run())
    assert "--gradient-checkpointing" in caught.value.remedy


def test_a_full_disk_leaves_the_older_state(make: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(save_every=2, max_steps=4, held_out=[])
    run = trainer.run()
    for event in run:
        if isinstance(event, CheckpointSaved) and event.kind == "state":
            break
    kept = trainer.state_path.read_bytes()

    def full(content: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state.torch, "save", full)
    with pytest.raises(TrainingError, match="No space left on device") as caught:
        list(run)
    assert "is intact" in str(caught.value)
    assert trainer.state_path.read_bytes() == kept
    assert sorted(path.name for path in trainer.options.out.iterdir()) == ["best", "state.pt"]


def test_nothing_to_train_on_is_a_usage_error_with_the_first_reason(make: MakeTrainer) -> None:
    from tests.support.train_clips import clip

    with pytest.raises(UsageError, match="long: It takes"):
        make(items=[clip("long", "x", 400, seed=0)])


def test_items_that_were_left_out_are_told(make: MakeTrainer) -> None:
    from tests.support.train_clips import clip

    trainer = make(items=[*many_clips(), clip("long", "x", 400, seed=0)])
    assert [entry.name for entry in trainer.left_out] == ["long"]


# --- schedule -----------------------------------------------------------------------------------------


def rate(step: int, **options: Any) -> float:
    values: dict[str, Any] = {"max_steps": 100, "warmup_steps": 10, "lr": 1.0, **options}
    return learning_rate(RunProgress(TrainOptions(**values), step, 0.0, 0.0))


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == pytest.approx(1.0, rel=0.05)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, abs=0.001)


@pytest.mark.parametrize(("mode", "peak"), [("lora", 2e-4), ("full", 3e-5), ("scratch", 1e-3)])
def test_each_mode_has_its_own_peak(mode: str, peak: float) -> None:
    assert rate(0, mode=mode, lr=None, warmup_steps=0) == pytest.approx(peak)


def test_the_larger_share_leads() -> None:
    options = TrainOptions(max_steps=100, max_minutes=1.0)
    assert RunProgress(options, 10, 0.0, 30.0).share == 0.5
    assert RunProgress(options, 80, 0.0, 30.0).share == 0.8
    assert RunProgress(options, 10, 0.0, 30.0).n_steps == 20
