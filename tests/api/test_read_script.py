from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from csm_repl import ScriptTurn, load_csm_1b, read_script

SCRIPT = """\
# A note.
## One
Ben: Really?||Ada: Yes, 2.
$SWAP$
Hello.||Bye.0
"""


def test_a_script_is_read_as_the_console_reads_it() -> None:
    assert read_script(SCRIPT, ["Ada", "Ben"]) == [
        ScriptTurn(1, "Really?", "Ben", 3, "One"),
        ScriptTurn(0, "Yes, 2.", "Ada", 3, "One"),
        ScriptTurn(1, "Hello.", None, 5, "One"),
        ScriptTurn(1, "Bye.", None, 5, "One"),
    ]


def test_lines_may_come_from_a_file_and_voices_by_number(tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_text("[S1] Hi. [S2] Ho.\r\n")
    with (tmp_path / "talk.txt").open() as file:
        turns = read_script(file, {"Ben": 7})
    assert [(turn.speaker, turn.text, turn.name) for turn in turns] == [(0, "Hi.", "S1"), (1, "Ho.", "S2")]
    assert read_script("Ben: Hi.", {"Ben": 7})[0].speaker == 7
    assert read_script("Hi.||Ho.", speaker=3)[1].speaker == 4


@pytest.mark.parametrize(
    ("script", "arguments", "told"),
    [
        ("Hi.\nHo.-1", {}, r"line 2: .*speaker -1"),
        ("$SET seed 1$", {}, r"line 1: \$SET\$ is a command of the console"),
        ("{}", {"format": "jsonl"}, r"line 1: .*with a text"),
        ("Hi.", {"format": "srt"}, "format must be"),
        ("Hi.", {"voices": "Ada"}, "voices must be a list"),
    ],
)
def test_what_cannot_be_read_is_one_error(script: str, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_script(script, **arguments)


def test_its_turns_are_what_generate_takes(quick_checkpoint: Path) -> None:
    generator = load_csm_1b(quick_checkpoint, "cpu", dtype="float32")
    turns = read_script("Ada: It's 5 o'clock. [pause 0.1] Really?||Ben: Yes.", ["Ada", "Ben"])
    takes = generator.generate_batch(
        [{"text": turn.text, "speaker": turn.speaker, "normalize": "safe"} for turn in turns]
    )
    assert all(len(take) for take in takes)
