from __future__ import annotations

from csm_repl.front.console.block import is_command, lines_of, pasted, summary


def test_blank_lines_say_nothing() -> None:
    assert lines_of("") == lines_of(" \n\t\n") == []
    assert lines_of("one\n\n  two \n") == ["one", "  two "]


def test_every_end_of_a_line_is_one() -> None:
    assert pasted("a\r\nb\rc\nd\r\n\r\n") == "a\nb\nc\nd"
    assert pasted("a\r\n", at_end=False) == "a\n"


def test_a_block_is_summed_up_before_it_runs() -> None:
    lines = ["Hello.", "$SWAP$", "$clear", "It costs $5."]
    assert [is_command(line) for line in lines] == [False, True, True, False]
    assert summary(lines) == "4 lines, one after the other: 2 to speak, 2 commands. Ctrl-C stops them."
    assert summary(["One.", "Two."]) == "2 lines, one after the other: 2 to speak. Ctrl-C stops them."
