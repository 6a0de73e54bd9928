"""Who a turn names as its speaker: `Ben: Really?`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "NOBODY",
    "NamedTurn",
    "Roster",
    "SpeakerNames",
    "VoiceName",
    "could_be_name",
    "folded_name",
    "name_typed",
]

_LONGEST_NAME = 80
_COLON = re.compile("[:：]")
_NAME_TYPED = re.compile(r"([^\W\d_][^\W_]*(?:[ .'’&-]{1,2}[^\W_]+){0,3})\s?[:：](?=\s)")
_WORDS = re.compile(r"[^\W_]+")
_LABELS = frozenset(
    _WORDS.findall("""
        a again answer attention b btw caution chapter conclusion cons dear disclaimer e
        edit email example fact faq fig figure finally first fun here hint however i
        important info ingredients instructions intro introduction item last lesson link
        listen look moral n nb news next no note notes now oh ok okay on one other outro p
        part plan pros ps q question quote re reason remember reminder result right rule s
        scene second section sidenote so source spoiler step steps subject summary sure then
        there third tip tips title tl todo topic translation trivia update warning well yes
    """)
)
"""First words of what stands before a colon and names nobody."""


def folded_name(name: str) -> str:
    """What two spellings of a name have in common: case, Unicode form and white space do not count."""
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


@dataclass(frozen=True)
class VoiceName:
    """A speaker who can be called by a name."""

    name: str
    """As it is shown."""
    speaker: int


@dataclass(frozen=True)
class NamedTurn:
    """A turn that begins with a name and a colon."""

    voice: VoiceName
    end: int
    """Of name and colon; what follows is said."""


class SpeakerNames(Protocol):
    """Knows names."""

    def begin(self, turn: str) -> NamedTurn | None:
        """The name that a turn without outer white space begins with; None: with none."""
        ...


class Roster:
    """The names of voices.

    Args:
        speakers: number -> name; None for one without a name. Of two with one name, the lower number has it.
    """

    def __init__(self, speakers: Mapping[int, str | None]) -> None:
        self.speakers = dict(speakers)
        self._voices: dict[str, VoiceName] = {}
        for speaker in sorted(speakers):
            if name := speakers[speaker]:
                self._voices.setdefault(folded_name(name), VoiceName(name, speaker))

    def __bool__(self) -> bool:
        return bool(self._voices)

    @property
    def voices(self) -> Iterable[VoiceName]:
        """Those that have a name, by number."""
        return self._voices.values()

    def find(self, name: str) -> VoiceName | None:
        """Whoever is called so."""
        return self._voices.get(folded_name(name))

    def begin(self, turn: str) -> NamedTurn | None:
        """See `SpeakerNames`."""
        if not self._voices:
            return None
        # A name may hold a colon itself.
        for colon in _COLON.finditer(turn, 0, _LONGEST_NAME):
            voice = self.find(turn[: colon.start()])
            if voice is not None and not turn.startswith("//", colon.end()):
                return NamedTurn(voice, colon.end())
        return None


NOBODY = Roster({})


def name_typed(turn: str) -> str:
    """What a turn begins with that looks like a speaker's name: `Carol` of `Carol: Hi.`; "" if nothing."""
    match = _NAME_TYPED.match(turn)
    return match[1] if match is not None and could_be_name(match[1], capital=True) else ""


def could_be_name(text: str, *, capital: bool = False) -> bool:
    """Whether what stands before a colon looks like somebody's name, and not like a label as `Note`.

    A guess: every word has a capital, or it is a single one.

    Args:
        capital: whether a single word must have one, too.
    """
    words = _WORDS.findall(text)
    if not words or folded_name(words[0]) in _LABELS:
        return False
    return (len(words) == 1 and not capital) or not any(word[0].islower() for word in words)
