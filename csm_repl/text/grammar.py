"""The grammar of a line: turns, offsets, commands. Text in, plain data out.

`docs/grammar.md` is this page for users.

**Turns.** `||` separates turns, from the left. Outer white space of a turn is dropped, its inside is left
as typed (newlines, emoji, control characters). A blank turn says nothing and keeps its position.

**Offsets.** A written offset is `-?[0-9]{1,2}` (ASCII; the minus may be U+2212) at the very end of a turn:

* *alone*, after white space, if a sentence end comes before it (one of `_ENDS`, then closing quotes or
  brackets). The full stop of an abbreviation that takes a number (`Vol. 2`, `Chanel No. 5`) ends nothing.
* *glued* to a letter, an emoji, a sentence end, or a mark that closes or follows one of these.

Spoken, because they are part of a number or of a sign: three digits or more; a turn that is only a number;
a number glued to another by any mark (`3.5` `10:30` `10-1` `1/2` `1,50` `5'11`); a number glued to `$ # @ ^`,
another currency or mathematical sign, an opening bracket, or a mark that stands after white space
(`'99` `:3` `.5`). Of two hyphens none is a minus: `Wait--1` is `Wait--` and 1. One hyphen always is:
`ok-1` is `ok` and -1, hence `COVID-19` has to be written `COVID-19.` to be spoken.

**Commands.** A line is a command if its first turn begins with `$` and a word (a letter, then letters,
digits, `-` or `_`), and a `$` closes the word or the turn. What follows is its arguments, `||` too: a line
that begins as a command is never spoken. Mistyped, and commands as well, are `$WORD` and `WORD$` alone; and,
if WORD is one of the known names, `$WORD args`, `WORD$ args` and (in capitals only, for the sake of
`Save 5$`) `WORD args$`. How alike two words are decides nothing here, only in the answer: see `closest`.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

from csm_repl.errors import LineError
from csm_repl.text.sentences import takes_number

__all__ = [
    "SEPARATOR",
    "Command",
    "Line",
    "Span",
    "SpanKind",
    "Turn",
    "closest",
    "parse",
    "render",
    "spans",
]

SEPARATOR = "||"
SpanKind = Literal["text", "separator", "offset", "command", "command-args"]

_DIGITS = frozenset("0123456789")
_MINUSES = frozenset("-−")
_ENDS = frozenset(".!?…؟۔।॥‼⁇⁈⁉‽。！？｡")
_CLOSERS = frozenset("\"'”’“‘»«›‹)]}）］｝」』】〉》*_`")
_NUMBER_SIGNS = frozenset("#№@^")
# Marks after which a number is over. The apostrophe is none of them: 5'11 is one height.
_CLOSES_A_NUMBER = frozenset('"”“»«%‰')

# `upper()` of some letters adds a combining accent, so the word has to allow for them.
_COMMAND = re.compile(r"(\$*)\s*([^\W\d_][\w\-−\u0300-\u036f]*)(\$*)")


# With the case they have in running text: a fig. and a sec. do end sentences, Fig. and Sec. do not; and
# `No. 1` is an answer and an offset, but a capital inside a sentence makes it a numero.
@dataclass(frozen=True)
class Turn:
    """What one speaker says."""

    position: int
    """0-based place in the line; blank turns count."""
    text: str
    offset: int
    """What is added to the primary speaker: the written offset, else the position."""
    written: bool

    def speaker(self, primary: int) -> int:
        """The speaker of this turn; may be below 0, see `Line.speakers`."""
        return primary + self.offset


@dataclass(frozen=True)
class Line:
    """The turns of one line that have something to say, in order."""

    turns: tuple[Turn, ...]

    @property
    def empty(self) -> bool:
        return not self.turns

    def speakers(self, primary: int) -> tuple[int, ...]:
        """The speaker of each turn.

        Raises:
            LineError: a speaker would be below 0; names the first such turn.
        """
        for turn in self.turns:
            if turn.speaker(primary) < 0:
                raise LineError(
                    f"Turn {turn.position + 1} ({_shortened(turn.text)}) would be spoken by speaker "
                    f"{turn.speaker(primary)}: primary speaker {primary}, offset {turn.offset}.",
                    "Speakers start at 0: write a higher offset, or go up with $SWAP$. "
                    "To have the number spoken, put a full stop after it.",
                )
        return tuple(turn.speaker(primary) for turn in self.turns)


@dataclass(frozen=True)
class Command:
    """A line that is an instruction. Its name need not exist: who dispatches answers that."""

    name: str
    """In upper case, without dollar signs."""
    args: str = ""
    """As typed; white space and dollar signs at either end are dropped."""
    # Not compared: it tells how the command was typed, not which one it is.
    mistyped: bool = field(default=False, compare=False)
    """A dollar sign is missing, so that the name is to be suggested rather than obeyed."""


@dataclass(frozen=True)
class Span:
    """`text[start:end]` is of this kind."""

    start: int
    end: int
    kind: SpanKind


def parse(text: str, names: Collection[str] = ()) -> Line | Command:
    """What a line means. Takes any text and never fails.

    Args:
        names: the commands there are, in any case; with them more mistyped commands are recognised.
    """
    found = _find_command(text, names)
    if found is not None:
        return found[0]
    turns = []
    for position, (start, end) in enumerate(_segments(text)):
        turn = text[start:end].strip()
        cut = _find_offset(turn)
        if cut is not None:
            turns.append(Turn(position, turn[:cut].rstrip(), int(turn[cut:].replace("−", "-")), True))
        elif turn:
            turns.append(Turn(position, turn, position, False))
    return Line(tuple(turns))


def render(parsed: Line | Command) -> str:
    """A text that parses to `parsed`. Everything that `parse` returns can be rendered.

    Raises:
        ValueError: a line made by hand that no text can mean, such as the text `mp3` with a written offset.
    """
    if isinstance(parsed, Command):
        return f"${parsed.name}$ {parsed.args}".rstrip()
    rendered, position = "", 0
    for turn in parsed.turns:
        # After `a|` the separator would begin one character early.
        rendered += " " if rendered.endswith("|") and turn.position > position else ""
        rendered += SEPARATOR * (turn.position - position) + turn.text
        if turn.written:
            glued = f"{turn.text}{turn.offset}"
            rendered += f"{turn.offset}" if _find_offset(glued) == len(turn.text) else f" {turn.offset}"
        position = turn.position
    if parse(rendered) != parsed:
        raise ValueError(f"no text means {parsed!r}")
    return rendered


def spans(text: str, names: Collection[str] = ()) -> list[Span]:
    """`text` cut into what `parse(text, names)` sees in it: in order, without gaps or empty spans.

    White space is in the span beside it or in a `text` span of its own.
    """
    result: list[Span] = []

    def add(end: int, kind: SpanKind) -> None:
        start = result[-1].end if result else 0
        if end > start:
            result.append(Span(start, end, kind))

    found = _find_command(text, names)
    if found is not None:
        _, args_start, args_end = found
        add(len(text) - len(text.lstrip()), "text")
        add(args_start, "command")
        add(args_end, "command-args")
        add(len(text.rstrip()), "command")
        add(len(text), "text")
        return result
    for start, end in _segments(text):
        add(start, "separator")
        turn = text[start:end].strip()
        cut = _find_offset(turn)
        if cut is not None:
            stop = start + len(text[start:end].rstrip())
            add(stop - len(turn) + cut, "text")
            add(stop, "offset")
        add(end, "text")
    return result


def closest(name: str, names: Collection[str]) -> str | None:
    """The one of `names` that a mistyped `name` most likely means, or None. Case and `$` are ignored."""
    word = name.strip().strip("$").strip().upper()
    by_upper = {known.upper(): known for known in names}
    begun = [known for known in by_upper if word and known.startswith(word)]
    alike = begun if len(begun) == 1 else difflib.get_close_matches(word, by_upper, n=1)
    return by_upper[alike[0]] if alike else None


def _find_command(text: str, names: Collection[str]) -> tuple[Command, int, int] | None:
    """The command and the bounds of its arguments."""
    # The first turn alone decides, and never by its last number: so no line is rendered as a command.
    first = text.partition(SEPARATOR)[0].rstrip()
    match = _COMMAND.match(first, len(first) - len(first.lstrip()))
    if match is None or not match[2][0].isalpha():
        return None
    opening, word, closing = match.groups()
    known = any(word.upper() == name.upper() for name in names)
    alone = match.end() == len(first)
    complete = bool(opening and (closing or first.endswith("$")))
    if opening:
        is_command = complete or alone or known
    elif closing:
        is_command = alone or (known and first[match.end()].isspace())
    else:
        is_command = known and word.isupper() and first.endswith("$")
    if not is_command:
        return None
    start, end = match.end(), len(text)
    while start < end and (text[start] == "$" or text[start].isspace()):
        start += 1
    while start < end and (text[end - 1] == "$" or text[end - 1].isspace()):
        end -= 1
    return Command(word.upper(), text[start:end], mistyped=not complete), start, end


def _segments(text: str) -> Iterator[tuple[int, int]]:
    """Bounds of the turns, blank ones too, with their outer white space."""
    start = 0
    while (end := text.find(SEPARATOR, start)) >= 0:
        yield start, end
        start = end + len(SEPARATOR)
    yield start, len(text)


def _find_offset(turn: str) -> int | None:
    """Where the written offset of a stripped turn begins."""
    start = len(turn)
    while start and turn[start - 1] in _DIGITS:
        start -= 1
    if not 1 <= len(turn) - start <= 2:
        return None
    signed = turn[start - 1 : start] in _MINUSES and turn[start - 2 : start - 1] not in _MINUSES
    head = turn[: start - signed]
    if not head:
        return None
    is_offset = _ends_a_sentence(head.rstrip()) if head[-1].isspace() else _takes_glued(head, signed)
    return len(head) if is_offset else None


def _ends_a_sentence(head: str) -> bool:
    end = len(head)
    while end and head[end - 1] in _CLOSERS:
        end -= 1
    return end > 0 and head[end - 1] in _ENDS and not takes_number(head, len(head))


def _takes_glued(head: str, signed: bool) -> bool:
    """Whether a number right after `head`, which ends in no white space, is an offset."""
    mark = ""
    for index in range(len(head) - 1, -1, -1):
        char = head[index]
        category = unicodedata.category(char)
        if category in {"Mn", "Me", "Mc", "Cf"}:
            continue  # part of the character before it
        if char.isspace():
            return False
        if category[0] == "N":
            decimal = index == len(head) - 2 and not signed
            return mark in _CLOSES_A_NUMBER or (mark == "." and not decimal)
        if category == "Pe" or (char in _ENDS and (char != "." or mark == ".")):
            return True
        if char in _NUMBER_SIGNS or category in {"Sc", "Sm", "Ps"}:
            return False
        if category[0] != "P" and char != "`":
            return True
        mark = char
    return False


def _shortened(text: str, width: int = 40) -> str:
    words = " ".join(text[: 4 * width].split())
    return f'"{words}"' if len(words) <= width else f'"{words[: width - 1].rstrip()}…"'
