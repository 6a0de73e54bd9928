"""metrics.csv, train.log, the pace, and the picture."""

from __future__ import annotations

import io
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.errors import OutputError
from csm_repl.train.events import Evaluated, Finished, LeftOut, Reading, Sampled, Saved, StepDone
from csm_repl.train.report.log import COLUMNS, LogFile, MetricsFile, Pace, RunLog, duration, read_metrics


def step(number: int, loss: float = 3.0) -> StepDone:
    return StepDone(
        step=number, n_steps=100, epoch=number / 50, loss=loss, backbone_loss=loss / 3,
        depth_loss=2 * loss / 3, accuracy=0.25, lr=1e-4, grad_norm=1.5, n_items=4, n_frames=200, seconds=0.5,
    )  # fmt: skip


def look(number: int, loss: float = 3.5) -> Evaluated:
    return Evaluated(number, loss, 1.5, 2.0, 0.2, is_best=True, n_items=3, seconds=1.0)


def steps_of(path: Path) -> list[tuple[int, str]]:
    """(step, which kind of row) as the file has them."""
    return [(int(row["step"]), "step" if "loss" in row else "look") for row in read_metrics(path)]


# --- metrics.csv


def test_a_row_is_on_the_disk_as_soon_as_its_step_is_done(tmp_path: Path) -> None:
    metrics = MetricsFile(tmp_path / "metrics.csv", fresh=True)
    metrics.add(step(1, 3.14159265))
    assert (tmp_path / "metrics.csv").read_text().splitlines() == [
        ",".join(COLUMNS),
        "1,0.02,3.141593,1.047198,2.094395,0.25,0.0001,1.5,4,200,0.5,,,,",
    ]
    metrics.add(look(1))
    assert steps_of(tmp_path / "metrics.csv") == [(1, "step"), (1, "look")]


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
                metrics.add(look(number))

    run(MetricsFile(path, fresh=True), 1, n_before)
    run(MetricsFile(path, fresh=False), saved + 1, saved + n_after)
    once = path.with_name("once.csv")
    run(MetricsFile(once, fresh=True), 1, saved + n_after)
    assert path.read_text() == once.read_text()


def test_a_run_that_goes_on_with_a_look_drops_the_same_look(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path, fresh=True)
    first.add(step(1))
    first.add(look(1))
    MetricsFile(path, fresh=False).add(look(1, loss=9.0))
    assert steps_of(path) == [(1, "step"), (1, "look")]
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


# --- lines


def lines(*events: object, log_every: int = 10) -> list[str]:
    log = RunLog(log_every)
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
        look(3),
        replace(look(4), is_best=False),
        Sampled(3, Path("a.wav"), "Hello.", 1.25, ended=False),
        Saved(3, Path("state.pt"), "state"),
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


# --- the picture


def history(n_steps: int) -> MetricsFile:
    metrics = MetricsFile(Path(os.devnull), fresh=True)
    metrics._began = True
    for number in range(1, n_steps + 1):
        metrics.add(step(number, loss=3 + 5 * math.exp(-number / 30)))
        if number % 10 == 0:
            metrics.add(look(number, loss=3.2 + 5 * math.exp(-number / 30)))
    return metrics


def picture(data: bytes) -> np.ndarray:
    """[H, W, RGB] in 0..1."""
    matplotlib_image = pytest.importorskip("matplotlib.image")
    return matplotlib_image.imread(io.BytesIO(data), format="png")[..., :3]


@pytest.mark.parametrize("n_steps", [1, 3, 200, 5000])
def test_the_dashboard_is_a_picture_with_six_panels(n_steps: int) -> None:
    from csm_repl.train.report.dashboard import draw_dashboard

    data = draw_dashboard(history(n_steps).rows, "run")
    assert data.startswith(b"\x89PNG")
    assert 20_000 < len(data) < 500_000
    image = picture(data)
    height, width, _ = image.shape
    assert (width, height) == (1320, 792)
    coloured = np.ptp(image, axis=2) > 0.2
    for row in range(2):
        for column in range(3):
            panel = coloured[row * height // 2 : (row + 1) * height // 2]
            assert panel[:, column * width // 3 : (column + 1) * width // 3].sum() > 10


def test_it_shows_both_losses_the_held_out_loss_accuracy_rate_and_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from csm_repl.train.report import dashboard

    figures = []
    draw = dashboard._draw
    monkeypatch.setattr(
        dashboard, "_draw", lambda figure, *rest: (figures.append(figure), draw(figure, *rest))
    )
    dashboard.draw_dashboard(history(40).rows, "run")
    [figure] = figures
    titles = [axis.get_title(loc="left") for axis in figure.axes]
    assert titles == [
        "Loss (weighted sum, nats)",
        "Codebook 0 (backbone, nats)",
        "Codebooks 1 and up (depth decoder, nats)",
        "Accuracy of codebook 0",
        "Learning rate",
        "Gradient norm, before clipping",
    ]
    for axis in figure.axes[:4]:
        assert axis.get_legend_handles_labels()[1] == ["training", "held out"]
    assert figure.axes[5].get_yscale() == "log"
    assert "best held-out loss" in figure.get_suptitle()


def test_numbers_that_are_none_are_left_out_of_the_picture() -> None:
    from csm_repl.train.report.dashboard import draw_dashboard

    rows = history(20).rows
    rows[3] = {**rows[3], "loss": math.nan, "grad_norm": math.inf}
    assert draw_dashboard(rows, "run").startswith(b"\x89PNG")


def test_it_is_redrawn_now_and_then_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from csm_repl.train.report import dashboard

    now = 0.0
    drawn = []
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr(dashboard, "draw_dashboard", lambda rows, title: drawn.append(len(rows)) or b"png")
    board = dashboard.Dashboard(tmp_path / "dashboard.png", "run")
    board.update([])
    rows = [{"step": 1.0}]
    for now in (1.0, 2.0, 20.0, 22.0, 23.0):  # noqa: B007 - read by the clock
        board.update(rows)
    assert len(drawn) == 2
    board.update(rows, final=True)
    assert len(drawn) == 3
    assert (tmp_path / "dashboard.png").read_bytes() == b"png"


# --- TensorBoard


class FakeWriter:
    """Keeps what it is told."""

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, {}, False
        FakeWriter.last = self

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name, step] = value

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_both_curves_under_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    from csm_repl.train.report.tensorboard import Board

    board = Board(tmp_path)
    board.add(step(7))
    board.add(look(7))
    board.close()
    writer = FakeWriter.last
    assert writer.purge_step == 7  # steps from here on are done again
    assert writer.scalars["training/loss", 7] == 3.0
    assert writer.scalars["held_out/loss", 7] == 3.5
    assert writer.closed


def test_without_tensorboard_the_command_to_install_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from csm_repl.errors import UsageError

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    from csm_repl.train.report.tensorboard import Board

    with pytest.raises(UsageError, match="pip install tensorboard"):
        Board(tmp_path)
