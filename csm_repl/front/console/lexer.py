"""Colours what is typed by what it will mean: who speaks which turn, and what is no speech."""

from __future__ import annotations

from collections.abc import Callable, Collection

from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer

from csm_repl.front.printers.rich import speaker_color
from csm_repl.text.grammar import Command, Span, parse, spans
from csm_repl.text.voice_names import NOBODY, SpeakerNames

__all__ = ["LineLexer", "fragments", "speaker_style"]


def speaker_style(speaker: int) -> str:
    """In the speaker's colour, as the printer has it; below 0 there is nobody."""
    if speaker < 0:
        return "class:impossible"
    return f"fg:ansi{speaker_color(speaker).replace('_', '')}"


class LineLexer(Lexer):
    """Text in the colour of whoever will speak it; every row of it is a line of its own.

    Args:
        names: the commands there are.
        primary: the primary speaker at this moment.
        offsets: whether offsets can be written at this moment.
        voices: the names that turns can begin with at this moment.
    """

    def __init__(
        self,
        names: Collection[str],
        primary: Callable[[], int],
        offsets: Callable[[], bool] = lambda: True,
        voices: Callable[[], SpeakerNames] = lambda: NOBODY,
    ) -> None:
        self._names = names
        self._primary = primary
        self._offsets = offsets
        self._voices = voices

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        rows = document.lines
        primaries = [self._primary()]

        def get_line(number: int) -> StyleAndTextTuples:
            if number >= len(rows):
                return []
            for row in rows[len(primaries) - 1 : number]:
                primaries.append(_primary_after(row, primaries[-1]))
            return [
                *fragments(
                    rows[number],
                    self._names,
                    primaries[number],
                    offsets=self._offsets(),
                    voices=self._voices(),
                )
            ]

        return get_line


def _primary_after(row: str, primary: int) -> int:
    """The primary speaker after a row that may be a command."""
    parsed = parse(row) if "$" in row else None
    if not isinstance(parsed, Command) or parsed.mistyped:
        return primary
    return max(0, primary + {"SWAP": 1, "BACK": -1}.get(parsed.name, 0))


def fragments(
    text: str,
    names: Collection[str],
    primary: int,
    *,
    offsets: bool = True,
    voices: SpeakerNames = NOBODY,
) -> list[tuple[str, str]]:
    """`text` in pieces, each with its style."""
    result = []
    turn: list[Span] = []
    position = 0
    for span in [*spans(text, names, offsets=offsets, voices=voices), None]:
        if span is not None and span.kind in {"text", "name", "offset"}:
            turn.append(span)
            continue
        result += _turn_fragments(text, turn, primary + position, primary, voices)
        turn = []
        if span is not None:
            result.append((_STYLES.get(span.kind, ""), text[span.start : span.end]))
            position += span.kind == "separator"
    return result


_STYLES = {
    "separator": "class:separator",
    "command": "class:command",
    "command-args": "class:command-args",
    "comment": "class:comment",
    "heading": "class:heading",
}
_TURN_STYLES = {"name": " class:name", "offset": " class:offset"}


def _turn_fragments(
    text: str, turn: list[Span], speaker: int, primary: int, voices: SpeakerNames
) -> list[tuple[str, str]]:
    for span in turn:
        typed = text[span.start : span.end].strip()
        if span.kind == "offset":
            speaker = primary + int(typed.replace("−", "-"))
        elif span.kind == "name" and (named := voices.begin(typed)) is not None:
            speaker = named.voice.speaker
    style = speaker_style(speaker)
    return [(style + _TURN_STYLES.get(span.kind, ""), text[span.start : span.end]) for span in turn]
