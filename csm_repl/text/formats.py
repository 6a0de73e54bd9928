"""Other people's notations of a dialogue, read as the same lines, commands and headings as our own.

    plain   a line as `docs/grammar.md` has it
    names   `Name: text`, `Speaker 1: text`; a line without a name goes on with the speaker before it
    tags    `[S1] text [S2] text`, also `[SPEAKER_00]`, `[Speaker 1]`, `[0]` and `[Name]`
    jsonl   an object a line with `text` and `speaker`, a number or a name; or a list of them

Comments, headings and commands are read in all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from typing import Any, Literal, Protocol, get_args

from csm_repl.errors import LineError
from csm_repl.text.cast import Cast
from csm_repl.text.grammar import Command, Heading, Line, Parsed, Turn, parse
from csm_repl.text.voice_names import NamedTurn, Roster, VoiceName, could_be_name, folded_name

__all__ = ["FORMATS", "Format", "ScriptReader", "Survey", "number_in", "open_reader"]

Format = Literal["plain", "names", "tags", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)

_NEARLY_ALL = 0.9
_LEAST_NAMES = 3
"""Lines that two names must have said before they are a dialogue and no list."""
_MOST_REMEMBERED = 10_000
_MOST_DIGITS = 9
"""Of a speaker's number in a string; a longer one is a name."""
_WORD = r"[^\W_]+(?:['’][^\W_]+)?"
_PERSON = rf"(?P<name>(?!\d){_WORD}(?:(?:\.?\s|[.&_-]|\s?&\s?){_WORD}){{0,4}}\.?)"
_NAME = re.compile(
    # A time, as transcripts have it; a bullet; Markdown's marks; how it is said, in brackets.
    r"(?:[\[(]?\d{1,2}(?::\d{2}){1,2}(?:[.,]\d{1,3})?[\])]?\s{1,3}(?:[-–—]\s{1,3})?)?"
    rf"(?:[-*•]\s{{1,3}})?(?:\*{{0,3}}|_{{0,3}}){_PERSON}"
    r"(?:\s?(?:\*{1,3}|_{1,3}))?(?:\s?[(\[][^()\[\]\n]{0,80}[)\]])?\s?(?::(?:\*{1,3}|_{1,3})?(?=\s|\Z)|：)"
)
_NUMBERED = re.compile(
    r"(?:speaker|spk|s|voice|person|host|guest)?[\s_#-]{0,2}(?P<number>\d{1,3})", re.IGNORECASE
)
_TAG = re.compile(r"\[\s?(?P<tag>(?:s|spk|speaker)?[\s_-]?\d{1,3})\s?\]\s?:?", re.IGNORECASE)
_CLEAR_TAG = re.compile(r"\[\s?(?:s|spk|speaker)[\s_-]?\d{1,3}\s?\]", re.IGNORECASE)
_CLEAR_NUMBER = re.compile(r"speaker[\s_]?\d{1,3}\s?[:：]\s", re.IGNORECASE)
_SIGNS = re.compile("[:：\\[{#$]")
"""A line without any of these is a plain one with text, or empty."""
_NAME_TAG = re.compile(r"\[\s?(?P<tag>[^\[\]\n]{1,60})\s?\]\s?:?")


class ScriptReader(Protocol):
    """Reads a script line by line."""

    def read(self, text: str, voices: Roster, *, offsets: bool = True) -> Parsed:
        """What the next line means.

        Args:
            text: the line.
            voices: those that have a name, and the others' numbers.
            offsets: whether a plain line can have offsets.

        Raises:
            LineError: it is not what the notation has.
        """
        ...

    def news(self) -> list[str]:
        """What the user should know about how the script is read; each sentence once."""
        ...


def open_reader(how: str, commands: Collection[str], survey: Survey | None = None) -> ScriptReader:
    """A reader for one script.

    Args:
        how: one of `FORMATS`, or `auto`.
        commands: their names.
        survey: of the whole script; None: it can be read only once, so that `auto` looks at its first line.
    """
    if how == "auto" and survey is None:
        return _Undecided(commands)
    chosen = survey.format() if how == "auto" and survey is not None else how
    reader = _reader(chosen, commands, survey)
    if how == "auto" and chosen != "plain":
        reader.told.append(_told(chosen))
    return reader


def _told(chosen: str) -> str:
    what = {
        "names": "names before its lines (Name: text)",
        "tags": "speakers in tags ([S1] text)",
        "jsonl": "a JSON object a line",
    }[chosen]
    return f"The script has {what} and is read as --format {chosen}; --format plain speaks it as it stands."


def _reader(chosen: str, commands: Collection[str], survey: Survey | None) -> _Reader:
    if chosen == "plain":
        return _Plain(commands)
    kind = {"names": _Names, "tags": _Tags, "jsonl": _Jsonl}[chosen]
    return kind(commands, Cast(survey.numbers if survey is not None else ()))


# --- readers ------------------------------------------------------------------------------------------


class _Reader:
    def __init__(self, commands: Collection[str]) -> None:
        self._commands = commands
        self.told: list[str] = []

    def read(self, text: str, voices: Roster, *, offsets: bool = True) -> Parsed:
        raise NotImplementedError

    def news(self) -> list[str]:
        told, self.told = self.told, []
        return told


class _Plain(_Reader):
    def read(self, text: str, voices: Roster, *, offsets: bool = True) -> Parsed:
        return parse(text, self._commands, offsets=offsets, voices=voices)


class _Undecided(_Reader):
    """Takes the notation that the first line shows beyond doubt, else plain text."""

    def __init__(self, commands: Collection[str]) -> None:
        super().__init__(commands)
        self._reader: _Reader | None = None

    def read(self, text: str, voices: Roster, *, offsets: bool = True) -> Parsed:
        if self._reader is None:
            parsed = parse(text, self._commands, offsets=offsets, voices=voices)
            if not isinstance(parsed, Line) or parsed.empty:
                return parsed
            chosen = _shown_by(text.strip())
            self._reader = _reader(chosen, self._commands, None)
            if chosen != "plain":
                self.told.append(_told(chosen))
        parsed = self._reader.read(text, voices, offsets=offsets)
        self.told += self._reader.news()
        return parsed


class _Foreign(_Reader):
    """Turns whose speakers are called by names or numbers."""

    def __init__(self, commands: Collection[str], cast: Cast) -> None:
        super().__init__(commands)
        self._cast = cast
        self._last: VoiceName | None = None
        """Who spoke last; goes on where nobody is named."""

    def read(self, text: str, voices: Roster, *, offsets: bool = True) -> Parsed:
        self._cast.look(voices)
        parsed = self._parsed(text)
        self.told += self._cast.news()
        return parsed

    def _parsed(self, text: str) -> Parsed:
        parsed = parse(text, self._commands, offsets=False)
        return parsed if _is_no_text(parsed) else self._line(text)

    def _line(self, text: str) -> Line:
        raise NotImplementedError

    def _turn(self, position: int, text: str, voice: VoiceName | None) -> Turn:
        self._last = voice or self._last
        return Turn(position, text, 0, False, self._last)


class _Names(_Foreign):
    def _line(self, text: str) -> Line:
        before = self._last
        parsed = parse(text, self._commands, offsets=False, voices=_FirstNames(self))
        assert isinstance(parsed, Line)
        # Whoever is named last goes on, be it without a word; before anybody is named, who spoke before.
        named, self._last = self._last, before
        turns = tuple(self._turn(turn.position, turn.text, turn.voice) for turn in parsed.turns)
        self._last = named
        return Line(turns)

    def called(self, name: str) -> VoiceName | None:
        """Who is called so; None: it is no name but a part of what is said."""
        number = number_in(name)
        if number is None and self._cast.known(name) is None and not could_be_name(name):
            return None
        self._last = self._cast.speaker(name, number)
        return self._last


class _FirstNames:
    """Whoever a turn names is a speaker."""

    def __init__(self, reader: _Names) -> None:
        self._reader = reader

    def begin(self, turn: str) -> NamedTurn | None:
        match = _NAME.match(turn)
        if match is None or (voice := self._reader.called(match["name"])) is None:
            return None
        return NamedTurn(voice, match.end())


class _Tags(_Foreign):
    def _line(self, text: str) -> Line:
        tags = [
            (match.start(), match.end(), voice)
            for match in _NAME_TAG.finditer(text)
            if (voice := self._tagged(match["tag"].strip())) is not None
        ]
        turns: list[Turn] = []
        at = 0
        for start, end, voice in [*tags, (len(text), len(text), None)]:
            if said := text[at:start].strip():
                turns.append(Turn(len(turns), said, 0, False, self._last))
            at, self._last = end, voice or self._last
        return Line(tuple(turns))

    def _tagged(self, tag: str) -> VoiceName | None:
        if _TAG.fullmatch(f"[{tag}]"):
            return self._cast.speaker(tag, number_in(tag))
        return self._cast.known(tag)


class _Jsonl(_Foreign):
    def _parsed(self, text: str) -> Parsed:
        parsed = parse(text, self._commands, offsets=False)
        # JSON begins with neither sign.
        if _is_no_text(parsed):
            return parsed
        rows = _rows(text)
        turns = [
            self._turn(position, said, self._speaker(row))
            for position, row in enumerate(rows)
            if (said := " ".join(row["text"].split("\n")).strip())
        ]
        return Line(tuple(turns))

    def _speaker(self, row: dict[str, Any]) -> VoiceName | None:
        speaker = next((row[key] for key in ("speaker", "voice") if row.get(key) is not None), None)
        if isinstance(speaker, str) and speaker.strip():
            if speaker.strip().isdecimal() and len(speaker.strip()) <= _MOST_DIGITS:
                speaker = int(speaker)
            else:
                return self._cast.speaker(speaker.strip(), number_in(speaker))
        if speaker is None or speaker == "":
            return None
        if isinstance(speaker, bool) or not isinstance(speaker, int) or speaker < 0:
            raise LineError(
                f"The speaker is {speaker!r}; nothing was spoken.", "Give a number from 0 or a name."
            )
        return self._cast.numbered(speaker)


def _rows(text: str) -> list[dict[str, Any]]:
    remedy = 'A line is like {"speaker": 0, "text": "Hello."}.'
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise LineError("This line is no JSON; nothing was spoken.", remedy) from None
    rows = value if isinstance(value, list) else [value]
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise LineError("This line is no JSON object with a text; nothing was spoken.", remedy)
    return rows


def _is_no_text(parsed: Parsed) -> bool:
    return not isinstance(parsed, Line) or parsed.empty


def number_in(name: str) -> int | None:
    """The number by which a script calls a speaker: `Speaker 1`, `S1`, `[0]`; None where it is a name."""
    match = _NUMBERED.fullmatch(name.strip())
    return int(match["number"]) if match else None


# --- which one ----------------------------------------------------------------------------------------


def _shown_by(row: str) -> Format:
    """The notation that one line shows beyond doubt."""
    if row.startswith(("{", "[{")) and _is_jsonl(row):
        return "jsonl"
    if _CLEAR_TAG.match(row):
        return "tags"
    return "names" if _CLEAR_NUMBER.match(row) else "plain"


def _is_jsonl(row: str) -> bool:
    try:
        _rows(row)
    except LineError:
        return False
    return True


def _is_json(row: str) -> bool:
    """Whether it is an object or a list of them, a text in them or not."""
    try:
        value = json.loads(row)
    except (ValueError, RecursionError):
        return False
    return (
        all(isinstance(each, dict) for each in value) if isinstance(value, list) else isinstance(value, dict)
    )


class Survey:
    """What a whole script looks like."""

    def __init__(self) -> None:
        self.n_lines = 0
        """With something to speak."""
        self.n_names = self.n_tags = self.n_jsonl = 0
        self._named: set[str] = set()
        self._numbers: set[int] = set()

    @classmethod
    def of(cls, rows: Iterable[str]) -> Survey:
        survey = cls()
        for row in rows:
            survey.add(row)
        return survey

    @property
    def numbers(self) -> Collection[int]:
        """By which speakers are called."""
        return self._numbers

    def add(self, row: str) -> None:
        """Takes in the next line."""
        row = row.strip("\ufeff \t")
        if not _SIGNS.search(row):
            self.n_lines += bool(row)
            return
        if row[:1] in {"{", "["} and _is_json(row):
            self.n_lines += 1
            self.n_jsonl += 1
            return
        parsed = parse(row, offsets=False)
        if isinstance(parsed, Command | Heading) or parsed.empty:
            return
        self.n_lines += 1
        if _TAG.match(row):
            self.n_tags += 1
            for match in _TAG.finditer(row):
                self._note_number(match["tag"])
            return
        names = [found["name"] for turn in parsed.turns if (found := _NAME.match(turn.text))]
        if len(names) == len(parsed.turns) and all(map(_is_person, names)):
            self.n_names += 1
            for name in names:
                if len(self._named) < _MOST_REMEMBERED:
                    self._named.add(folded_name(name))
                self._note_number(name)

    def _note_number(self, name: str) -> None:
        if (number := number_in(name)) is not None:
            self._numbers.add(number)

    def format(self) -> Format:
        """The notation that nearly every line has; `plain` where there is none."""
        enough = _NEARLY_ALL * self.n_lines
        if self.n_lines and self.n_jsonl >= enough:
            return "jsonl"
        if self.n_lines and self.n_tags >= enough:
            return "tags"
        # A list has a name once, whoever talks has one again.
        is_dialogue = self.n_names >= max(enough, _LEAST_NAMES) and 2 * len(self._named) <= self.n_names + 1
        numbered = self.n_names >= enough and len(self._numbers) == len(self._named) > 0
        return "names" if is_dialogue or numbered else "plain"


def _is_person(name: str) -> bool:
    """Whether it looks like one: `Ben`, `DR. WHO`, not `note` and no half of a sentence."""
    return number_in(name) is not None or could_be_name(name, capital=True)
