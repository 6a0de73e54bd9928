"""The scripts of a run: looked at before anything is loaded, opened one after the other."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from csm_repl.errors import LineError, UsageError
from csm_repl.front.pipe.lines import first_unreadable, read_lines, rows_elsewhere
from csm_repl.studio.commands import COMMANDS
from csm_repl.text.formats import ScriptReader, Survey, open_reader

__all__ = [
    "STDIN",
    "ScriptRow",
    "check_scripts",
    "open_script",
    "place_of",
    "script_labels",
    "script_reader",
    "script_rows",
]

STDIN = "-"
_REMEDY = "Give a text file, or - for stdin."


def check_scripts(scripts: Sequence[str]) -> None:
    """UsageError for what is not there, cannot be read or is no text. Pipes are not looked into."""
    if scripts.count(STDIN) > 1:
        raise UsageError("stdin can be read only once.", "Give - only once.")
    for script in scripts:
        path = Path(script)
        if script == STDIN or path.is_fifo() or path.is_char_device():
            continue
        with open_script(script):
            pass


def script_labels(scripts: Sequence[str]) -> list[str | None]:
    """What to call each script before a line's number; None for one that is alone."""
    if len(scripts) == 1:
        return [None]
    labels: list[str | None] = []
    for index, script in enumerate(scripts):
        name, n_before = ("stdin" if script == STDIN else script), scripts[:index].count(script)
        labels.append(f"{name} ({n_before + 1})" if n_before else name)
    return labels


def place_of(label: str | None, line: int) -> int | str:
    """Where a line is: its number, or `talk.txt:3` where there are several scripts."""
    return line if label is None else f"{label}:{line}"


@dataclass(frozen=True)
class ScriptRow:
    """A line of a script before it is read."""

    label: str | None
    """What to call the script, where there are several."""
    number: int
    text: str | LineError
    """Or why there is none."""
    reader: ScriptReader
    """Of the script's notation."""

    @property
    def place(self) -> int | str:
        return place_of(self.label, self.number)


def script_rows(scripts: Sequence[str], how: str) -> Iterator[ScriptRow]:
    """The lines of scripts, one script after the other; `how` is the setting `format`.

    Raises:
        UsageError: as `check_scripts`.
    """
    for label, script in zip(script_labels(scripts), scripts, strict=True):
        with open_script(script) as file:
            reader = script_reader(how, file)
            for number, text in read_lines(file):
                yield ScriptRow(label, number, text, reader)


@contextlib.contextmanager
def open_script(script: str) -> Iterator[io.BufferedReader]:
    """A script, or stdin, at its first line.

    Raises:
        UsageError: as `check_scripts`.
    """
    if script == STDIN:
        # The parent may have closed it.
        stdin = cast("io.BufferedReader", sys.stdin.buffer if sys.stdin else io.BufferedReader(io.BytesIO()))
        # Where a shell's < began; a pipe has no place, and is not looked at.
        with contextlib.suppress(OSError, ValueError):
            descriptor = stdin.fileno()
            _refuse_unreadable(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR), "stdin")
        yield stdin
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(script).open("rb"))
            file.peek(1)
        except OSError as error:
            raise UsageError(f"The script {script} cannot be read: {error.strerror}.", _REMEDY) from error
        _refuse_unreadable(file.fileno(), 0, script)
        yield file


def script_reader(how: str, file: io.BufferedReader) -> ScriptReader:
    """Reads the notation of an open script, whose position stays.

    Args:
        how: the setting `format`.
        file: looked through first, if that is possible and any use.
    """
    survey = None if how in {"plain", "jsonl"} else _survey_of(file)
    return open_reader(how, COMMANDS, survey)


def _survey_of(file: io.BufferedReader) -> Survey | None:
    """What the whole of a script looks like; None for a pipe."""
    try:
        start = file.tell() if file.seekable() else 0
        rows = rows_elsewhere(file.fileno(), start)
    except (OSError, ValueError):
        return None
    return None if rows is None else Survey.of(row for _, row in rows if isinstance(row, str))


def _refuse_unreadable(descriptor: int, start: int, name: str) -> None:
    """A script that is not text is refused as a whole, before the model is loaded."""
    found = first_unreadable(descriptor, start)
    if found is not None:
        number, error = found
        assert isinstance(error, LineError)
        raise UsageError(f"The script {name} is not spoken: line {number}: {error.cause}", error.remedy)
