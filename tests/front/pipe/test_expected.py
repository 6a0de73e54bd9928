from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from csm_repl.front.pipe.expected import expected_lines
from csm_repl.settings import Settings
from csm_repl.text.duration import expected_seconds


def test_lines_that_will_be_heard_are_counted_as_the_script_counts_them(tmp_path: Path) -> None:
    script = tmp_path / "talk.txt"
    script.write_bytes(b"One.||Two is longer.\n\n$SWAP$\r\nThree.||$CLEAR$\n||\n$NOPE$\nWin95\n")
    settings = Settings(references=tmp_path).with_value("offsets", "off", "test")
    found = expected_lines(settings, [str(script)])
    assert found is not None
    both = expected_seconds("One.") + expected_seconds("Two is longer.")
    assert found == {1: both, 4: 0.0, 6: 0.0, 7: expected_seconds("Win ninety-five")}


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
def test_what_can_be_read_only_once_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "talk")
    assert expected_lines(Settings(references=tmp_path), [str(tmp_path / "talk")]) is None
