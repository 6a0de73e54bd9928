"""Names of takes, and that they appear whole, complete, and never over one another."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from csm_repl.audio import read_audio
from csm_repl.errors import OutputError, UsageError
from csm_repl.outputs import takes as takes_module
from csm_repl.outputs.takes import TakeFolder
from csm_repl.paths import unfinished_path
from csm_repl.session.numbers import TakeNumber
from csm_repl.session.sidecars import codes_bytes, json_bytes

NOW = datetime(2025, 11, 21, 14, 23, 1)
RATE = 24_000


def tone(n: int = 480, level: float = 0.25) -> torch.Tensor:
    return torch.full((n,), level)


def take(takes: TakeFolder, **meta) -> Path:
    return takes.begin_line(1).save_turn(tone(), RATE, meta, position=1)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- the run's folder ---------------------------------------------------------------------------------


def test_nothing_is_made_before_the_first_take(tmp_path):
    takes = TakeFolder(tmp_path / "out", NOW)
    takes.begin_line(1)
    assert takes.folder is None
    assert not (tmp_path / "out").exists()
    take(takes)
    assert takes.folder == tmp_path / "out" / "2025-11-21_142301"


def test_runs_that_start_in_the_same_second_have_their_own_folders(tmp_path):
    folders = [take(TakeFolder(tmp_path, NOW)).parent.name for _ in range(3)]
    assert folders == ["2025-11-21_142301", "2025-11-21_142301-2", "2025-11-21_142301-3"]


def test_the_clock_names_the_folder(tmp_path):
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d{6}", take(TakeFolder(tmp_path)).parent.name)


def test_a_writable_root_is_made_and_left_empty(tmp_path):
    TakeFolder(tmp_path / "a" / "b").check_writable()
    assert names(tmp_path / "a" / "b") == []


def test_a_root_that_cannot_be_made_is_a_usage_error(tmp_path, temporary):
    (tmp_path / "file").touch()
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            UsageError, match=r"cannot be written: (it is no folder|Not a directory)\."
        ) as caught:
            TakeFolder(root).check_writable()
        assert "--output" in caught.value.remedy
        with pytest.raises(OutputError):
            take(TakeFolder(root))


def test_a_folder_removed_meanwhile_is_made_again(tmp_path):
    takes = TakeFolder(tmp_path, NOW)
    first = take(takes)
    for path in first.parent.iterdir():
        path.unlink()
    first.parent.rmdir()
    assert takes.lines() == []
    assert take(takes) == first.with_name("002.wav")


def moved(folder: Path) -> Path:
    return folder.rename(folder.with_name("moved"))


def replaced_by_a_file(folder: Path) -> None:
    moved(folder)
    folder.write_bytes(b"mine")


def replaced_by_a_fifo(folder: Path) -> None:
    moved(folder)
    os.mkfifo(folder)


def replaced_by_a_link(folder: Path) -> None:
    target = moved(folder).with_name("target")
    target.mkdir()
    folder.symlink_to(target)


def replaced_by_a_link_to_nothing(folder: Path) -> None:
    moved(folder)
    folder.symlink_to("nothing")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize(
    "harm", [replaced_by_a_file, replaced_by_a_fifo, replaced_by_a_link, replaced_by_a_link_to_nothing]
)
def test_a_run_goes_on_in_another_folder_where_its_own_was_replaced(tmp_path, harm):
    takes = TakeFolder(tmp_path / "out", NOW)
    first = take(takes)
    harm(first.parent)
    second, third = take(takes), take(takes)
    assert second == tmp_path / "out" / f"{first.parent.name}-2" / "002.wav"
    assert third == second.with_name("003.wav")
    assert takes.lines() == [2, 3]
    target = tmp_path / "out" / "target"
    assert not target.exists() or names(target) == []


def test_a_folder_swapped_for_another_loses_nothing_to_the_run(tmp_path):
    takes = TakeFolder(tmp_path, NOW)
    folder = take(takes).parent
    moved(folder)
    folder.mkdir()
    (folder / "002.wav").write_bytes(b"mine")
    assert take(takes) == folder / "003.wav"
    assert (folder / "002.wav").read_bytes() == b"mine"


@pytest.mark.parametrize("harm", [replaced_by_a_file, replaced_by_a_fifo, replaced_by_a_link_to_nothing])
def test_a_take_without_an_output_folder_is_kept_elsewhere_until_there_is_one(tmp_path, temporary, harm):
    root = tmp_path / "out"
    takes = TakeFolder(root, NOW)
    first = take(takes)
    harm(root)
    with pytest.raises(OutputError, match=r"out is no folder\. Move it away") as caught:
        takes.begin_line(2).save_turn(tone(), RATE, {"text": "x"}, position=2)
    (refuge,) = temporary.iterdir()
    assert names(refuge) == ["002-2.json", "002-2.wav"]
    assert refuge.stat().st_mode & 0o777 == 0o700
    assert str(caught.value).endswith(f"The take is kept: {refuge / '002-2.wav'}.")
    with pytest.raises(OutputError):
        take(takes)
    assert names(refuge) == ["002-2.json", "002-2.wav", "003.json", "003.wav"]
    root.unlink()
    assert take(takes) == first.with_name("004.wav")


def test_where_a_take_can_be_kept_nowhere_nothing_of_it_is_left(tmp_path, temporary, monkeypatch):
    takes = TakeFolder(tmp_path / "out", NOW)

    def full(*_):
        raise OutputError("The disk is full.", "Free some space.")

    monkeypatch.setattr(takes_module, "write_audio", full)
    with pytest.raises(OutputError, match=r"space\.$"):
        take(takes)
    assert names(takes.folder) == names(temporary) == []


def put_link(path: Path) -> None:
    path.symlink_to(path.parent / "precious")


def put_link_to_nothing(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


@pytest.mark.parametrize("put", [put_link, put_link_to_nothing, os.mkfifo, Path.mkdir])
@pytest.mark.parametrize("ending", ["wav", "json"])
def test_what_has_a_take_s_name_is_neither_written_nor_taken_for_one(tmp_path, put, ending):
    takes = TakeFolder(tmp_path, NOW)
    precious = take(takes).with_name("precious")
    precious.write_bytes(b"mine")
    line = takes.begin_line(1)
    put(takes.folder / f"002.{ending}")
    assert line.save_turn(tone(), RATE, {}, position=1).name == "003.wav"
    assert precious.read_bytes() == b"mine"
    assert not (takes.folder / "nothing").exists()
    assert takes.lines() == [1, 3]
    assert takes.find(TakeNumber(2)) == []


_LEAVE = """
import os, sys
from pathlib import Path
from csm_repl.paths import unfinished_path
for folder in sys.argv[1:]:
    unfinished_path(Path(folder)).write_bytes(b"half")
"""


def test_a_start_clears_away_what_killed_runs_have_left_and_nothing_else(tmp_path):
    run, other, saved = (tmp_path / name for name in ("2025-11-20_101010-2", "mine", "saved"))
    for folder in (run, other, saved):
        folder.mkdir()
    subprocess.run([sys.executable, "-c", _LEAVE, tmp_path, run, other], check=True)
    living = [unfinished_path(folder) for folder in (tmp_path, run)]
    for path in living:
        path.touch()
    TakeFolder(tmp_path, NOW).check_writable()
    assert sorted(tmp_path.glob(".*")) == [living[0]]
    assert list(run.iterdir()) == [living[1]]
    assert len(names(other)) == 1


# --- the names of takes -------------------------------------------------------------------------------


def test_lines_are_numbered_and_turns_of_a_line_too(tmp_path):
    takes = TakeFolder(tmp_path, NOW)
    take(takes)
    line = takes.begin_line(2)
    paths = [line.turn_path(1), line.turn_path(2), line.joined_path]
    assert [path.name for path in paths] == ["002-1.wav", "002-2.wav", "002.wav"]
    assert line.save_turn(tone(), RATE, {}, position=1) == paths[0]
    assert line.save_turn(tone(), RATE, {}, position=2) == paths[1]
    assert line.save_joined(tone(), RATE, {}) == paths[2]
    assert names(paths[0].parent) == [
        *("001.json", "001.wav"),
        *("002-1.json", "002-1.wav", "002-2.json", "002-2.wav", "002.json", "002.wav"),
    ]


def test_the_only_turn_of_a_line_has_the_line_s_name_wherever_it_stands(tmp_path):
    line = TakeFolder(tmp_path, NOW).begin_line(1)
    assert line.turn_path(2) == line.joined_path
    with pytest.raises(ValueError, match="not joined"):
        line.save_joined(tone(), RATE, {})


def test_numbers_grow_past_999(tmp_path):
    takes = TakeFolder(tmp_path, NOW)
    take(takes)
    for number in range(2, 1000):
        (takes.folder / f"{number:03d}.json").touch()
    assert take(takes).name == "1000.wav"
    assert take(takes).name == "1001.wav"
    assert [path.name for path in takes.find(TakeNumber(1001))] == ["1001.wav"]
    assert takes.lines() == [1, 1000, 1001]


def test_numbers_of_a_loaded_conversation_are_not_given_again(tmp_path):
    takes = TakeFolder(tmp_path, NOW)
    takes.go_on_after(7)
    assert take(takes).name == "008.wav"
    takes.go_on_after(2)
    assert take(takes).name == "009.wav"


@pytest.mark.parametrize("leftover", ["002.wav", "002.json", "002-3.wav", "002.npy"])
def test_numbers_in_use_are_skipped(tmp_path, leftover):
    takes = TakeFolder(tmp_path, NOW)
    (take(takes).parent / leftover).write_bytes(b"mine")
    assert takes.begin_line(1).number == 3
    assert (takes.folder / leftover).read_bytes() == b"mine"


def test_files_that_are_no_takes_change_no_number(tmp_path):
    takes = TakeFolder(tmp_path, NOW)
    folder = take(takes).parent
    for name in ("2.wav", "002.txt", "track-0.wav", "002-a.wav", "x002.wav", "٠٠٢.wav"):
        (folder / name).touch()
    assert takes.begin_line(1).number == 2


@pytest.mark.parametrize("ending", ["wav", "json", "npy"])
def test_a_name_taken_while_speaking_moves_the_line_on(tmp_path, ending):
    takes = TakeFolder(tmp_path, NOW)
    line = takes.begin_line(2)
    first = line.save_turn(tone(), RATE, {}, position=1)
    intruder = first.with_name(f"001-2.{ending}")
    intruder.write_bytes(b"mine")
    codes = torch.zeros(2, 3, dtype=torch.int64)
    second = line.save_turn(tone(), RATE, {"text": "x"}, codes, position=2)
    assert (second.name, line.number) == ("002-2.wav", 2)
    assert json.loads(second.with_suffix(".json").read_text())["file"] == "002-2.wav"
    assert line.save_joined(tone(), RATE, {}).name == "002.wav"
    assert intruder.read_bytes() == b"mine"
    left = {"wav", "json", "npy"} - {ending}
    assert not [e for e in left if first.with_name(f"001-2.{e}").exists()]
    assert takes.begin_line(1).number == 3


def test_saving_the_same_turn_again_overwrites_nothing(tmp_path):
    line = TakeFolder(tmp_path, NOW).begin_line(1)
    paths = {line.save_turn(tone(), RATE, {}, position=1).name for _ in range(3)}
    assert paths == {"001.wav", "002.wav", "003.wav"}


def test_impossible_lines_and_positions_are_refused(tmp_path):
    takes = TakeFolder(tmp_path, NOW)
    with pytest.raises(ValueError, match="at least one turn"):
        takes.begin_line(0)
    with pytest.raises(ValueError, match="count from 1"):
        takes.begin_line(2).save_turn(tone(), RATE, {}, position=0)


def test_a_line_or_turn_is_found_by_its_number(tmp_path):
    takes = TakeFolder(tmp_path, NOW)
    assert takes.find(TakeNumber(1)) == []
    first = take(takes)
    assert takes.find(TakeNumber(1)) == takes.find(TakeNumber(1, 1)) == [first]
    assert takes.find(TakeNumber(1, 2)) == takes.find(TakeNumber(2)) == []
    line = takes.begin_line(3)
    turns = [line.save_turn(tone(), RATE, {}, position=position) for position in (2, 3)]
    assert takes.find(TakeNumber(2)) == turns
    joined = line.save_joined(tone(), RATE, {})
    assert takes.find(TakeNumber(2)) == [joined]
    assert takes.find(TakeNumber(2, 3)) == [turns[1]]
    assert takes.find(TakeNumber(2, 1)) == []
    assert takes.lines() == [1, 2]


def test_a_take_s_json_has_its_number(tmp_path):
    takes = TakeFolder(tmp_path, NOW)
    take(takes)
    line = takes.begin_line(2)
    for path in (line.save_turn(tone(), RATE, {}, position=2), line.save_joined(tone(), RATE, {})):
        number = json.loads(path.with_suffix(".json").read_text())["number"]
        assert TakeNumber.parse(number) == TakeNumber.of_stem(path.stem)


def test_tracks_get_free_names_that_any_file_system_takes(tmp_path):
    takes = TakeFolder(tmp_path, NOW)
    assert takes.track_path(0).name == "track-0.wav"
    path = takes.track_path(1, "an/na: 2")
    assert path.name == "track-1-an_na_2.wav"
    path.touch()
    assert takes.track_path(1, "an/na: 2").name == "track-1-an_na_2-2.wav"


# --- what is in them ----------------------------------------------------------------------------------


def test_a_take_is_a_wav_with_its_metadata_and_codes(tmp_path):
    codes = torch.randint(0, 2051, (32, 7))
    meta = {
        "text": "Grüß dich, 你好!",
        "speaker": 1,
        "seed": 2**62,
        "max_seconds": math.inf,
        "out": Path("a"),
    }
    line = TakeFolder(tmp_path, NOW).begin_line(1)
    path = line.save_turn(tone(), RATE, meta, codes, position=1)
    samples, rate = read_audio(path)
    assert (samples.shape, rate) == ((1, 480), RATE)
    assert torch.equal(samples[0], tone())
    text = path.with_suffix(".json").read_text(encoding="utf-8")
    assert "Grüß dich, 你好!" in text
    assert list(json.loads(text).items()) == [
        ("file", "001.wav"),
        ("number", "1"),
        ("text", "Grüß dich, 你好!"),
        ("speaker", 1),
        ("seed", 2**62),
        ("max_seconds", "inf"),
        ("out", "a"),
    ]
    saved = np.load(path.with_suffix(".npy"))
    assert (saved.dtype, saved.shape) == (np.int16, (32, 7))
    assert np.array_equal(saved, codes.numpy())


def test_without_codes_there_is_no_npy(tmp_path):
    assert names(take(TakeFolder(tmp_path, NOW)).parent) == ["001.json", "001.wav"]


def test_codes_beyond_16_bit_keep_their_value(tmp_path):
    line = TakeFolder(tmp_path, NOW).begin_line(1)
    path = line.save_turn(tone(), RATE, {}, torch.tensor([[40_000, 1]]), position=1)
    saved = np.load(path.with_suffix(".npy"))
    assert saved.dtype == np.int32
    assert saved.tolist() == [[40_000, 1]]
    assert codes_bytes(torch.zeros(4, 0, dtype=torch.int64))


def test_lists_of_numbers_stand_on_one_line_and_texts_are_left_alone():
    value = {
        "ids": [1, -2, 3],
        "mixed": [1, "a"],
        "text": "[\n  1,\n  2\n]",
        "empty": [],
        "nested": [[1], [2]],
    }
    printed = json_bytes(value)
    assert b'"ids": [1, -2, 3]' in printed
    assert json.loads(printed) == value


def test_undecodable_input_survives_in_the_json():
    assert json.loads(json_bytes({"text": "a\udc80b"})) == {"text": "a\udc80b"}


def test_a_failed_take_leaves_nothing_behind_and_the_next_one_works(tmp_path, temporary, monkeypatch):
    takes = TakeFolder(tmp_path, NOW)
    take(takes)

    def full(*_):
        raise OutputError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(takes_module, "write_audio", full)
        with pytest.raises(OutputError, match="disk is full"):
            take(takes)
    assert names(takes.folder) == ["001.json", "001.wav"]
    assert take(takes).name == "003.wav"


def test_the_folder_is_checked_without_importing_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from csm_repl.outputs.takes import TakeFolder;"
        "TakeFolder(Path(sys.argv[1])).check_writable(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
