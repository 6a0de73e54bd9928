"""Seconds from starting the program to its prompt, per mode, with converted weights cached.

    python -m bench.startup [--model DIR] [--modes none,int8,int4] [--rounds 3] [--cold] [--patience 60]

Starts the real console on a pseudo-terminal, as a user would, and waits for its prompt. Without --model a
full-size model with random weights is made (and kept, see `bench/models.py`). A mode's first start converts
and writes the cache, and is reported apart; the others map the cached file, which the system still has in
memory unless --cold drops it. The cache of each mode is 1.5 to 3.1 GB and deleted afterwards. Prints a table
and writes `bench/results/startup-*.json`. Needs the test extra.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench.machine import machine_facts, wait_until_idle
from bench.models import RANDOM_FOLDER, random_model
from bench.parts import MODES
from bench.report import print_machine, write_results
from tests.support.terminal import CTRL_D, Terminal, program

PROMPT = r"^(speaker \d+|\d+ \S+)>$"
LIMIT_S = 900.0


def start(model: Path, mode: str, home: Path, limit_s: float = LIMIT_S) -> dict[str, float]:
    """One start: seconds to the prompt, and how many of them the program itself calls loading."""
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_STATE_HOME": str(home / "state"),
        "TERM": "xterm-256color",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    command = program("--model", str(model), "--offline", "--quantize", mode, "--no-play")
    command += ["--references", str(home / "references"), "--output", str(home / "outputs")]
    started = time.perf_counter()
    terminal = Terminal(command, cwd=home, env=environment)
    try:
        terminal.see(PROMPT, timeout_s=limit_s)
        prompt_s = time.perf_counter() - started
        loading = re.search(r"Ready in ([\d.]+) s", terminal.text)
        terminal.send(CTRL_D)
        terminal.exit_code()
    finally:
        terminal.close()
    return {"prompt_s": prompt_s, "loading_s": float(loading[1]) if loading else float("nan")}


def drop_from_memory(folders: list[Path]) -> None:
    """Makes the system read the files' content from the disk next time; what is mapped stays."""
    os.sync()
    for path in (path for folder in folders for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def measure(
    model: Path, mode: str, *, rounds: int, cold: bool, patience_s: float
) -> Iterator[dict[str, float]]:
    """The first start and `rounds` more."""
    with tempfile.TemporaryDirectory(prefix="csm-startup-") as folder:
        home = Path(folder)
        for name in ("references", "cache", "state"):
            (home / name).mkdir()
        for _ in range(1 + rounds):
            if cold:
                drop_from_memory([model.resolve(), home / "cache"])
            wait_until_idle(patience_s)
            yield start(model, mode, home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--folder", type=Path, default=RANDOM_FOLDER, help="of the random model")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="drop the files from memory before each start")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for an idle machine")
    arguments = parser.parse_args()
    model = (arguments.model or random_model(arguments.folder)).resolve()
    print_machine(machine_facts())
    print(model.name)
    results: dict[str, list[dict[str, float]]] = {}
    for mode in arguments.modes.split(","):
        results[mode] = []
        for taken in measure(
            model, mode, rounds=arguments.rounds, cold=arguments.cold, patience_s=arguments.patience
        ):
            results[mode].append(taken)
            print(f"{mode}: {taken['prompt_s']:.1f} s to the prompt", file=sys.stderr, flush=True)
    print("\n| | first start s | later, to the prompt s | of it loading s |")
    print("|---|---|---|---|")
    for mode, (first, *later) in results.items():
        prompt_s, loading_s = (
            statistics.median(taken[key] for taken in later) if later else float("nan")
            for key in ("prompt_s", "loading_s")
        )
        print(f"| {mode} | {first['prompt_s']:.1f} | {prompt_s:.1f} | {loading_s:.1f} |")
    write_results("startup", {"model": model.name, "results": results})


if __name__ == "__main__":
    main()
