"""Tables on the screen and raw figures in a file."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import machine_facts

__all__ = ["print_machine", "print_table", "write_results"]

FOLDER = Path(__file__).parent / "results"


def print_machine(facts: dict[str, Any]) -> None:
    print(f"{facts['cpu']}, {facts['cores']} cores, torch {facts['torch']}, {facts['date']}")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Markdown; floats get three significant digits."""
    print("\n| " + " | ".join(columns) + " |")
    print("|---" * len(columns) + "|")
    for row in rows:
        print("| " + " | ".join(_cell(value) for value in row) + " |")


def write_results(name: str, content: dict[str, Any], folder: Path = FOLDER) -> Path:
    """Writes `content` with the command and the machine beside it, and says where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / time.strftime(f"{name}-%Y%m%d-%H%M%S.json")
    facts = {"command": " ".join(sys.argv), "machine": machine_facts()}
    path.write_text(json.dumps({**facts, **content}, indent=1))
    print(f"\nwritten: {path}")
    return path


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return "-" if value is None else str(value)
