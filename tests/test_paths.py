"""Unfinished files say whose they are, and are cleared away when their process is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from csm_repl import paths

_MAKE = (
    "import sys; from pathlib import Path; from csm_repl.paths import unfinished_path; "
    "print(unfinished_path(Path(sys.argv[1])))"
)


def _name_of_a_dead_process(folder: Path) -> Path:
    made = subprocess.run([sys.executable, "-c", _MAKE, folder], capture_output=True, text=True, check=True)
    return Path(made.stdout.strip())


def test_names_are_hidden_unique_and_in_the_folder(tmp_path: Path) -> None:
    names = {paths.unfinished_path(tmp_path) for _ in range(100)}
    assert len(names) == 100
    assert all(name.parent == tmp_path and name.name.startswith(".") for name in names)


def test_what_a_dead_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead_file, dead_folder = _name_of_a_dead_process(tmp_path), _name_of_a_dead_process(tmp_path)
    dead_file.write_bytes(b"half")
    (dead_folder / "deep").mkdir(parents=True)
    (dead_folder / "deep" / "file").touch()
    kept = [paths.unfinished_path(tmp_path), tmp_path / ".other.part", tmp_path / "001.wav"]
    for path in kept:
        path.touch()
    paths.remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_a_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "song.wav").touch()
    _name_of_a_dead_process(tmp_path).symlink_to(tmp_path / "music")
    paths.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["music"]
    assert (tmp_path / "music" / "song.wav").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such containers")
def test_a_container_with_its_host_s_name_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = paths.unfinished_path(Path())
    monkeypatch.setattr(os, "readlink", lambda _: "pid:[4026532000]")
    paths._host.cache_clear()
    theirs = paths.unfinished_path(Path())
    monkeypatch.undo()
    paths._host.cache_clear()
    assert mine.name.split("-")[2] != theirs.name.split("-")[2]


def test_only_a_file_itself_is_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    assert [path.name for path in tmp_path.iterdir() if paths.is_plain_file(path)] == ["file"]
    assert not paths.is_plain_file(tmp_path)
    assert not paths.is_plain_file(tmp_path / "file" / "below")
    assert not paths.is_plain_file(Path("nul\0byte"))


def test_another_machines_are_kept_for_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_host", lambda: "0" * 8)
    young, old = paths.unfinished_path(tmp_path), paths.unfinished_path(tmp_path)
    monkeypatch.undo()
    young.touch()
    old.touch()
    os.utime(old, (0, time.time() - 8 * 24 * 3600))
    paths.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [young]


def test_a_folder_that_is_not_there_is_fine(tmp_path: Path) -> None:
    paths.remove_leftovers(tmp_path / "none")
