"""A picture of a run: losses, held-out loss, accuracy, learning rate and gradient norm over the steps.

It is drawn from the rows of `metrics.csv` alone. matplotlib is imported when the first picture is drawn.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csm_repl.audio import write_bytes_atomic
from csm_repl.errors import UsageError

if TYPE_CHECKING:
    from csm_repl.train.report.metrics import MetricsRow

__all__ = ["Dashboard", "draw_dashboard"]

REDRAW_EVERY_S = 20.0
_MAX_DRAWING_SHARE = 0.02
"""Of the run's time; a slow machine redraws less often."""
_MAX_POINTS = 1500
"""A curve has no more; the picture has fewer pixels than that."""

_INK, _FAINT, _GRID = "#1d2733", "#67727e", "#e4e8ec"
# From a palette that stays apart for colour-blind readers (Okabe and Ito).
_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072b2", "#d55e00", "#009e73", "#9a4f96"


class Dashboard:
    """Keeps a PNG up to date.

    Args:
        path: the file; it is replaced whole.
        title: of the picture.
    """

    def __init__(self, path: Path, title: str) -> None:
        self._path = path
        self._title = title
        self._next = 0.0

    def update(self, rows: Sequence[MetricsRow], *, final: bool = False) -> None:
        """Draws again if it is time to, or in any case where `final`. OutputError where it fails."""
        started = time.monotonic()
        if not rows or (started < self._next and not final):
            return
        write_bytes_atomic(self._path, draw_dashboard(rows, self._title), replace=True)
        taken = time.monotonic() - started
        self._next = time.monotonic() + max(REDRAW_EVERY_S, taken / _MAX_DRAWING_SHARE)


def draw_dashboard(rows: Sequence[MetricsRow], title: str) -> bytes:
    """The picture as PNG.

    Raises:
        UsageError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise UsageError(
            "Drawing the dashboard needs matplotlib, which is not installed.",
            "Install it with: pip install 'csm-repl[train]'",
        ) from error
    style = {
        "font.size": 9,
        "text.color": _INK,
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _FAINT,
        "axes.titleweight": "bold",
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": _GRID,
        "grid.linewidth": 0.8,
        "xtick.color": _FAINT,
        "ytick.color": _FAINT,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "round",
    }
    with rc_context(style):
        # Without pyplot: no figure is kept anywhere, and no display is looked for.
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12)
        figure = Figure(figsize=(12, 7.2), dpi=110, layout=layout, facecolor="white")
        FigureCanvasAgg(figure)
        _draw(figure, rows, title)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _draw(figure: Any, rows: Sequence[MetricsRow], title: str) -> None:
    steps = [row for row in rows if "loss" in row]
    evaluations = [row for row in rows if "held_out_loss" in row]
    figure.suptitle(_headline(steps, evaluations, title), x=0.01, ha="left", fontsize=12, fontweight="bold")
    axes = figure.subplots(2, 3)
    span = max((row["step"] for row in rows), default=1.0)

    total = axes[0, 0]
    total.set_title("Loss (weighted sum, nats)")
    _curve(total, steps, "loss", _BLUE, "training")
    _evaluation_curve(total, evaluations, "held_out_loss", _ORANGE, "held out", best=True)

    backbone = axes[0, 1]
    backbone.set_title("Codebook 0 (backbone, nats)")
    _curve(backbone, steps, "backbone_loss", _BLUE, "training")
    _evaluation_curve(backbone, evaluations, "held_out_backbone_loss", _ORANGE, "held out")

    depth = axes[0, 2]
    depth.set_title("Codebooks 1 and up (depth decoder, nats)")
    _curve(depth, steps, "depth_loss", _BLUE, "training")
    _evaluation_curve(depth, evaluations, "held_out_depth_loss", _ORANGE, "held out")

    accuracy = axes[1, 0]
    accuracy.set_title("Accuracy of codebook 0")
    _curve(accuracy, steps, "accuracy", _BLUE, "training")
    _evaluation_curve(accuracy, evaluations, "held_out_accuracy", _ORANGE, "held out")
    accuracy.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    accuracy.set_ylim(bottom=0)

    rate = axes[1, 1]
    rate.set_title("Learning rate")
    x, y = _points(steps, "lr")
    rate.plot(x, y, color=_GREEN, marker="o" if len(x) == 1 else "", markersize=3.5)
    rate.yaxis.set_major_formatter(lambda value, _: _scientific(value))
    rate.set_ylim(bottom=0)

    gradient = axes[1, 2]
    gradient.set_title("Gradient norm, before clipping")
    gradient.set_yscale("log")
    _curve(gradient, steps, "grad_norm", _PURPLE, "")
    _plain_log_ticks(gradient)

    for row in axes:
        for axis in row:
            axis.set_xlim(0, span * 1.02)
            axis.tick_params(which="both", length=0)
            axis.xaxis.set_major_formatter(lambda value, _: _thousands(value))
            axis.locator_params(axis="x", nbins=6)
    for axis in axes[1]:
        axis.set_xlabel("step")
    for axis in (total, backbone, depth):
        _zoom(axis)
    for axis in (total, backbone, depth, accuracy):
        handles, labels = axis.get_legend_handles_labels()
        if handles:
            axis.legend(handles, labels, loc="lower right" if axis is accuracy else "upper right")


def _headline(steps: Sequence[MetricsRow], evaluations: Sequence[MetricsRow], title: str) -> str:
    parts = [title]
    if steps:
        last = steps[-1]
        parts.append(f"step {last['step']:,.0f}, epoch {last['epoch']:.2f}")
    if evaluations:
        best = min(evaluations, key=lambda row: row["held_out_loss"])
        parts.append(f"best held-out loss {best['held_out_loss']:.3f} at step {best['step']:,.0f}")
    return "   ·   ".join(parts)


def _curve(axis: Any, rows: Sequence[MetricsRow], column: str, color: str, label: str) -> None:
    """The values, faint, and their smoothed course."""
    x, y = _points(rows, column)
    if not x:
        return
    smooth_enough = len(x) >= 8
    axis.plot(x, y, color=color, alpha=0.22 if smooth_enough else 1.0, linewidth=0.9, label="_raw")
    marker = "o" if len(x) == 1 else ""
    course = _smoothed(y) if smooth_enough else y
    axis.plot(x, course, color=color, label=label or "_course", marker=marker, markersize=3.5)


def _evaluation_curve(
    axis: Any, rows: Sequence[MetricsRow], column: str, color: str, label: str, *, best: bool = False
) -> None:
    x, y = _points(rows, column)
    if not x:
        return
    few = len(x) <= 60
    axis.plot(x, y, color=color, label=label, marker="o" if few else "", markersize=3.5)
    if best:
        index = min(range(len(y)), key=y.__getitem__)
        axis.plot(
            x[index], y[index], marker="o", markersize=9, markerfacecolor="none", color=color, label="_best"
        )


def _points(rows: Sequence[MetricsRow], column: str) -> tuple[list[float], list[float]]:
    """Steps and finite values; of a long run the means of as many bins as the picture can show."""
    points = [(row["step"], row[column]) for row in rows if column in row and math.isfinite(row[column])]
    size = -(-len(points) // _MAX_POINTS)
    if size > 1:
        bins = [points[start : start + size] for start in range(0, len(points), size)]
        points = [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in bins]
    return [x for x, _ in points], [y for _, y in points]


def _smoothed(values: Sequence[float]) -> list[float]:
    """Exponential average over a thirtieth of the run, of both sides, so that it does not lag."""
    keep = 1 - 1 / max(2.0, len(values) / 30)
    before = _sums(values, keep)
    after = reversed(_sums(list(reversed(values)), keep))
    # By their weights: at either end one side is a single step, which would pull the curve to it.
    return [
        (total + other) / (weight + other_weight)
        for (total, weight), (other, other_weight) in zip(before, after, strict=True)
    ]


def _sums(values: Sequence[float], keep: float) -> list[tuple[float, float]]:
    """Of each value and those before it: sum with fading weights, and sum of the weights."""
    total, weight, out = 0.0, 0.0, []
    for value in values:
        total = keep * total + value
        weight = keep * weight + 1
        out.append((total, weight))
    return out


def _zoom(axis: Any) -> None:
    """Leaves the first few steps' heights out of a long run's picture, where they would flatten the rest."""
    lines = [line for line in axis.get_lines() if len(line.get_ydata()) > 1]
    values = sorted(value for line in lines for value in line.get_ydata())
    if len(values) < 20:
        return
    low, high = values[0], values[int(0.995 * (len(values) - 1))]
    margin = 0.06 * (high - low) or 0.1
    axis.set_ylim(low - margin, high + margin)


def _plain_log_ticks(axis: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _scientific(value: float) -> str:
    if value <= 0:
        return "0"
    exponent = math.floor(math.log10(value) + 1e-9)
    return f"{value / 10**exponent:.3g}e{exponent}"


def _thousands(value: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:g}"
