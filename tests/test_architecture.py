"""The rules of docs/architecture.md, read off the imports: all of them, deferred and type-only ones too."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PACKAGE = ROOT / "csm_repl"
ROOMS = (
    "errors", "events", "clock", "paths", "settings", "terminal", "logs",
    "text", "audio", "files",
    "model", "codec", "engine", "loaded",
    "voices", "session", "outputs", "speech",
    "api", "studio", "front", "train", "cli",
)  # fmt: skip
"""In order: a room imports from those before it and from none behind it."""
APART = {("train", "front"), ("train", "studio"), ("front", "api"), ("studio", "api"), ("train", "api")}
"""Although their order would allow it, the first does not import the second."""
FRONT_ENDS = ("console", "pipe", "doctor")
"""They do not import each other."""
WITHOUT_TORCH = {
    "__init__", "__main__", "cli",
    "errors", "events", "clock", "paths", "logs", "settings", "terminal", "text", "files",
}  # fmt: skip
"""What must start fast: imports none of the heavy libraries when it is imported."""
TRAIN_WITHOUT_TORCH = {f"train/{name}.py" for name in ("command", "flags", "options", "events", "run_folder")}
HEAVY = {"torch", "numpy", "moshi", "rich", "prompt_toolkit", "huggingface_hub"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names of what a file imports; of `from package import name` the module, if it is one."""
    tree = ast.parse(path.read_text())
    for node in ast.iter_child_nodes(tree) if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules() else str(node.module)


@cache
def graph() -> dict[str, set[str]]:
    """Each module and the modules of the package that it imports."""
    return {
        name: {other for other in imports(path) if other in modules()} - {name}
        for name, path in modules().items()
    }


def room(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def test_imports_run_one_way() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if room(name) in ROOMS and room(other) in ROOMS
        if ROOMS.index(room(other)) > ROOMS.index(room(name)) or (room(name), room(other)) in APART
    ]
    assert not wrong


def test_every_module_is_in_a_room_that_the_architecture_page_names() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    assert {room(name) for name in modules()} - {"__init__", "__main__"} == set(ROOMS)
    assert not [name for name in ROOMS if f"`{name}" not in page]


def test_the_page_gives_the_order_that_is_tested() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    [order] = re.findall(r"<!-- order -->\n(.*?)\n<!-- end -->", page, re.DOTALL)
    assert re.findall(r"`(\w+)`", order) == list(ROOMS)


def test_no_two_files_import_each_other_by_whatever_way() -> None:
    """No circles in the graph of files: each can be removed in turn when nothing is left that it imports."""
    left = {name: set(others) for name, others in graph().items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def test_front_ends_do_not_import_each_other() -> None:
    def front_end(module: str) -> str | None:
        parts = module.split(".")
        return parts[2] if parts[1:2] == ["front"] and len(parts) > 2 and parts[2] in FRONT_ENDS else None

    wrong = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if front_end(name) and front_end(other) and front_end(name) != front_end(other)
    ]
    assert not wrong


@pytest.mark.parametrize("name", sorted(modules()))
def test_what_must_start_fast_imports_nothing_heavy(name: str) -> None:
    path = modules()[name]
    if room(name) in WITHOUT_TORCH or path.relative_to(PACKAGE).as_posix() in TRAIN_WITHOUT_TORCH:
        found = {imported.split(".")[0] for imported in imports(path, top_level_only=True)}
        assert not found & HEAVY


def test_no_module_is_longer_than_500_lines() -> None:
    assert not [path.name for path in modules().values() if len(path.read_text().splitlines()) > 500]


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, path in modules().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert not {cls: found for cls, found in places.items() if len(found) > 1}


def test_no_module_reads_anothers_private_attributes() -> None:
    """An attribute with an underscore is one of `self`, or of something that the same file defines."""
    wrong = []
    for name, path in modules().items():
        tree = ast.parse(path.read_text())
        attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        own = {node.attr for node in attributes if _is_self(node.value)}
        own |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("csm_repl"):
                wrong += [f"{name}: {alias.name}" for alias in node.names if re.match(r"_[a-z]", alias.name)]
            elif isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and node.attr not in own:
                written = ast.unparse(node)
                # Of other libraries: what they offer no public name for.
                if not re.match(r"(torch|whisper|loaders|_loaders\(\))[.]", written):
                    wrong.append(f"{name}: {written}")
    assert not wrong


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


PRINTS = {
    "terminal.py",
    "front/printers/plain.py",
    "front/printers/rich.py",
    "front/printers/progress.py",
    "front/console/prompt.py",
    "front/console/terminal.py",
    "train/report/display.py",
}
"""Each of them passes what it is given through `terminal.defused`; nobody else writes to a terminal."""


def test_only_what_goes_through_the_filter_writes_to_a_terminal() -> None:
    writes = re.compile(
        r"(?:(?:sys|os)\.)?(?:print|(?:stdout|stderr|console)\.(?:print|write|buffer\.write))"
    )
    wrong = []
    for path in modules().values():
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and writes.fullmatch(ast.unparse(node.func)) and name not in PRINTS:
                wrong.append(f"{name}:{node.lineno} {ast.unparse(node)}")
    assert not wrong
