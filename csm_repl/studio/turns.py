"""A line's turns as they will be spoken: who says what, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from csm_repl.errors import LineError
from csm_repl.settings import LAST_SPEAKER
from csm_repl.studio.said import said_text, unwritable_notice
from csm_repl.text.grammar import Line
from csm_repl.text.normalise import PronounceTable, Replacement
from csm_repl.text.pauses import without_pauses

__all__ = ["LineTurn", "line_turns"]


@dataclass(frozen=True)
class LineTurn:
    """A turn of a line as it was understood."""

    speaker: int
    voice: str
    text: str
    """As typed."""
    said: str
    """As the model gets it, pauses in it."""
    replacements: tuple[Replacement, ...]
    """As in `SaidText`."""
    position: int
    """Where it stands in the line, empty turns counted, from 0."""


def line_turns(
    line: Line,
    primary: int,
    *,
    names: Mapping[int, str | None],
    normalize: str,
    table: PronounceTable,
    unwritable: Callable[[str], str] = lambda _: "",
) -> tuple[list[LineTurn], str | None]:
    """The turns that have something to say, and what to tell about signs that are left out.

    Args:
        line: not empty.
        primary: the speaker that offsets count from.
        names: of the speakers that have a voice; None for a voice without a name.
        normalize: `safe` or `off`, as the setting.
        table: the user's own way of saying words.
        unwritable: a text -> its characters that the model has no tokens for.

    Raises:
        LineError: a speaker below 0 or above the last one, a turn with nothing to say, or too long a pause.
    """
    turns = []
    for speaker, turn in zip(line.speakers(primary), line.turns, strict=True):
        said = said_text(turn.text, normalize, table)
        given = turn.voice.name if turn.voice is not None else f"speaker {speaker}"
        voice = names.get(speaker) or given
        turns.append(LineTurn(speaker, voice, turn.text, said.said, said.replacements, turn.position))
    last = max(turns, key=lambda turn: turn.speaker)
    if last.speaker > LAST_SPEAKER:
        raise LineError(
            f"Turn {last.position + 1} would be spoken by speaker {last.speaker}, and the last one is "
            f"{LAST_SPEAKER}; nothing was spoken.",
            "Write a lower offset, or go down with $BACK$ or $SET speaker 0$.",
        )
    spoken = [without_pauses(turn.said) for turn in turns]
    notice = unwritable_notice(
        [(turn, words, unwritable(words)) for turn, words in zip(line.turns, spoken, strict=True)]
    )
    return turns, notice
