"""The rules of docs/architecture.md, read off the imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "csm_repl"
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("settings", "logs", "audio", "events", "files", "terminal"),
    ("script", "codec", "model", "engine"),
    ("voices", "session"),
    ("studio", "player", "commands", "generator"),
    ("printers", "jobs"),
    ("console", "pipe", "doctor", "train"),
    ("cli",),
)
"""A room imports from its own layer and the ones above it in this list."""
WITHOUT_TORCH = {"errors", "settings", "script", "cli", "logs", "files", "__init__", "__main__"}
APART = ("codec", "model")
"""Rooms of one layer that do not import each other."""

TRAIN_WITHOUT_TORCH = {f"train/{name}.py" for name in ("command", "flags", "options", "events", "run_folder")}


def _room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def _imports(tree: ast.AST, *, top_level_only: bool) -> Iterator[str]:
    nodes = ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _level(room: str) -> int:
    return next(index for index, layer in enumerate(LAYERS) if room in layer)


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    if _room(path) in {"__init__", "__main__"}:
        return
    tree = ast.parse(path.read_text())
    for name in _imports(tree, top_level_only=False):
        if not name.startswith("csm_repl."):
            continue
        other = name.split(".")[1]
        assert _level(other) <= _level(_room(path)), f"{path.name} imports {name}"


@pytest.mark.parametrize("room", APART)
def test_rooms_that_are_apart_do_not_import_each_other(room: str) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        for name in _imports(ast.parse(path.read_text()), top_level_only=False):
            others = [other for other in APART if other != room and name.startswith(f"csm_repl.{other}")]
            assert not others, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", _sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_must_start_fast_imports_no_torch(path: Path) -> None:
    if _room(path) in WITHOUT_TORCH or path.relative_to(PACKAGE).as_posix() in TRAIN_WITHOUT_TORCH:
        names = list(_imports(ast.parse(path.read_text()), top_level_only=True))
        assert not [name for name in names if name.split(".")[0] in {"torch", "numpy", "moshi", "rich"}]


def test_no_module_is_longer_than_500_lines() -> None:
    assert not [path.name for path in _sources() if len(path.read_text().splitlines()) > 500]


def test_nothing_below_a_front_end_prints() -> None:
    allowed = {"printers", "console", "doctor", "cli"}
    for path in _sources():
        if _room(path) in allowed or path == PACKAGE / "train" / "report" / "display.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            is_print = (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            )
            assert not is_print, f"{path} prints"


def test_every_room_is_in_the_architecture_page() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    rooms = {_room(path) for path in _sources()} - {"__init__", "__main__"}
    assert not [room for room in rooms if f"`{room}" not in page]
