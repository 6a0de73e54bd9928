"""What is around the code: the package's metadata, the checks, and the files for contributors."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

import csm_repl
from tests.support.paths import ROOT

PYPROJECT = (ROOT / "pyproject.toml").read_text()
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MAKE_TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
REQUIRES_PYTHON = SpecifierSet(re.findall(r'^requires-python = "(.+)"$', PYPROJECT, re.MULTILINE)[0])
PYTHONS = [f"3.{minor}" for minor in range(40) if f"3.{minor}" in REQUIRES_PYTHON]


def load(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


def test_the_package_says_that_it_is_typed() -> None:
    # The wheel has every file of the package; .ci/smoke-wheel looks.
    assert Path(csm_repl.__file__).with_name("py.typed").is_file()


def test_the_version_is_written_once() -> None:
    assert 'dynamic = ["version"]' in PYPROJECT
    assert not re.search(r"^version\b", PYPROJECT, re.MULTILINE)
    assert importlib.metadata.version("csm-repl") == csm_repl.__version__, "install again: make setup"


def test_the_changelog_has_the_version() -> None:
    assert re.search(
        rf"^## {re.escape(csm_repl.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", ".ci/run", ".pre-commit-config.yaml"])
def test_make_targets_that_are_named_exist(page: str) -> None:
    used: set[str] = set()
    for words in re.findall(r"(?:^|`|entry: )make ((?:[a-z-]+ ?)+)", (ROOT / page).read_text(), re.MULTILINE):
        used |= set(words.split())
    assert used
    assert used <= MAKE_TARGETS


def test_every_make_target_is_in_the_contributors_page() -> None:
    assert not [target for target in MAKE_TARGETS if f"make {target}" not in CONTRIBUTING]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_check_runs_all_that_ci_runs() -> None:
    def commands(*targets: str) -> list[str]:
        environ = {**os.environ, "VIRTUAL_ENV": "venv"}
        done = subprocess.run(
            ["make", "--no-print-directory", "-n", *targets],
            cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.splitlines()

    checked = commands("check")
    in_ci = re.findall(r"^make (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert set(commands(*" ".join(in_ci).split())) <= set(checked)
    assert "venv/bin/pytest" in checked


def test_python_versions_are_the_same_everywhere() -> None:
    workflow = load(".github/workflows/test.yml")
    assert workflow["jobs"]["linux"]["strategy"]["matrix"]["python"] == PYTHONS
    span = f"Python {PYTHONS[0]} to {PYTHONS[-1]}"
    assert span in (ROOT / "README.md").read_text()
    assert span in CONTRIBUTING


def test_the_workflow_installs_what_ci_wants() -> None:
    installs = " ".join(
        step.get("run", "") for step in load(".github/workflows/test.yml")["jobs"]["linux"]["steps"]
    )
    for package in ("ffmpeg", "espeak-ng", "flite", "libportaudio2"):
        assert f" {package}" in installs
        assert f" {package}" in CONTRIBUTING


@pytest.mark.parametrize("form", ["bug", "feature"])
def test_issue_forms_have_what_the_site_requires(form: str) -> None:
    content = load(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert content["name"]
    assert content["description"]
    ids = [field["id"] for field in content["body"]]
    assert len(set(ids)) == len(ids) > 0
    assert all(field["attributes"]["label"] for field in content["body"])
