"""docs/training.md stays literally true where a program can check it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from csm_repl.train.data.sources.listing import read_list
from csm_repl.train.flags import flag_of, option_fields, parse_train
from csm_repl.train.options import DataOptions, TrainOptions
from csm_repl.train.run_folder import RunFolder
from tools.training_options import PAGE, updated

TEXT = PAGE.read_text()


def test_the_options_table_is_the_registry() -> None:
    assert updated(TEXT) == TEXT


def test_flags_on_the_page_exist() -> None:
    known = {flag_of(item) for item in option_fields(TrainOptions, DataOptions)}
    known |= {
        "--lora",
        "--full",
        "--from-scratch",
        "--cache",
        "--dry-run",
        "--resume",
        "--no-resume",
        "--layout",
    }
    known |= {"--model", "--revision", "--offline", "--device", "--whisper-model"}
    known |= {"--json", "--quiet", "--verbose", "--debug", "--color"}
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT)):
        assert flag in known, flag


def test_its_jsonl_examples_are_read(tmp_path: Path) -> None:
    examples = "\n".join(re.findall(r"```json\n(.*?)\n```", TEXT, re.DOTALL))
    (tmp_path / "data.jsonl").write_text(examples)
    manifest = read_list(tmp_path / "data.jsonl")
    assert [len(entry.turns) for entry in manifest.entries] == [1, 1, 2]
    assert not manifest.problems
    assert not manifest.notes
    assert json.loads(examples.splitlines()[0])["text"] == "Hello."


def test_its_commands_parse() -> None:
    for line in re.findall(r"^csm-repl train (.+?)(?:  .*)?$", TEXT, re.MULTILINE):
        parse_train(line.split())


def test_what_may_change_when_a_run_goes_on_is_what_the_page_says() -> None:
    [sentence] = re.findall(
        r"With other options it is refused, naming them;\n(.+?) and all that", TEXT, re.DOTALL
    )
    free = {flag_of(item) for item in option_fields(TrainOptions, DataOptions) if item.metadata["free"]}
    assert set(re.findall(r"--[a-z-]+", sentence)) == free - {"--out"}


def test_every_file_of_a_run_is_named() -> None:
    for name, path in vars(RunFolder(Path("run"))).items():
        if name != "root":
            assert f"`{path.name}" in TEXT, path
