"""The picture of a run."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import numpy as np
import pytest

from csm_repl.train.report.metrics import MetricsFile
from tests.support.train_events import evaluated, step


def history(n_steps: int) -> MetricsFile:
    metrics = MetricsFile(Path(os.devnull), fresh=True)
    metrics._began = True
    for number in range(1, n_steps + 1):
        metrics.add(step(number, loss=3 + 5 * math.exp(-number / 30)))
        if number % 10 == 0:
            metrics.add(evaluated(number, loss=3.2 + 5 * math.exp(-number / 30)))
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
