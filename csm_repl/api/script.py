"""Dialogue as text, in any notation that the program reads, as turns for `Generator.generate`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from csm_repl.errors import LineError
from csm_repl.text.command_names import COMMAND_NAMES
from csm_repl.text.formats import FORMATS, Survey, open_reader
from csm_repl.text.grammar import Command, Heading
from csm_repl.text.voice_names import Roster

__all__ = ["ScriptTurn", "read_script"]


@dataclass(frozen=True)
class ScriptTurn:
    """What one speaker says."""

    speaker: int
    text: str
    """As written; `[pause 0.5]` stays in it, and is silence where `normalize` is `safe`."""
    name: str | None
    """What the script calls the speaker."""
    line: int
    """Where it was read, from 1."""
    part: str
    """The heading above it; "" where there is none."""


def read_script(
    script: str | Iterable[str],
    voices: Sequence[str | None] | Mapping[str, int] = (),
    *,
    format: str = "auto",
    offsets: bool = True,
    speaker: int = 0,
) -> list[ScriptTurn]:
    """Reads dialogue as the console and scripts do; docs/grammar.md has the rules.

        for turn in read_script(open("talk.txt"), ["Ada", "Ben"]):
            audio = generator.generate(turn.text, turn.speaker, context, normalize="safe")

    Args:
        script: the text, or its lines.
        voices: names of the speakers 0, 1, ..., or name -> speaker.
        format: `auto`, `plain`, `names`, `tags` or `jsonl`.
        offsets: whether a number at the end of a plain turn says who speaks it.
        speaker: the primary speaker, from which plain turns count; `$SWAP$` and `$BACK$` move it.

    Raises:
        ValueError: a line that nobody can speak, by its number, or an argument, by its name.
    """
    if format not in ("auto", *FORMATS):
        raise ValueError(f"format must be auto, {', '.join(FORMATS)}, not {format!r}.")
    rows = script.splitlines() if isinstance(script, str) else [row.rstrip("\r\n") for row in script]
    reader = open_reader(format, COMMAND_NAMES, Survey.of(rows))
    roster = _roster(voices)
    primary, part = speaker, ""
    turns: list[ScriptTurn] = []
    for number, row in enumerate(rows, 1):
        try:
            parsed = reader.read(row, roster, offsets=offsets)
            if isinstance(parsed, Heading):
                part = parsed.title
            elif isinstance(parsed, Command):
                primary = _moved(primary, parsed)
            else:
                turns += (
                    ScriptTurn(who, turn.text, turn.voice.name if turn.voice else None, number, part)
                    for who, turn in zip(parsed.speakers(primary), parsed.turns, strict=True)
                )
        except LineError as error:
            raise ValueError(f"script, line {number}: {error.cause} {error.remedy}") from error
    return turns


def _roster(voices: Sequence[str | None] | Mapping[str, int]) -> Roster:
    if isinstance(voices, str):
        raise ValueError(f"voices must be a list of names, not the string {voices!r}.")
    if isinstance(voices, Mapping):
        return Roster({speaker: name for name, speaker in voices.items()})
    return Roster(dict(enumerate(voices)))


def _moved(primary: int, command: Command) -> int:
    step = {"SWAP": 1, "BACK": -1}.get(command.name)
    if step is None or command.mistyped or command.args:
        raise LineError(
            f"${command.name}$ is a command of the console.", "Only $SWAP$ and $BACK$ are read here."
        )
    return max(0, primary + step)
