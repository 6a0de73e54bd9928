"""The grammar of a line: turns, offsets, commands. Text in, plain data out.

`docs/grammar.md` is this page for users.

**Turns.** `||` separates turns, from the left. Outer white space of a turn is dropped, its inside is left
as typed (newlines, emoji, control characters) but for what can neither be seen nor said (`_INVISIBLE`). A
blank turn says nothing and keeps its position.

**Names.** A turn that begins with the name of a voice and a colon is that voice's. It has no offset: a number
at its end is spoken. The names are given to `parse`; without them there are none.

**Comments and headings.** `#` alone or with white space behind it, at the very beginning, makes the line a
comment, which does nothing; two to six of them make it a heading, the title of what follows. So does nothing
else: `#1` and `#csm` are text. `#!/` begins the first line of an executable script, and is a comment too.

**Offsets.** A written offset is `-?[0-9]{1,2}` (ASCII; the minus may be U+2212) at the very end of a turn:

* *alone*, after white space, if a sentence end comes before it (one of `_ENDS`, then closing quotes or
  brackets). The full stop of an abbreviation that takes a number (`Vol. 2`, `Chanel No. 5`) ends nothing.
* *glued* to a letter, an emoji, a sentence end, or a mark that closes or follows one of these. The letter's
  word has neither digits nor hyphens (`mp3` is `mp` and 3, `GPT-4` and `R2-D2` are names), nor is it a URL or
  a mail address.

Spoken, because they are part of a number or of a sign: three digits or more; a turn that is only a number;
a number glued to another by any mark (`3.5` `10:30` `10-1` `1/2` `1,50` `5'11`); a number glued to `$ # @ ^`,
another currency or mathematical sign, an opening bracket, the full stop of an abbreviation that takes a
number (`p.12`), or a mark that stands after white space (`'99` `:3` `.5`). A hyphen is a minus where no
letter, digit or other hyphen is before it: `Sure!-1` is -1, `COVID-19` a name, `Wait--1` is `Wait--` and 1.

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
from csm_repl.text.pauses import without_last_pauses
from csm_repl.text.sentences import takes_number
from csm_repl.text.voice_names import NOBODY, SpeakerNames, VoiceName

__all__ = [
    "SEPARATOR",
    "Command",
    "Heading",
    "Line",
    "Parsed",
    "Span",
    "SpanKind",
    "Turn",
    "closest",
    "parse",
    "render",
    "spans",
]

SEPARATOR = "||"
SpanKind = Literal["text", "separator", "name", "offset", "command", "command-args", "comment", "heading"]

_DIGITS = frozenset("0123456789")
_MINUSES = frozenset("-−")
_ENDS = frozenset(".!?…؟۔।॥‼⁇⁈⁉‽。！？｡")
_CLOSERS = frozenset("\"'”’“‘»«›‹)]}）］｝」』】〉》*_`")
_NUMBER_SIGNS = frozenset("#№@^")
# Marks after which a number is over. The apostrophe is none of them: 5'11 is one height.
_CLOSES_A_NUMBER = frozenset('"”“»«%‰')

# Soft hyphen, zero-width space, word joiner, byte order mark: left by editors and copied from web pages. The
# joiners of Persian, Indian scripts and emoji are not among them.
_INVISIBLE = "\u00ad\u180e\u200b\u2060\ufeff"
_INVISIBLES = str.maketrans("", "", _INVISIBLE)
_JOINERS = str.maketrans("", "", "\u200c\u200d\ufe0e\ufe0f")
_NAMED_BY_NUMBER = re.compile(r"(?<![\w.])(?:[Ff]igs?|[Cc]h|[Ee]q|[Nn]r|[Vv]|[Vv]er)\.\Z")
_ADDRESS = re.compile(
    r"[a-z][a-z0-9+.-]{1,15}://|www\.|[^\s@/]+@[^\s@]+\.|[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}/", re.IGNORECASE
)
_ADDRESS_WINDOW = 2048

_NOTE = re.compile(r"(#{1,6})(?=\s|\Z)|#!/")
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
    """What is added to the primary speaker: the written offset, else the position; 0 if it has a voice."""
    written: bool
    voice: VoiceName | None = None
    """Whom it names as its speaker."""

    def speaker(self, primary: int) -> int:
        """The speaker of this turn; may be below 0, see `Line.speakers`."""
        return primary + self.offset if self.voice is None else self.voice.speaker


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
class Heading:
    """A line that names the part of a script that it begins."""

    title: str


Parsed = Line | Command | Heading
"""What a line can be; a comment is an empty line."""


@dataclass(frozen=True)
class Span:
    """`text[start:end]` is of this kind."""

    start: int
    end: int
    kind: SpanKind


def parse(
    text: str, names: Collection[str] = (), *, offsets: bool = True, voices: SpeakerNames = NOBODY
) -> Parsed:
    """What a line means. Takes any text and never fails.

    Args:
        text: the line.
        names: the commands there are, in any case; with them more mistyped commands are recognised.
        offsets: whether offsets can be written; without, every number is spoken.
        voices: the names that a turn can begin with.
    """
    found = _find_command(text, names)
    if found is not None:
        return found[0]
    note = _find_note(text)
    if note is not None:
        return note
    turns = []
    for position, bounds in enumerate(_segments(text)):
        start, end = _trimmed(text, *bounds)
        turn = text[start:end]
        if (named := voices.begin(turn)) is not None:
            said = _visible(turn[named.end :])
            if said.translate(_JOINERS).strip():
                turns.append(Turn(position, said, 0, False, named.voice))
            continue
        cut = _find_offset(turn) if offsets else None
        if cut is not None:
            turns.append(Turn(position, _visible(turn[:cut]), int(turn[cut:].replace("−", "-")), True))
        elif turn.translate(_JOINERS).strip():
            turns.append(Turn(position, _visible(turn), position, False))
    return Line(tuple(turns))


def render(parsed: Parsed, voices: SpeakerNames = NOBODY) -> str:
    """A text that parses to `parsed`. Everything that `parse` returns can be rendered.

    Args:
        voices: those that `parse` had.

    Raises:
        ValueError: a line made by hand that no text can mean, such as the text `mp3` with a written offset.
    """
    if isinstance(parsed, Command):
        return f"${parsed.name}$ {parsed.args}".rstrip()
    if isinstance(parsed, Heading):
        return f"## {parsed.title}".rstrip()
    rendered, position = "", 0
    for turn in parsed.turns:
        # After `a|` the separator would begin one character early.
        rendered += " " if rendered.endswith("|") and turn.position > position else ""
        rendered += SEPARATOR * (turn.position - position)
        rendered += turn.text if turn.voice is None else f"{turn.voice.name}: {turn.text}"
        if turn.written:
            glued = f"{turn.text}{turn.offset}"
            rendered += f"{turn.offset}" if _find_offset(glued) == len(turn.text) else f" {turn.offset}"
        position = turn.position
    if parse(rendered, voices=voices) != parsed:
        raise ValueError(f"no text means {parsed!r}")
    return rendered


def spans(
    text: str, names: Collection[str] = (), *, offsets: bool = True, voices: SpeakerNames = NOBODY
) -> list[Span]:
    """`text` cut into what `parse` sees in it with the same arguments: in order, without gaps or empty spans.

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
        first, last = _trimmed(text, 0, len(text))
        add(first, "text")
        add(args_start, "command")
        add(args_end, "command-args")
        add(last, "command")
        add(len(text), "text")
        return result
    note = _find_note(text)
    if note is not None:
        add(len(text), "heading" if isinstance(note, Heading) else "comment")
        return result
    for start, end in _segments(text):
        add(start, "separator")
        first, last = _trimmed(text, start, end)
        named = voices.begin(text[first:last])
        cut = _find_offset(text[first:last]) if offsets and named is None else None
        if named is not None:
            add(first + named.end, "name")
        if cut is not None:
            add(first + cut, "text")
            add(last, "offset")
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
    if "$" not in text:
        return None
    # The first turn alone decides, and never by its last number: so no line is rendered as a command.
    begin, end_of_first = _trimmed(text, 0, len(text.partition(SEPARATOR)[0]))
    first = text[:end_of_first]
    match = _COMMAND.match(first, begin)
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
    while start < end and (text[start] == "$" or _is_blank(text[start])):
        start += 1
    while start < end and (text[end - 1] == "$" or _is_blank(text[end - 1])):
        end -= 1
    return Command(word.upper(), text[start:end].translate(_INVISIBLES), mistyped=not complete), start, end


def _find_note(text: str) -> Line | Heading | None:
    """A comment, as a line that says nothing, or a heading."""
    if "#" not in text:
        return None
    start, end = _trimmed(text, 0, len(text))
    match = _NOTE.match(text, start)
    if match is None:
        return None
    is_heading = match[1] is not None and len(match[1]) > 1
    return Heading(_visible(text[match.end() : end])) if is_heading else Line(())


def _is_blank(char: str) -> bool:
    return char.isspace() or char in _INVISIBLE


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """The bounds without what is blank at either end."""
    while start < end and _is_blank(text[start]):
        start += 1
    while start < end and _is_blank(text[end - 1]):
        end -= 1
    return start, end


def _visible(turn: str) -> str:
    return turn.translate(_INVISIBLES).strip()


def _segments(text: str) -> Iterator[tuple[int, int]]:
    """Bounds of the turns, blank ones too, with their outer white space."""
    start = 0
    while (end := text.find(SEPARATOR, start)) >= 0:
        yield start, end
        start = end + len(SEPARATOR)
    yield start, len(text)


def _find_offset(turn: str) -> int | None:
    """Where the written offset of a trimmed turn begins."""
    start = len(turn)
    while start and turn[start - 1] in _DIGITS:
        start -= 1
    if not 1 <= len(turn) - start <= 2:
        return None
    signed = turn[start - 1 : start] in _MINUSES and turn[start - 2 : start - 1] not in _MINUSES
    head = turn[: start - signed]
    _, end = _trimmed(head, 0, len(head))
    if end == 0:
        return None
    is_alone = any(char.isspace() for char in head[end:])
    is_offset = _ends_a_sentence(head[:end]) if is_alone else _takes_glued(head[:end], signed)
    return len(head) if is_offset else None


def _ends_a_sentence(head: str) -> bool:
    head = without_last_pauses(head)
    end = len(head)
    while end and head[end - 1] in _CLOSERS:
        end -= 1
    return end > 0 and head[end - 1] in _ENDS and not takes_number(head, len(head))


def _takes_glued(head: str, signed: bool) -> bool:
    """Whether a number right after `head`, which ends in nothing blank, is an offset."""
    if _is_named_by_number(head, signed):
        return False
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


def _is_named_by_number(head: str, signed: bool) -> bool:
    """Whether the number is part of a name: of `GPT-4`, `R2-D2`, a URL, `p.12`."""
    is_short = takes_number(head, len(head)) or _NAMED_BY_NUMBER.search(head, max(0, len(head) - 8))
    if head[-1] == "." and is_short:
        return True
    if head[-1].isalnum():
        start = len(head)
        while start and (head[start - 1].isalnum() or head[start - 1] in _MINUSES):
            start -= 1
        if signed or any(char in _MINUSES or char in _DIGITS for char in head[start:]):
            return True
    if head[-1] in _ENDS and head[-1] != ".":
        return False
    # A URL of any length would be looked through once for each turn; one that long is nobody's.
    token = head[-_ADDRESS_WINDOW:].rsplit(maxsplit=1)[-1].lstrip("(<[\"'")
    return _ADDRESS.match(token) is not None


def _shortened(text: str, width: int = 40) -> str:
    words = " ".join(text[: 4 * width].split())
    return f'"{words}"' if len(words) <= width else f'"{words[: width - 1].rstrip()}…"'
