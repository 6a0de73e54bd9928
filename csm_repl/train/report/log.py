"""`train.log`: a run's events as lines with their time, for the file and for a plain display."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from csm_repl.audio import output_error
from csm_repl.train.events import (
    CheckpointSaved,
    Evaluated,
    Finished,
    LeftOut,
    LeftOutTotal,
    Note,
    Reading,
    Sampled,
    SpeakerTable,
    StepDone,
)

__all__ = ["LogFile", "LogFormatter", "Pace", "duration", "speaker_lines"]

_NOBODY = "(nobody named)"
_MOST_NAME = 32


@dataclass(frozen=True)
class PaceNow:
    loss: float
    """Mean of the last steps, as are all the others."""
    backbone_loss: float
    depth_loss: float
    accuracy: float
    grad_norm: float
    items_per_s: float
    eta_s: float | None
    """None while nothing can be said."""


class Pace:
    """Means over the last steps, and when the run will be over."""

    def __init__(self, n_steps: int = 50) -> None:
        self._recent: deque[StepDone] = deque(maxlen=n_steps)
        self._times: deque[float] = deque(maxlen=n_steps + 1)

    def add(self, event: StepDone) -> None:
        if not self._times:
            self._times.append(time.monotonic() - event.seconds)
        self._times.append(time.monotonic())
        self._recent.append(event)

    def now(self) -> PaceNow:
        """After at least one `add`."""
        steps = list(self._recent)
        n, last = len(steps), steps[-1]
        # By the clock and not by the steps' own times: evaluations, samples and saves take time too.
        elapsed = max(self._times[-1] - self._times[0], 1e-9)
        left = max(0, last.n_steps - last.step)
        return PaceNow(
            loss=sum(step.loss for step in steps) / n,
            backbone_loss=sum(step.backbone_loss for step in steps) / n,
            depth_loss=sum(step.depth_loss for step in steps) / n,
            accuracy=sum(step.accuracy for step in steps) / n,
            grad_norm=sum(step.grad_norm for step in steps) / n,
            items_per_s=sum(step.n_items for step in steps) / elapsed,
            eta_s=left * elapsed / (len(self._times) - 1) if n > 1 or not left else None,
        )


class LogFormatter:
    """Turns events into lines, for `train.log` and where there is no terminal.

    Args:
        log_every: steps between two lines.
    """

    def __init__(self, log_every: int) -> None:
        self._every = log_every
        self._pace = Pace(max(10, log_every))

    def lines(self, event: object) -> Iterator[str]:
        """None, one, or those of a table."""
        if isinstance(event, StepDone):
            self._pace.add(event)
            if event.step % self._every == 0 or event.step in (1, event.n_steps):
                yield self._step(event)
        elif isinstance(event, Evaluated):
            best = ", the best so far" if event.is_best else ""
            yield (
                f"step {event.step}: held-out loss {event.loss:.4f} (codebook 0: {event.backbone_loss:.4f}, "
                f"others: {event.depth_loss:.4f}), accuracy {event.accuracy:.1%}{best}"
            )
        elif isinstance(event, Sampled):
            ended = "" if event.ended else ", cut"
            yield f"step {event.step}: sample {event.path} ({event.seconds:.1f} s{ended}): {event.text}"
        elif isinstance(event, CheckpointSaved):
            yield f"step {event.step}: saved {event.path} ({event.kind})"
        elif isinstance(event, Finished):
            best = f", best held-out loss {event.best_loss:.4f}" if event.best_loss < float("inf") else ""
            yield f"step {event.step}: finished after {duration(event.seconds)}: {event.reason}{best}"
        elif isinstance(event, LeftOut):
            yield f"left out: {event.name}: {event.cause} {event.remedy}".rstrip()
        elif isinstance(event, LeftOutTotal):
            reasons = "; ".join(f"{n:,} × {cause} (first: {name})" for cause, n, name in event.reasons)
            yield f"Left out {event.n:,} of {event.n_total:,}: {reasons}"
        elif isinstance(event, SpeakerTable):
            yield from speaker_lines(event)
        elif isinstance(event, Note):
            yield event.text
        elif isinstance(event, Reading) and event.n_done == event.n_total:
            yield (
                f"read {event.n_total} utterances, {duration(event.sound_s)} of sound, "
                f"{event.n_encoded} of them encoded now, in {duration(event.seconds)}"
            )

    def _step(self, event: StepDone) -> str:
        now = self._pace.now()
        eta = "" if now.eta_s is None else f"  {duration(now.eta_s)} left"
        return (
            f"step {event.step}/{event.n_steps}  epoch {event.epoch:.2f}  loss {now.loss:.4f} "
            f"({now.backbone_loss:.4f} + {now.depth_loss:.4f})  accuracy {now.accuracy:.1%}  "
            f"lr {event.lr:.2e}  gradient {now.grad_norm:.2f}  {now.items_per_s:.1f} items/s{eta}"
        )


class LogFile:
    """`train.log`: the lines with their time. OutputError where it cannot be written."""

    def __init__(self, path: Path, log_every: int) -> None:
        self._path = path
        self._log = LogFormatter(log_every)

    def add(self, event: object) -> None:
        for line in self._log.lines(event):
            self.say(line)

    def say(self, text: str) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            with self._path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{now}  {' '.join(text.split())}\n")
        except OSError as error:
            raise output_error(self._path, error) from error


def speaker_lines(table: SpeakerTable, most: int | None = None) -> Iterator[str]:
    """The table as text, by number.

    Args:
        table: the speakers.
        most: rows to show; the rest are counted. None: all.
    """
    rows = sorted(table.rows, key=lambda row: row[1])
    if [name for name, _, _ in rows] == [""]:
        yield "Speakers: no folder or list names one, so all clips are speaker 0."
        return
    shown = [(_short(name) or _NOBODY, number, n) for name, number, n in rows[:most]]
    yield "Speakers:"
    width = max(len(name) for name, _, _ in shown)
    for name, number, n in shown:
        yield f"  {name:{width}}  ->  speaker {number}  ({n:,} {'clip' if n == 1 else 'clips'})"
    if len(rows) > len(shown):
        yield f"  and {len(rows) - len(shown):,} more; -v lists them all"


def _short(name: str) -> str:
    """Common Voice calls its speakers by 128 digits."""
    return name if len(name) <= _MOST_NAME else f"{name[: _MOST_NAME - 1]}…"


def duration(seconds: float) -> str:
    """`8.1 s`, `4:05 min` or `2:30 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
