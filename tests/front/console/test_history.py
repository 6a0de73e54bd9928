from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from csm_repl.front.console import history as history_module
from csm_repl.front.console.history import PrivateHistory


def test_the_history_is_remembered_and_private(tmp_path: Path) -> None:
    path = tmp_path / "state" / "csm-repl" / "history"
    history = PrivateHistory(path)
    for line in ("one", "two\nlines", "two\nlines", "  ", "日本語 \udcff\0"):
        history.append_string(line)
    assert path.stat().st_mode & 0o777 == 0o600
    again = PrivateHistory(path)
    assert list(again.load_history_strings()) == ["日本語 ?", "two\nlines", "one"]
    assert again.take_problem() == ""


def test_a_history_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "history"
    PrivateHistory(path).append_string("one")
    path.chmod(0o644)
    assert list(PrivateHistory(path).load_history_strings()) == ["one"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_only_the_end_of_a_huge_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history"
    history = PrivateHistory(path)
    for number in range(100):
        history.append_string(f"line {number}")
    monkeypatch.setattr(history_module, "READ_BYTES", 200)
    strings = list(PrivateHistory(path).load_history_strings())
    assert strings[0] == "line 99"
    assert 1 < len(strings) < 10
    assert all(string.startswith("line ") for string in strings)


def test_what_is_no_text_is_recalled_as_far_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "history"
    path.write_bytes(b"garbage\xff\n\n# 2026\n+a\xff\x1b[31m\r\n+b\n")
    assert list(PrivateHistory(path).load_history_strings()) == ["a\ufffd\x1b[31m\r\nb"]


def _folder(path: Path) -> None:
    path.mkdir(mode=0o755)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def _in_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file where a folder should be")


@pytest.mark.parametrize("make", [_folder, _fifo, _endless, _binary, _in_a_file])
def test_what_cannot_be_a_history_is_left_alone_and_said_once(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "state" / "history"
    path.parent.mkdir()
    make(path)
    before = path.lstat() if path.parent.is_dir() else None
    _assert_lasts_as_long_as_the_program(PrivateHistory(path), path)
    after = path.lstat() if path.parent.is_dir() else None
    assert before is after is None or (before.st_mode, before.st_size) == (after.st_mode, after.st_size)


def test_a_history_that_cannot_be_written_is_recalled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "history"
    PrivateHistory(path).append_string("one")

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)
    history = PrivateHistory(path)
    assert list(history.load_history_strings()) == ["one"]
    history.append_string("two")
    assert "(read-only file system)" in history.take_problem()
    assert history.take_problem() == ""


@pytest.mark.parametrize("operation", ["mkdir", "chmod", "stat"])
def test_a_disk_that_refuses_is_said_once(
    tmp_path: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state" / "history"
    if operation == "chmod":
        path.parent.mkdir()
        path.write_text("")
        path.chmod(0o644)

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as broken:
        broken.setattr(Path, operation, refuse)
        history = PrivateHistory(path)
    _assert_lasts_as_long_as_the_program(history, path)


def test_the_file_of_another_user_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history"
    path.write_text("\n# 2026\n+secret\n")
    path.chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    history = PrivateHistory(path)
    _assert_lasts_as_long_as_the_program(history, path)
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_disk_that_is_full_later_is_said_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history"
    history = PrivateHistory(path)
    assert history.take_problem() == ""
    path.unlink()
    path.mkdir()
    history.append_string("one")
    assert history.take_problem() != ""
    assert history.get_strings() == ["one"]


def _assert_lasts_as_long_as_the_program(history: PrivateHistory, path: Path) -> None:
    assert list(history.load_history_strings()) == []
    history.append_string("one")
    assert history.get_strings() == ["one"]
    problem = history.take_problem()
    assert problem.startswith(f"What you type is not kept for the next start: {path} cannot be used (")
    assert problem.count(".") == str(path).count(".") + 1
    assert history.take_problem() == ""
