"""Seconds that text costs: writing a megabyte out in words, `--dry-run` of 1,000 lines, `--help`.

    python -m bench.text [FILE...] [--rounds 5]

FILEs are English text, as Debian's `fortunes` (/usr/share/games/fortunes/*.u8) is; without any, the tests'
cases stand for them. A megabyte of those cases, which are all numbers and signs, is timed in any case. The
dry run reads sentences of the files, and lines of two turns with three numbers each. Prints medians, the
range in brackets, of CPU seconds, and of a command also from start to end; writes
`bench/results/text-*.json`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.machine import machine_facts
from bench.report import print_machine, print_table, write_results
from csm_repl.text.normalise import normalise
from tools.said_changes import sentences
from tools.said_table import table

ROOT = Path(__file__).parents[1]
Seconds = dict[str, list[float]]
"""`cpu`, and of a command `wall`: one figure a round."""


def lines_with_numbers(n_lines: int) -> list[str]:
    """Lines of two turns with three numbers each."""
    return [
        f"Flight {100 + i} leaves at 10:{i % 60:02d} and costs ${i}.50. || "
        f"We met on {1 + i % 28} May {1984 + i % 40} at gate {i % 60}.1"
        for i in range(n_lines)
    ]


def normalising(lines: Sequence[str], *, n_bytes: int, rounds: int) -> Seconds:
    """CPU seconds of `normalise` on `n_bytes` of the lines, which are repeated as needed."""
    taken, size = [], 0
    for line in itertools.cycle(lines):
        taken.append(line)
        size += len(line.encode()) + 1
        if size >= n_bytes:
            break
    found = []
    for _ in range(rounds):
        began = time.process_time()
        for line in taken:
            normalise(line)
        found.append(time.process_time() - began)
    return {"cpu": found}


def command(words: Sequence[str], *, rounds: int) -> Seconds:
    """Seconds of the program with these words, in a process of its own each time.

    Raises:
        subprocess.CalledProcessError: it did not end with 0.
    """
    found: Seconds = {"cpu": [], "wall": []}
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(rounds):
        used, began = _children_s(), time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "csm_repl", *words], check=True, capture_output=True, env=environment
        )
        found["wall"].append(time.perf_counter() - began)
        found["cpu"].append(_children_s() - used)
    return found


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(texts: Sequence[str], *, n_bytes: int, n_lines: int, rounds: int) -> dict[str, Seconds]:
    """All of it; `texts` are sentences."""
    with tempfile.TemporaryDirectory(prefix="csm-text-") as name:
        folder = Path(name)

        def dry_run(kind: str, lines: Sequence[str]) -> Callable[[], Seconds]:
            script = folder / f"{kind}.txt"
            script.write_text("".join(f"{line}\n" for line in lines), "utf-8")
            return lambda: command(["--dry-run", "--quiet", "--format", "plain", str(script)], rounds=rounds)

        parts: dict[str, Callable[[], Seconds]] = {
            "normalise, the texts": lambda: normalising(texts, n_bytes=n_bytes, rounds=rounds),
            "normalise, the tests' cases": lambda: normalising(_typed(), n_bytes=n_bytes, rounds=rounds),
            "--dry-run, the texts": dry_run("texts", [*itertools.islice(itertools.cycle(texts), n_lines)]),
            "--dry-run, numbers": dry_run("numbers", lines_with_numbers(n_lines)),
            "--help": lambda: command(["--help"], rounds=rounds),
        }
        return {part: run() for part, run in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    texts = [
        sentence
        for path in arguments.files
        for sentence in sentences(path.read_text("utf-8"))
        # Marks of the grammar would make commands and turns of them.
        if not {"$", "|", "\\"} & set(sentence)
    ]
    print_machine(machine_facts())
    results = measure(texts or _typed(), n_bytes=1_000_000, n_lines=1000, rounds=arguments.rounds)
    print_table(
        ["", "CPU s", "start to end s"],
        [[part, *(_shown(found.get(kind)) for kind in ("cpu", "wall"))] for part, found in results.items()],
    )
    write_results("text", {"files": list(map(str, arguments.files)), "results": results})


def _typed() -> list[str]:
    return [typed for _, typed, _ in table()]


def _shown(found: list[float] | None) -> str | None:
    if found is None:
        return None
    return f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


if __name__ == "__main__":
    main()
