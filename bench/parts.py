"""Options that the benchmarks share, and their parts, each measured in a process of its own."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.machine import wait_until_idle
from bench.peers.base import SIZES
from bench.report import FOLDER

__all__ = [
    "MODES",
    "BenchmarkParser",
    "PartFailedError",
    "measure_apart",
    "measure_parts",
    "succeeded",
    "wait_where_it_counts",
]

DTYPES = ("bfloat16", "float16", "float32")
MODES = ("none", "int8", "int4")
"""Of `--quantize`, wherever the program runs."""


class PartFailedError(Exception):
    """A part's process ended with an error, which it has printed."""


class BenchmarkParser(argparse.ArgumentParser):
    """`--dtype --device --size --patience --results` and, for the process of one part, `--only`.

    Options that are added with `add_option` are handed on to the process of a part.
    """

    def __init__(self, description: str | None, *, device: str = "cpu") -> None:
        super().__init__(description=description, formatter_class=argparse.RawTextHelpFormatter)
        self._handed_on: list[str] = []
        self.add_option("--dtype", default=DTYPES[0], choices=DTYPES)
        self.add_option("--device", default=device)
        self.add_option("--size", default="full", choices=SIZES)
        self.add_argument("--patience", type=float, default=60.0, help="seconds to wait for an idle machine")
        self.add_argument("--results", type=Path, default=FOLDER)
        self.add_argument("--only", help=argparse.SUPPRESS)

    def add_option(self, name: str, **properties: Any) -> None:
        """Adds an option whose value each part's process needs."""
        self.add_argument(name, **properties)
        self._handed_on.append(name)

    def add_parts(
        self, name: str, known: Iterable[str], default: Iterable[str] | None = None, **properties: Any
    ) -> None:
        """Adds the option that chooses the parts, a list with commas; a part that is not known is refused."""
        known = tuple(known)

        def parts(text: str) -> list[str]:
            chosen = text.split(",")
            unknown = [part for part in chosen if part not in known]
            if unknown:
                raise argparse.ArgumentTypeError(
                    f"there is no {', '.join(unknown)}; there are {', '.join(known)}"
                )
            return chosen

        chosen = list(known if default is None else default)
        self.add_argument(name, type=parts, default=chosen, help=", ".join(known), **properties)

    def words_for(self, part: str, arguments: argparse.Namespace) -> list[str]:
        """The command line that measures one part."""
        words = ["--only", part]
        for name in self._handed_on:
            words += [name, str(getattr(arguments, name[2:].replace("-", "_")))]
        return words


def measure_apart(module: str, words: Sequence[str]) -> Any:
    """What `python -m module *words` prints as JSON in its last line; its memory is free afterwards.

    Raises:
        PartFailedError: it failed or printed nothing.
    """
    done = subprocess.run([sys.executable, "-m", module, *words], stdout=subprocess.PIPE, text=True)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise PartFailedError(f"{module} ended with exit code {done.returncode}; its complaint is above")
    return json.loads(lines[-1])


def wait_where_it_counts(arguments: argparse.Namespace) -> None:
    """Until the machine is idle, where that changes the figures: at full size on a CPU."""
    if arguments.size == "full" and arguments.device == "cpu":
        wait_until_idle(arguments.patience)


def measure_parts(
    module: str, parts: Iterable[str], parser: BenchmarkParser, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Each part's result, one after the other, at full size on a CPU that is otherwise idle.

    A part that fails leaves `{"failed": reason}`, and the others go on.

    Raises:
        SystemExit: with 1, when all have failed.
    """
    results: dict[str, Any] = {}
    for part in parts:
        wait_where_it_counts(arguments)
        try:
            results[part] = measure_apart(module, parser.words_for(part, arguments))
        except PartFailedError as error:
            results[part] = {"failed": str(error)}
        print(f"{time.strftime('%H:%M:%S')} {part} is done", file=sys.stderr, flush=True)
    if not succeeded(results):
        raise SystemExit(1)
    return results


def succeeded(results: dict[str, Any]) -> dict[str, Any]:
    """The parts that did not fail."""
    return {
        part: found for part, found in results.items() if not (isinstance(found, dict) and "failed" in found)
    }
