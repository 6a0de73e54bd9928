"""The training loop: batches in, events out, saved states on the disk.

Randomness depends on the seed and the step alone (see `passes`), so a run that is killed and resumed is the
run that was never killed.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from csm_repl.errors import TrainingError, UsageError
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.data.batches import Batch, BatchPlan, Position, lay_out
from csm_repl.train.data.items import Item
from csm_repl.train.events import CheckpointSaved, Evaluated, Finished, LeftOut, Sampled, StepDone, TrainEvent
from csm_repl.train.learn.network import TrainableCSM
from csm_repl.train.learn.optimiser import WeightEma, new_optimiser, trainable
from csm_repl.train.learn.passes import LossMetrics, Passes
from csm_repl.train.learn.schedule import RunProgress, learning_rate
from csm_repl.train.learn.state import RunState, load_state, save_state
from csm_repl.train.options import TrainOptions

__all__ = ["MakeSamples", "Trainer", "WriteBest"]

MakeSamples = Callable[[TrainableCSM, int], Iterable[Sampled]]
"""Speaks the sample sentences with the model as it is; passed in, because it needs engine and codec."""
WriteBest = Callable[[TrainableCSM, Path], object]
"""Writes what is trained into a folder, as a model or as an adapter."""

STATE_FILE = "state.pt"
BEST_FOLDER = "best"


class Trainer:
    """One run in one folder."""

    def __init__(
        self,
        network: TrainableCSM,
        tokenizer: Tokenizer,
        items: Sequence[Item],
        held_out: Sequence[Item] | None,
        options: TrainOptions,
        *,
        write_best: WriteBest | None = None,
        make_samples: MakeSamples | None = None,
    ) -> None:
        """
        Args:
            network: on its device, with `requires_grad` on what is to be trained.
            tokenizer: the model's.
            items: what is learnt.
            held_out: what the model is judged by; None or empty: nothing, and the newest weights are best.
            options: everything else.
            write_best: writes the best weights so far into `options.out / "best"`.
            make_samples: called every `options.sample_every` steps.

        Raises:
            UsageError: nothing is left to learn from.
        """
        self.options = options
        self.network = network
        self._passes = Passes(network, options)
        self._sequences, left_out = lay_out(items, tokenizer, network.config, speakers=options.loss_speakers)
        self._held_out, held_left_out = lay_out(
            held_out or (), tokenizer, network.config, speakers=options.loss_speakers
        )
        self.left_out: list[LeftOut] = left_out + held_left_out
        """Items that the model cannot learn from; the caller reports them."""
        if not len(self._sequences):
            why = f" The first: {left_out[0].name}: {left_out[0].cause}" if left_out else ""
            raise UsageError(f"There is nothing to train on.{why}", "Check the data and the options.")
        self._plan = BatchPlan(self._sequences.lengths, batch_frames=options.batch_frames, seed=options.seed)
        self._write_best = write_best
        self._make_samples = make_samples
        self._optimiser = new_optimiser(network, options)
        self._average = None if options.ema is None else WeightEma(network, options.ema)
        self._run = RunState()
        self._consistent = True
        self._stopping = False

    @property
    def state_path(self) -> Path:
        return self.options.out / STATE_FILE

    @property
    def best_folder(self) -> Path:
        return self.options.out / BEST_FOLDER

    @property
    def step(self) -> int:
        return self._run.step

    def run(self, *, resume: bool = True) -> Iterator[TrainEvent]:
        """Trains, from the saved state on if there is one; ends with `Finished`.

        A step is made only when its event is asked for. To end early, call `stop`, and `save` when the events
        have ended.

        Raises:
            TrainingError: the loss is not a finite number, a file could not be written, or the folder holds
                another run.
            OutOfMemoryError: the device's memory is too small.
        """
        if resume:
            self._resume()
        begun = time.perf_counter()
        before = self._run.seconds
        while (why := self._over()) is None:
            yield self._step()
            self._run.seconds = before + time.perf_counter() - begun
            step = self._run.step
            if self._due(self.options.eval_every) and len(self._held_out):
                yield from self._evaluate()
            if self._due(self.options.sample_every):
                yield from self._sample()
            if self._due(self.options.save_every):
                yield from self._save()
            self._run.seconds = before + time.perf_counter() - begun
            if self._stopping:
                return
        step = self._run.step
        if len(self._held_out) and self._run.evaluated != step:
            yield from self._evaluate()
        yield from self._save()
        yield Finished(step, why, self._run.best_loss, self._run.seconds)

    def stop(self) -> None:
        """Ends `run` without `Finished`, when all that belongs to the current step is done: its evaluation,
        samples and files. A run that goes on from there is then the run that was never stopped."""
        self._stopping = True

    def save(self) -> Path | None:
        """Saves the state now, so that `run` goes on from here.

        Returns:
            The file, or None where an interrupt hit amid the update of the weights: these are lost, and the
            state that was saved before stays.
        """
        if not self._consistent:
            return None
        average = None if self._average is None else self._average.values
        save_state(
            self.state_path,
            self._run,
            mode=self.options.mode,
            data=self._sequences.fingerprint(),
            weights={name: value.detach() for name, value in trainable(self.network).items()},
            optimiser=self._optimiser.state_dict(),
            average=average,
        )
        return self.state_path

    def use_average(self) -> contextlib.AbstractContextManager[None]:
        """The network has the averaged weights while the block runs, if an average is kept."""
        return contextlib.nullcontext() if self._average is None else self._average.in_place()

    # --- where the run stands

    def _resume(self) -> None:
        live = trainable(self.network)
        saved = load_state(
            self.state_path,
            mode=self.options.mode,
            data=self._sequences.fingerprint(),
            shapes={name: value.shape for name, value in live.items()},
        )
        if saved is None:
            return
        with torch.no_grad():
            for name, value in live.items():
                value.copy_(saved["weights"][name])
        self._optimiser.load_state_dict(saved["optimiser"])
        if self._average is not None:
            self._average.load(saved["average"] or saved["weights"])
        self._run = saved["run"]

    def _progress(self) -> RunProgress:
        run = self._run
        epochs = self._plan.epochs_done(Position(run.epoch, run.index))
        return RunProgress(self.options, run.step, epochs, run.seconds)

    def _over(self) -> str | None:
        patience = self.options.patience
        if patience is not None and self._run.n_worse >= patience:
            return f"the held-out loss was not better in the last {patience} evaluations"
        return self._progress().over

    def _due(self, every: int) -> bool:
        return every > 0 and self._run.step % every == 0

    # --- a step

    def _step(self) -> StepDone:
        started = time.perf_counter()
        run, options = self._run, self.options
        progress = self._progress()
        batches, position = self._gather(Position(run.epoch, run.index))
        lr = learning_rate(progress)
        losses = self._passes.gradients(batches, run.step)
        grad_norm = float(torch.nn.utils.clip_grad_norm_(trainable(self.network).values(), options.clip_norm))
        if not math.isfinite(losses.loss) or not math.isfinite(grad_norm):
            raise self._diverged(losses.loss)
        for group in self._optimiser.param_groups:
            group["lr"] = lr
        self._consistent = False
        with self._passes.guarded():
            self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        run.step += 1
        run.epoch, run.index = position.epoch, position.index
        if self._average is not None:
            self._average.update(run.step)
        self._consistent = True
        after = self._progress()
        return StepDone(
            step=run.step,
            n_steps=max(run.step, after.n_steps),
            epoch=after.epochs,
            loss=losses.loss,
            backbone_loss=losses.backbone,
            depth_loss=losses.depth,
            accuracy=losses.accuracy,
            lr=lr,
            grad_norm=grad_norm,
            n_items=sum(batch.n_items for batch in batches),
            n_frames=losses.n_frames,
            seconds=time.perf_counter() - started,
        )

    def _gather(self, position: Position) -> tuple[list[Batch], Position]:
        """The batches of one step and the position after them."""
        walk = self._plan.walk(position)
        batches: list[Batch] = []
        for _ in range(self.options.accumulate):
            indices, position = next(walk)
            batches.append(self._sequences.batch(indices))
        return batches, position

    def _diverged(self, loss: float) -> TrainingError:
        self._optimiser.zero_grad(set_to_none=True)
        kept = f"{self.state_path} is kept" if self.state_path.is_file() else "no state was saved yet"
        return TrainingError(
            f"At step {self._run.step + 1} the loss ({loss}) or its gradient is not a finite number; {kept}.",
            "Use a lower --lr or more --warmup-steps, and check the data around this step.",
        )

    # --- held-out loss, samples, files

    def evaluate(self) -> LossMetrics:
        """The held-out losses of the weights that would be saved now."""
        with self.use_average():
            return self._passes.evaluate(self._held_out)

    def _evaluate(self) -> Iterator[TrainEvent]:
        started = time.perf_counter()
        run = self._run
        losses = self.evaluate()
        if not math.isfinite(losses.loss):
            raise self._diverged(losses.loss)
        is_best = losses.loss < run.best_loss
        run.evaluated = run.step
        run.n_worse = 0 if is_best else run.n_worse + 1
        yield Evaluated(
            step=run.step,
            loss=losses.loss,
            backbone_loss=losses.backbone,
            depth_loss=losses.depth,
            accuracy=losses.accuracy,
            is_best=is_best,
            n_items=len(self._held_out),
            seconds=time.perf_counter() - started,
        )
        if is_best:
            # The loss is noted when its weights are on the disk: an interrupt may hit in between.
            yield from self._save_best(losses.loss)

    def _sample(self) -> Iterator[TrainEvent]:
        if self._make_samples is not None:
            self.network.eval()
            # All are made before the first is handed out, so that nobody else sees the averaged weights.
            with self.use_average():
                spoken = list(self._make_samples(self.network, self._run.step))
            yield from spoken

    def _save(self) -> Iterator[TrainEvent]:
        if not len(self._held_out):
            yield from self._save_best()
        path = self.save()
        if path is not None:
            yield CheckpointSaved(self._run.step, path, "state")

    def _save_best(self, loss: float = math.inf) -> Iterator[TrainEvent]:
        if self._write_best is not None:
            with self.use_average():
                self._write_best(self.network, self.best_folder)
        self._run.best_loss = loss
        if self._write_best is not None:
            yield CheckpointSaved(self._run.step, self.best_folder, "best")
