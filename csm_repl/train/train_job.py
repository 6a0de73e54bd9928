"""`csm-repl train` from its options to its results: data, model, trainer, files. Heavy to import.

Prints nothing: everything goes to the display.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from csm_repl.errors import CsmReplError, ExitCode
from csm_repl.train.data.items import Item
from csm_repl.train.data.sources.registry import read_manifests
from csm_repl.train.data.sources.speakers import SPEAKERS_FILE, read_speakers
from csm_repl.train.events import CheckpointSaved, Evaluated, Finished, StepDone
from csm_repl.train.export.results import Weights, open_network
from csm_repl.train.files import write_json
from csm_repl.train.flags import TrainJob
from csm_repl.train.learn.loop import Trainer
from csm_repl.train.learn.network import TrainableCSM
from csm_repl.train.learn.sample_takes import TakeSampler
from csm_repl.train.options import TrainOptions
from csm_repl.train.report.dashboard import Dashboard
from csm_repl.train.report.display import Display
from csm_repl.train.report.log import LogFile
from csm_repl.train.report.metrics import MetricsFile
from csm_repl.train.run_folder import RunFolder
from csm_repl.train.setup import Base, open_base, read_items, summarise

__all__ = ["run_train_job"]


def run_train_job(job: TrainJob, display: Display) -> ExitCode:
    """Trains, or says what would be trained on.

    Raises:
        CsmReplError: usage, model, device, or a run that cannot go on.
    """
    manifest = read_manifests(
        job.sources,
        known=known_speakers(job),
        offline=job.settings.offline,
        token=job.settings.hf_token,
    )
    base = open_base(job, display)
    told: list[object] = []
    train, held_out = read_items(job, base, manifest, display, told)
    for note in summarise(train, held_out, base):
        display.handle(note)
        told.append(note)
    if job.dry_run:
        return ExitCode.OK
    return _Run(job, base, display, manifest.numbers).run(train, held_out, told)


def known_speakers(job: TrainJob) -> dict[str, int]:
    """Numbers of the run that goes on, else those of the model that is trained further."""
    noted = read_speakers(job.options.out / SPEAKERS_FILE) if job.resume else {}
    if not noted and job.scratch is None:
        noted = read_speakers(Path(job.settings.model).expanduser() / SPEAKERS_FILE)
    return noted


class _Run:
    def __init__(self, job: TrainJob, base: Base, display: Display, speakers: Mapping[str, int]) -> None:
        self._job = job
        self._base = base
        self._display = display
        # Of all that are known, with those that these data do not have.
        self._speakers = {**known_speakers(job), **speakers}
        self._folder = RunFolder(job.options.out)

    def run(self, train: Sequence[Item], held_out: Sequence[Item], told: Sequence[object]) -> ExitCode:
        """Trains; `told` is what was reported about the data, for the log."""
        job, base, folder, options = self._job, self._base, self._folder, self._job.options
        about = {
            "model": base.files.name,
            "revision": base.files.revision,
            "codec": base.codec.id,
            "data": list(job.sources),
        }
        goes_on, notice = folder.begin(options, job.data, about, resume=job.resume)
        write_json(folder.root / SPEAKERS_FILE, self._speakers)
        log = LogFile(folder.log, options.log_every)
        if notice:
            self._display.say(notice)
            log.say(notice)
        for event in told:
            log.add(event)
        weights = open_network(
            base.files,
            base.config,
            base.checkpoint,
            options,
            base.device,
            base_model=_name_of(base, job),
        )
        trainer = Trainer(
            weights.network,
            base.tokenizer,
            train,
            held_out,
            options,
            write_best=weights.write,
            make_samples=self._take_sampler(weights),
        )
        for left_out in trainer.left_out:
            self._display.handle(left_out)
            log.add(left_out)
        text = f"{_counted(weights.network)}, on {base.device}."
        self._display.say(text)
        log.say(text)
        reporters = self._reporters(fresh=not goes_on)
        with StopRequest() as stop:
            stopped = self._train(trainer, goes_on, log, reporters, stop)
            if stopped:
                return self._interrupted(trainer, log)
        for result in weights.results(folder):
            if isinstance(result, Path):
                write_json(result / SPEAKERS_FILE, self._speakers)
                log.add(CheckpointSaved(trainer.step, result, "result"))
                self._display.result(result)
            else:
                log.add(result)
                self._display.handle(result)
        return ExitCode.OK

    def _train(
        self, trainer: Trainer, goes_on: bool, log: LogFile, reporters: _Reporters, stop: StopRequest
    ) -> bool:
        """Whether Ctrl-C stopped it."""
        finished = False
        try:
            with reporters:
                for event in trainer.run(resume=goes_on):
                    self._display.handle(event)
                    log.add(event)
                    reporters.add(event)
                    finished = finished or isinstance(event, Finished)
                    if stop.requested:
                        trainer.stop()
        except KeyboardInterrupt:
            return True
        except CsmReplError as error:
            with contextlib.suppress(CsmReplError):
                log.say(str(error))
            raise
        finally:
            self._display.close()
        return not finished

    def _interrupted(self, trainer: Trainer, log: LogFile) -> ExitCode:
        saved = trainer.save()
        state = f"step {trainer.step} is saved" if saved else "the last saved state is kept"
        text = f"Stopped; {state}. The same command goes on from there."
        self._display.say(text)
        log.say(text)
        return ExitCode.INTERRUPTED

    def _take_sampler(self, weights: Weights) -> TakeSampler | None:
        options, base = self._job.options, self._base
        if not options.sample_every:
            return None
        return TakeSampler(
            self._folder.samples,
            options.sample_texts,
            tokenizer=base.tokenizer,
            codec=base.codec,
            state=weights.state,
            seed=options.seed,
        )

    def _reporters(self, *, fresh: bool) -> _Reporters:
        options, folder = self._job.options, self._folder
        mode = {"lora": "LoRA", "full": "full fine-tuning", "scratch": "from scratch"}[options.mode]
        return _Reporters(
            MetricsFile(folder.metrics, fresh=fresh), folder, f"{self._base.files.name}, {mode}", options
        )


class _Reporters:
    """Metrics, dashboard and, if asked for, TensorBoard."""

    def __init__(self, metrics: MetricsFile, folder: RunFolder, title: str, options: TrainOptions) -> None:
        self._metrics = metrics
        self._dashboard = Dashboard(folder.dashboard, title)
        self._board = None
        if options.tensorboard:
            from csm_repl.train.report.tensorboard import TensorBoardWriter

            self._board = TensorBoardWriter(folder.tensorboard)

    def __enter__(self) -> _Reporters:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # The error that ended the run is reported, not the one that a full disk causes here as well.
        with contextlib.suppress(*([] if kind is None else [CsmReplError])):
            self._dashboard.update(self._metrics.rows, final=True)
        if self._board is not None:
            self._board.close()

    def add(self, event: object) -> None:
        if isinstance(event, (StepDone, Evaluated)):
            self._metrics.add(event)
            self._dashboard.update(self._metrics.rows)
            if self._board is not None:
                self._board.add(event)


def _counted(network: TrainableCSM) -> str:
    sizes = [(value.numel(), value.requires_grad) for value in network.parameters()]
    n_trained = sum(n for n, is_trained in sizes if is_trained)
    return f"{n_trained:,} of {sum(n for n, _ in sizes):,} weights are trained"


def _name_of(base: Base, job: TrainJob) -> str:
    """The base model, as `--model` finds it again from any folder."""
    if base.files.revision is None:
        return str(base.files.folder.resolve())
    return job.settings.model


class StopRequest:
    """As a `with` block: the first Ctrl-C asks for a stop after the step, the second stops at once."""

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> StopRequest:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(TypeError):  # a handler that C code has set is None
            signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
