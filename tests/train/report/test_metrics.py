"""The rows of metrics.csv."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.errors import OutputError
from csm_repl.train.report.log import LogFile
from csm_repl.train.report.metrics import COLUMNS, MetricsFile, read_metrics
from tests.support.train_events import evaluated, step


def steps_of(path: Path) -> list[tuple[int, str]]:
    """(step, which kind of row) as the file has them."""
    return [(int(row["step"]), "step" if "loss" in row else "evaluation") for row in read_metrics(path)]


def test_a_row_is_on_the_disk_as_soon_as_its_step_is_done(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.csv", fresh=True)
    metrics.add(step(1, 3.14159265))
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        ",".join(COLUMNS),
        "1,0.02,3.141593,1.047198,2.094395,0.25,0.0001,1.5,4,200,0.5,,,,",
    ]
    metrics.add(evaluated(1))
    assert steps_of(tmp_path / "metrics.csv") == [(1, "step"), (1, "evaluation")]


@given(
    n_before=st.integers(1, 30), every=st.integers(1, 5), back=st.integers(0, 30), n_after=st.integers(1, 10)
)
def test_a_run_that_goes_on_has_every_step_once(
    tmp_path_factory: pytest.TempPathFactory, n_before: int, every: int, back: int, n_after: int
) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.csv"
    saved = max(0, n_before - back)  # the state's step: what came after it is done again

    def run(metrics: MetricsFile, first: int, last: int) -> None:
        for number in range(first, last + 1):
            metrics.add(step(number))
            if number % every == 0:
                metrics.add(evaluated(number))

    run(MetricsFile(path, fresh=True), 1, n_before)
    run(MetricsFile(path, fresh=False), saved + 1, saved + n_after)
    once = path.with_name("once.csv")
    run(MetricsFile(once, fresh=True), 1, saved + n_after)
    assert path.read_text() == once.read_text()


def test_a_run_that_goes_on_with_a_look_drops_the_same_look(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path, fresh=True)
    first.add(step(1))
    first.add(evaluated(1))
    MetricsFile(path, fresh=False).add(evaluated(1, loss=9.0))
    assert steps_of(path) == [(1, "step"), (1, "evaluation")]
    assert read_metrics(path)[-1]["held_out_loss"] == 9.0


def test_a_line_that_a_kill_cut_off_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    metrics = MetricsFile(path, fresh=True)
    metrics.add(step(1))
    metrics.add(step(2))
    path.write_text(path.read_text()[:-20])
    MetricsFile(path, fresh=False).add(step(2))
    assert steps_of(path) == [(1, "step"), (2, "step")]


def test_a_new_run_forgets_the_old_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    MetricsFile(path, fresh=True).add(step(7))
    MetricsFile(path, fresh=True).add(step(9))
    assert steps_of(path) == [(9, "step")]


def test_a_file_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        MetricsFile(tmp_path / "nowhere" / "metrics.csv", fresh=True).add(step(1))
    (tmp_path / "train.log").mkdir()
    with pytest.raises(OutputError, match=os.strerror(21)):
        LogFile(tmp_path / "train.log", 1).say("Hello.")
