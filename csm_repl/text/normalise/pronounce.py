"""The user's own table of what is said for a word or phrase: lines of `CSM = see ess em`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from csm_repl.text.normalise.engine import Normalised, Replacement

__all__ = ["PronounceTable", "read_table"]

_MOST_CHARACTERS = 200


class PronounceTable:
    """What is said for which words.

    Args:
        said: as written in the table -> what is said. What is in small letters is found in any case.
    """

    def __init__(self, said: Mapping[str, str] | None = None) -> None:
        self._said = dict(said or {})
        self._pattern = _pattern(self._said)

    def __bool__(self) -> bool:
        return self._pattern is not None

    def applied(self, text: str) -> Normalised:
        """Replaces the whole words and phrases of the table; of two at one place the longer one."""
        if self._pattern is None:
            return Normalised(text)
        found = []
        for match in self._pattern.finditer(text):
            written = " ".join(match[0].split())
            # The pattern finds nothing else than what the table has, in one case or the other.
            said = self._said[written] if written in self._said else self._said[written.lower()]
            found.append(Replacement(match.start(), match.end(), said))
        return Normalised(text, tuple(found))


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
