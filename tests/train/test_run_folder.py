"""Whether a run goes on, starts anew, or is refused; and how results share their files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from csm_repl.errors import OutputError, UsageError
from csm_repl.train.options import DataOptions, TrainOptions
from csm_repl.train.run_folder import RunFolder
from tests.support.leftovers import leave_behind

ABOUT = {"model": "csm", "codec": "mimi-1"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "a"


def begin(root: Path, *, resume: bool = True, about: dict[str, str] = ABOUT, **changes: object) -> bool:
    data = {name: changes.pop(name) for name in ("turns",) if name in changes}
    options = replace(TrainOptions(out=root), **changes)  # type: ignore[arg-type]
    return RunFolder(root).begin(options, DataOptions(**data), about, resume=resume)[0]  # type: ignore[arg-type]


def test_a_new_folder_notes_everything_the_run_was_started_with(root: Path) -> None:
    assert not begin(root, lr=1e-4, turns=3)
    noted = json.loads((root / "options.json").read_text())
    assert noted["options"]["lr"] == 1e-4
    assert noted["options"]["mode"] == "lora"
    assert noted["data_options"]["turns"] == 3
    assert noted["model"] == "csm"


def test_without_a_state_other_options_are_fine(root: Path) -> None:
    begin(root, lr=1e-4)
    assert not begin(root, lr=2e-4)
    assert json.loads((root / "options.json").read_text())["options"]["lr"] == 2e-4


def test_with_a_state_the_same_options_go_on(root: Path) -> None:
    begin(root, lr=1e-4, lora_targets=("mlp",))
    (root / "state.pt").write_text("state")
    assert begin(root, lr=1e-4, lora_targets=("mlp",))
    assert begin(root, lr=1e-4, lora_targets=("mlp",), log_every=1, sample_every=7, tensorboard=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr": 2e-4}, "--lr was 0.0001 and is 0.0002"),
        ({"lr": None}, "--lr was 0.0001 and is not given"),
        ({"mode": "full"}, "mode was lora and is full"),
        ({"loss_speakers": (1, 2)}, "--loss-speakers was not given and is 1,2"),
        ({"turns": 4}, "--turns was 1 and is 4"),
        ({"about": {**ABOUT, "codec": "mimi-2"}}, "the codec was mimi-1 and is mimi-2"),
    ],
)
def test_with_a_state_other_options_are_refused_by_name(root: Path, change: dict, words: str) -> None:
    begin(root, lr=1e-4)
    (root / "state.pt").write_text("state")
    with pytest.raises(UsageError, match="started differently") as refused:
        begin(root, **{"lr": 1e-4, **change})
    assert words in str(refused.value)
    assert "--no-resume" in refused.value.remedy
    assert (root / "state.pt").read_text() == "state"


def test_no_resume_moves_the_earlier_run_aside(root: Path) -> None:
    for number in (1, 2):
        begin(root, resume=False, lr=number / 1000)
        (root / "state.pt").write_text(f"state {number}")
    assert not begin(root, resume=False)
    assert not (root / "state.pt").exists()
    assert (root.parent / "a.old-1" / "state.pt").read_text() == "state 1"
    assert (root.parent / "a.old-2" / "state.pt").read_text() == "state 2"


def test_a_state_without_readable_options_is_refused(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "state.pt").write_text("state")
    with pytest.raises(UsageError, match=r"no readable options\.json"):
        begin(root)


@pytest.mark.parametrize("has_state", [False, True])
def test_what_a_killed_run_left_is_removed(root: Path, has_state: bool) -> None:
    begin(root)
    (root / "best").mkdir()
    if has_state:
        (root / "state.pt").write_bytes(b"state")
    left = [leave_behind(folder) for folder in (root, root / "best")]
    begin(root)
    assert not any(path.exists() for path in left)
    assert (root / "state.pt").exists() is has_state


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        begin(tmp_path / "file" / "run")


def test_linked_results_take_no_space_twice_and_survive_a_better_best(tmp_path: Path) -> None:
    pytest.importorskip("torchtune")
    from csm_repl.train.export.results import link_folder
    from csm_repl.train.files import write_atomically

    best, model = tmp_path / "best", tmp_path / "model"
    best.mkdir()
    (best / "model.safetensors").write_text("first")
    link_folder(best, model)
    link_folder(best, model)
    assert (model / "model.safetensors").samefile(best / "model.safetensors")
    write_atomically(best / "model.safetensors", lambda path: path.write_text("second"))
    assert (model / "model.safetensors").read_text() == "first"
    assert [path.name for path in model.iterdir()] == ["model.safetensors"]
