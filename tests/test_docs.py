"""The README stays literally true where a program can check it."""

from __future__ import annotations

import re

import pytest

from csm_repl.settings import specs
from csm_repl.studio.commands import COMMANDS
from csm_repl.text.grammar import Line, parse
from csm_repl.text.voice_names import Roster
from csm_repl.train.flags import flag_of, option_fields
from csm_repl.train.options import DataOptions, TrainOptions
from tests.support.paths import ROOT
from tools.env_example import text as env_example

README = (ROOT / "README.md").read_text()


def test_the_commands_table_is_the_registry() -> None:
    table = README.partition("<!-- commands -->\n")[2].partition("<!-- end -->")[0]
    rows = [f"| `{item.usage}` | {item.help} |" for item in COMMANDS.values()]
    assert table.splitlines() == rows


def test_the_line_examples_parse_as_the_readme_says() -> None:
    def speakers(text: str) -> list[int]:
        parsed = parse(text, voices=Roster({0: "Ada", 1: "Ben"}))
        return list(parsed.speakers(0)) if isinstance(parsed, Line) else []

    section = README.partition("## A line")[2].partition("## Commands")[0]
    examples = [text.replace("\\|", "|") for text in re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE)]
    said = [speakers(text) for text in examples]
    assert said == [[0], [0, 1, 2], [0, 1, 0], [1], [0], [0], [1, 0], [0], [], []]
    assert speakers("Hello!||Hi, who is it?||It's me.0") == [0, 1, 0]
    spoken = parse("It was 2024")
    assert isinstance(spoken, Line)
    assert spoken.turns[0].text == "It was 2024"


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        *(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")),
    ],
)
def test_links_to_files_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_flags_in_the_readme_exist() -> None:
    known = {flag for item in specs() for flag in item.flags} | {"--help", "--quiet", "--print-completion"}
    known |= {flag_of(item) for item in option_fields(TrainOptions, DataOptions)}
    known |= {"--full", "--from-scratch"}
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)):
        assert flag in known, flag


def test_env_example_is_generated_from_the_registry() -> None:
    assert (ROOT / ".env.example").read_text() == env_example()


def test_the_python_example_names_what_the_package_offers() -> None:
    import csm_repl

    [names] = re.findall(r"^from csm_repl import (.+)$", README, re.MULTILINE)
    assert set(names.split(", ")) <= set(csm_repl.__all__)


def test_no_document_names_a_machine_path_or_a_registry() -> None:
    named = ("README.md", "CONTRIBUTING.md", "Makefile", "pyproject.toml")
    pages = [*(ROOT / name for name in named), *(ROOT / ".ci").iterdir(), *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        assert not re.search(r"/(work|root|home)\b|python.?hosted", page.read_text()), page
