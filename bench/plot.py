"""Draws results of other benchmarks as one picture.

    python -m bench.plot frame-*.json [conversation-*.json] [batch-*.json] [--to docs/performance.png]

Panels: what a second of speech costs per peer, with the limit that the memory's bandwidth sets; the first
frame of turn 1 to 20; throughput of takes side by side. A panel whose file is not given is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.frame import FRAME_S

OURS, PLAIN, THEIRS, GREY = "#2a6f97", "#9dc3d9", "#c58b3b", "#777777"
NAMES = {"ours": "csm-repl", "plain": "csm-repl, PyTorch's kernels", "original": "original's structure"}


def draw_frame(axes: Axes, content: dict[str, Any]) -> None:
    rows = content["summaries"]
    bandwidth = content["read_bandwidth_gb_s"]
    names = list(rows)[::-1]
    factors = [rows[name]["frame_s"] / FRAME_S for name in names]
    colours = [{"ours": OURS, "plain": PLAIN}.get(name.partition("-")[0], THEIRS) for name in names]
    axes.barh([_label(name) for name in names], factors, color=colours)
    for index, (name, factor) in enumerate(zip(names, factors, strict=True)):
        axes.text(factor, index, f" {factor:.2f}", va="center")
        if bandwidth:
            limit = content["bytes_per_frame"][name] / 1e9 / bandwidth / FRAME_S
            label = "limit: weights' bytes / bandwidth" if index == 0 else None
            axes.plot([limit, limit], [index - 0.4, index + 0.4], color="black", lw=2, label=label)
    axes.axvline(1.0, color=GREY, ls="--", lw=1, label="real time")
    axes.set_xlim(0, 1.15 * max(factors))
    axes.set_xlabel("seconds of work per second of speech, without codec")
    axes.set_title("One take, 500 positions of context")
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, 0.9), fontsize="small")


def _label(peer: str) -> str:
    name, _, mode = peer.partition("-")
    return f"{NAMES.get(name, name)}, {mode or 'bfloat16'}"


def draw_conversation(axes: Axes, content: dict[str, Any]) -> None:
    for peer, turns in content["results"].items():
        if "failed" in turns:
            continue
        colour = THEIRS if peer == "transformers" else OURS
        style = ":" if peer == "uncached" else "-"
        label = {"cached": "csm-repl", "uncached": "csm-repl, cache emptied"}.get(peer, peer)
        numbers = range(1, 1 + len(turns))
        axes.plot(numbers, [turn["first_frame_s"] for turn in turns], style, color=colour, label=label)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("turn")
    axes.set_ylabel("seconds to the first frame")
    axes.set_title("A conversation")
    axes.legend(fontsize="small")


def draw_batch(axes: Axes, content: dict[str, Any]) -> None:
    modes = {mode: found for mode, found in content["results"].items() if "failed" not in found}
    for (mode, found), style in zip(modes.items(), ("o-", "s-", "^-", "d-"), strict=False):
        rows = [int(name) for name in found if name != "single"]
        axes.plot(
            rows, [found[str(n)]["times_real_time"] for n in rows], style, color=OURS,
            alpha=0.4 + 0.6 * list(modes).index(mode) / max(1, len(modes) - 1),
            label="bfloat16" if mode == "none" else mode,
        )  # fmt: skip
    axes.axhline(1.0, color=GREY, ls="--", lw=1, label="real time")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("takes side by side")
    axes.set_ylabel("seconds of speech per second")
    axes.set_title("Throughput")
    axes.legend(fontsize="small")


PANELS: dict[str, Callable[[Axes, dict[str, Any]], None]] = {
    "frame": draw_frame,
    "conversation": draw_conversation,
    "batch": draw_batch,
}


def draw(files: list[Path], to: Path) -> None:
    """Writes a PNG with one panel per file; a file's benchmark is the first word of its name."""
    panels = [(PANELS[path.name.partition("-")[0]], json.loads(path.read_text())) for path in files]
    figure, axes = plt.subplots(1, len(panels), figsize=(5.6 * len(panels), 3.8), squeeze=False)
    for place, (panel, content) in zip(axes[0], panels, strict=True):
        panel(place, content)
    machine = panels[0][1]["machine"]
    figure.suptitle(
        f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, {machine['date']}",
        fontsize="small",
        color=GREY,
    )
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+", help="results, in the panels' order")
    parser.add_argument("--to", type=Path, default=Path(__file__).parents[1] / "docs" / "performance.png")
    arguments = parser.parse_args()
    unknown = [path.name for path in arguments.files if path.name.partition("-")[0] not in PANELS]
    if unknown:
        parser.error(f"no panel for {', '.join(unknown)}; there are {', '.join(PANELS)}")
    draw(arguments.files, arguments.to)
    print(f"written: {arguments.to}")


if __name__ == "__main__":
    main()
