"""A rule: what it matches, and what is said instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

__all__ = [
    "NOTHING_MORE",
    "Rule",
    "Say",
    "any_of",
    "before",
    "ending",
    "next_word",
    "word_before",
    "word_set",
]

Say = Callable[[re.Match[str]], str | None]
"""What is said for a match; None leaves it to the rules that follow."""
NOTHING_MORE = r"(?!\w|[.,:/]\d|[-–—−]\d)"
"""Behind a number: it is not a part of something longer."""
_WINDOW = 40
_WORD_BEFORE = re.compile(r"([^\W\d_]+(?:['’][^\W\d_]+)?\.?)\s{1,3}\Z")
_NEXT_WORD = re.compile(r"\s{1,3}([^\W\d_]+(?:['’][^\W\d_]+)?)")


@dataclass(frozen=True)
class Rule:
    """`say` for what `pattern` matches at a place where a token begins."""

    pattern: re.Pattern[str]
    say: Say


def any_of(words: Iterable[str]) -> str:
    """A pattern of words, the longest first, in groups by their first characters."""
    rests: dict[str, list[str]] = {}
    for word in words:
        rests.setdefault(word[:1], []).append(re.escape(word[1:]))
    return "|".join(
        f"{re.escape(first)}(?:{'|'.join(sorted(rest, key=len, reverse=True))})"
        for first, rest in sorted(rests.items(), reverse=True)
    )


def before(match: re.Match[str], pattern: re.Pattern[str]) -> re.Match[str] | None:
    """`pattern`, which ends in `\\Z`, in the text just before a match."""
    start = match.start()
    return pattern.search(match.string, max(0, start - _WINDOW), start)


def word_before(match: re.Match[str]) -> str:
    """The word just before a match, with its full stop if it has one; "" if there is none."""
    found = before(match, _WORD_BEFORE)
    return found[1] if found else ""


def next_word(match: re.Match[str]) -> str:
    """The word just behind a match; "" if something else comes there."""
    found = _NEXT_WORD.match(match.string, match.end())
    return found[1] if found else ""


def ending(match: re.Match[str]) -> str:
    """The full stop that a match ends in, where it also ends a sentence: nothing follows, or a capital."""
    if not match[0].endswith("."):
        return ""
    rest = match.string[match.end() : match.end() + 8]
    bare = rest.strip().lstrip("\"'“‘(")
    return "." if not bare or (not rest[0].isalnum() and bare[0].isupper()) else ""


def word_set(words: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(words.split())
