"""Several lines at once, pasted or typed with Alt-Enter: they are what the same lines in a file are."""

from __future__ import annotations

from collections.abc import Sequence

from csm_repl.studio.commands import command_names
from csm_repl.text.formats import ScriptReader, Survey, open_reader
from csm_repl.text.grammar import Command, Line, parse

__all__ = ["block_reader", "is_command", "left_out", "lines_of", "pasted", "summary"]


def lines_of(text: str) -> list[str]:
    """The lines of `text` with something on them; a blank line does nothing."""
    return [line for line in text.split("\n") if line.strip()]


def pasted(text: str, *, at_end: bool = True) -> str:
    """`text` with every end of a line as a newline.

    Args:
        text: as it came from a terminal or an editor, with LF, CRLF or CR.
        at_end: whether nothing follows it; then the ends of its last line are dropped.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.rstrip("\n") if at_end else text


def block_reader(lines: Sequence[str]) -> ScriptReader:
    """Reads the lines as a script of just these would be read where no notation is set."""
    return open_reader("auto", command_names(), Survey.of(lines))


def is_command(line: str) -> bool:
    """Whether the line is one, mistyped ones included."""
    return isinstance(parse(line, command_names()), Command)


def summary(lines: Sequence[str]) -> str:
    """What several lines were understood as, before the first of them runs."""
    parsed = [parse(line, command_names()) for line in lines]
    n_commands = sum(isinstance(each, Command) for each in parsed)
    n_spoken = sum(isinstance(each, Line) and not each.empty for each in parsed)
    text = f"{len(lines)} lines, one after the other: {n_spoken} to speak"
    if n_commands:
        text += f", {n_commands} command{'s' if n_commands > 1 else ''}"
    return f"{text}. Ctrl-C stops them."


def left_out(n_lines: int) -> str:
    """What Ctrl-C did to the lines that were still to come."""
    if n_lines == 1:
        return "Left out the line that was still to come. Up recalls it."
    return f"Left out {n_lines} lines that were still to come. Up recalls them."
