"""What a line of input means, and what is done about it: one way for the console, pipes and scripts."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from csm_repl.errors import LineError
from csm_repl.events import Event, Notice, ScriptLine
from csm_repl.studio.commands import COMMANDS, run_command
from csm_repl.text.formats import ScriptReader, open_reader
from csm_repl.text.grammar import Command, Heading, Line, Parsed, parse
from csm_repl.text.voice_names import Roster

if TYPE_CHECKING:
    from csm_repl.studio import Studio

__all__ = ["bare_word_hint", "read_line", "run_line", "understood"]

_BARE_WORD = re.compile(r"[/:\\]?([a-z]+|\?)(?:\(\))?", re.IGNORECASE)
_OTHER_WORDS = {"?": "HELP", "QUIT": "EXIT", "Q": "EXIT"}
"""What other programs call our commands."""


def bare_word_hint(text: str) -> str | None:
    """What to answer to the bare word of a command (`exit`, `?`, `/help`, `quit()`); None: it is none.

    For front ends with somebody at a keyboard, to show instead of speaking the line. In a pipe such a line
    is text.
    """
    match = _BARE_WORD.fullmatch(text.strip())
    word = match[1].upper() if match else ""
    command = COMMANDS.get(_OTHER_WORDS.get(word, word))
    if command is None:
        return None
    spoken = "" if word == "?" else f" To have the word spoken, put a full stop after it: {match[1]}."  # type: ignore[index]
    return f"Nothing was spoken. Commands stand between dollar signs: {command.usage}.{spoken}"


def run_line(
    studio: Studio, text: str, script: ScriptLine | None = None, reader: ScriptReader | None = None
) -> Iterator[Event]:
    """Whatever a line of input means: speaks it, runs it as a command, or does nothing.

    Args:
        studio: speaks it.
        text: of the line.
        script: where it was read; None: somebody typed it.
        reader: of the script's notation; None: it is plain.

    Raises:
        CsmReplError: as `Studio.speak` and `run_command`.
    """
    parsed = yield from understood(studio, text, reader)
    if isinstance(parsed, Command):
        yield from run_command(studio, parsed)
    elif isinstance(parsed, Line):
        yield from studio.speak(parsed, script=script)


def understood(
    studio: Studio, text: str, reader: ScriptReader | None = None
) -> Generator[Event, None, Parsed]:
    """What a line of input means, with the voices as they are now. A heading takes effect at once.

    Raises:
        LineError: as `read_line`.
    """
    reader = reader or open_reader("plain", COMMANDS)
    if ":" in text or "：" in text or "]" in text:
        # A clip that has just come may be whom a turn names.
        yield from studio.refresh_voices()
    parsed = read_line(reader, text, studio.roster, offsets=studio.settings.offsets == "on")
    for news in reader.news():
        yield Notice(news)
    if isinstance(parsed, Heading):
        studio.part = parsed.title
        yield Notice(f"Part: {parsed.title}" if parsed.title else "The part before has ended.")
    return parsed


def read_line(reader: ScriptReader, text: str, voices: Roster, *, offsets: bool = True) -> Parsed:
    """A line of input as a command, as turns, or as a heading.

    Args:
        reader: of the notation.
        text: the line.
        voices: those that turns can name.
        offsets: whether offsets can be written.

    Raises:
        LineError: a command among turns, or a line that the notation does not have.
    """
    parsed = reader.read(text, voices, offsets=offsets)
    if isinstance(parsed, Line):
        for turn in parsed.turns:
            if "$" in turn.text and isinstance(parse(turn.text, COMMANDS), Command):
                raise LineError(
                    f"Turn {turn.position + 1} is a command ({turn.text[:40]}); nothing was spoken.",
                    "Put the command on a line of its own.",
                )
    return parsed
