"""Whatever lies there instead of a JSON file, reading it ends, and says what is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from csm_repl.files.json_files import read_json


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_unicode_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes('{"name": "Zoë"}'.encode(encoding))
    assert read_json(path) == {"name": "Zoë"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"name": "Zo\xeb"}', "not UTF-8"),
        (b"", "Expecting value"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    ],
)
def test_what_is_no_json_is_a_value_error(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=why):
        read_json(path)


def test_a_file_of_any_length_is_read_up_to_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="longer than 1 MB"):
        read_json(path, 2**20)


def test_a_pipe_a_device_and_a_folder_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", tmp_path, Path("/dev/zero")):
        with pytest.raises(ValueError, match="no regular file"):
            read_json(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "circle.json").symlink_to(tmp_path / "circle.json")
    for name in ("none.json", "circle.json"):
        with pytest.raises(OSError, match=name):
            read_json(tmp_path / name)
