"""The lines of train.log, and the pace."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from csm_repl.train.events import CheckpointSaved, Finished, LeftOut, Reading, Sampled
from csm_repl.train.report.log import LogFile, LogFormatter, Pace, duration
from tests.support.train_events import evaluated, step


def lines(*events: object, log_every: int = 10) -> list[str]:
    log = LogFormatter(log_every)
    return [line for event in events for line in log.lines(event)]


def test_every_so_many_steps_one_line_with_the_means_of_the_last_steps() -> None:
    shown = lines(*(step(number, loss=float(number)) for number in range(1, 21)))
    assert [line.split()[1] for line in shown] == ["1/100", "10/100", "20/100"]
    assert "loss 15.5000 (5.1667 + 10.3333)" in shown[-1]
    assert "lr 1.00e-04" in shown[-1]
    assert "items/s" in shown[-1]
    assert shown[-1].endswith(" left")


def test_every_other_event_has_its_line() -> None:
    shown = lines(
        evaluated(3),
        replace(evaluated(4), is_best=False),
        Sampled(3, Path("a.wav"), "Hello.", 1.25, ended=False),
        CheckpointSaved(3, Path("state.pt"), "state"),
        LeftOut("a.wav", "It is empty.", "Record it."),
        Reading(3, 3, 1, 65.0, 0.5),
        Reading(2, 3, 1, 65.0, 0.5),
        Finished(9, "all 9 steps are done", 3.25, 3700.0),
        Finished(9, "all 9 steps are done", math.inf, 37.0),
    )
    assert shown == [
        "step 3: held-out loss 3.5000 (codebook 0: 1.5000, others: 2.0000), accuracy 20.0%, the best so far",
        "step 4: held-out loss 3.5000 (codebook 0: 1.5000, others: 2.0000), accuracy 20.0%",
        "step 3: sample a.wav (1.2 s, cut): Hello.",
        "step 3: saved state.pt (state)",
        "left out: a.wav: It is empty. Record it.",
        "read 3 utterances, 1:05 min of sound, 1 of them encoded now, in 0.5 s",
        "step 9: finished after 1:01 h: all 9 steps are done, best held-out loss 3.2500",
        "step 9: finished after 37.0 s: all 9 steps are done",
    ]


def test_the_log_has_times_and_one_line_each(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "train.log", 1)
    log.add(step(1))
    log.say("Two\nlines\ud800.")
    first, second = (tmp_path / "train.log").read_text().splitlines()
    assert first[4] == "-"
    assert second.endswith("  Two lines?.")


def test_the_rest_is_judged_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = Pace()
    pace.add(step(1))
    assert pace.now().eta_s is None
    for number in range(2, 11):
        now += 2.0  # longer than the steps themselves say
        pace.add(step(number))
    assert pace.now().items_per_s == pytest.approx(40 / 18.5)
    assert pace.now().eta_s == pytest.approx(90 * 18.5 / 10)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (59.94, "59.9 s"), (60, "1:00 min"), (3599.4, "59:59 min"), (9000, "2:30 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
