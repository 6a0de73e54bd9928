"""The layers inside `train` run one way; circles and other rooms are test_architecture's."""

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
