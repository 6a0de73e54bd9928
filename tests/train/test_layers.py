"""What the modules of `train` may import: its layers run one way, in no circle, and never to a front end."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TRAIN = ROOT / "csm_repl" / "train"
LAYERS = (
    {"options", "values", "flags", "events", "files", "run_folder"},
    {"data"},
    {"learn"},
    {"export"},
    {"report"},
    {"setup"},
    {"train_job", "merge_job"},
    {"command"},
)
"""A module imports from its own layer and the ones before it."""
FORBIDDEN = {
    "studio",
    "commands",
    "console",
    "pipe",
    "printers",
    "jobs",
    "doctor",
    "generator",
    "player",
    "cli",
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in sorted(TRAIN.rglob("*.py"))
    if path.name != "__init__.py"
}


def imports(path: Path) -> Iterator[str]:
    """At every level, in functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int:
    part = module.split(".")[2]
    return next(index for index, names in enumerate(LAYERS) if part in names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    for name in imports(MODULES[module]):
        if name in MODULES:
            assert layer(name) <= layer(module), f"{module} imports {name}"
        parts = name.split(".")
        assert parts[0] != "csm_repl" or len(parts) == 1 or parts[1] not in FORBIDDEN, (
            f"{module} imports {name}"
        )


def test_nothing_imports_in_a_circle() -> None:
    left = {module: {name for name in imports(path) if name in MODULES} for module, path in MODULES.items()}
    while free := {module for module, needs in left.items() if not needs & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in free}
    assert not left
