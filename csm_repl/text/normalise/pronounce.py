"""The user's own table of what is said for a word or phrase: lines of `CSM = see ess em`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from csm_repl.text.normalise.engine import Normalised, Replacement

__all__ = ["PronounceTable", "read_table"]

_MOST_CHARACTERS = 200


@dataclass(frozen=True)
class PronounceTable:
    """What is said for which words."""

    said: dict[str, str] = field(default_factory=dict)
    """As written in the table -> what is said. In small letters: found in any case."""

    def applied(self, text: str) -> Normalised:
        """Replaces the whole words and phrases of the table; of two at one place the longer one."""
        if self._pattern is None:
            return Normalised(text)
        found = []
        for match in self._pattern.finditer(text):
            written = " ".join(match[0].split())
            said = self.said.get(written, self.said.get(written.lower()))
            if said is not None and said != written:
                found.append(Replacement(match.start(), match.end(), said))
        return Normalised(text, tuple(found))

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pattern", _pattern(self.said))

    _pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)


def _pattern(words: dict[str, str]) -> re.Pattern[str] | None:
    if not words:
        return None

    def one(word: str) -> str:
        inner = r"\s+".join(map(re.escape, word.split()))
        inner = f"(?i:{inner})" if word == word.lower() else inner
        before = r"(?<!\w)" if word[0].isalnum() or word[0] == "_" else ""
        behind = r"(?!\w)" if word[-1].isalnum() or word[-1] == "_" else ""
        return f"{before}{inner}{behind}"

    return re.compile(
        "|".join(one(word) for word in sorted(words, key=lambda word: (-len(word), word.islower())))
    )


def read_table(text: str) -> tuple[PronounceTable, list[str]]:
    """A table from the text of its file, and a sentence about every line that is left out."""
    said: dict[str, str] = {}
    complaints = []
    for number, line in _lines(text):
        word, equals, says = (part.strip() for part in line.partition("="))
        if not equals:
            complaints.append(f"line {number} has no '='")
        elif not word or not says:
            complaints.append(f"line {number} has nothing {'before' if not word else 'behind'} the '='")
        elif len(word) > _MOST_CHARACTERS or len(says) > 5 * _MOST_CHARACTERS:
            complaints.append(f"line {number} is longer than a phrase")
        elif word in said and said[word] != says:
            complaints.append(f"line {number} names {word[:40]!r} again")
        else:
            said[" ".join(word.split())] = says
    return PronounceTable(said), complaints


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip().lstrip("\ufeff")
        if bare and not bare.startswith("#"):
            yield number, bare
