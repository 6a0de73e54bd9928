"""Applies the rules to a text, and keeps where every replacement came from.

The text is scanned from left to right, once for what is left out and then for what is written out. Plain
words are skipped in runs; at every other token the rules of its kind are asked in order, and the first that
answers has it. Both passes are repeated until nothing changes, so that normalising a result changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from csm_repl.text.normalise import dates, initialisms, marks, names, quantities, words
from csm_repl.text.normalise.rule import Rule, any_of

__all__ = ["Normalised", "Replacement", "joined", "normalise"]

_MOST_PASSES = 6
_PARAGRAPH = re.compile(r"\n[ \t]{0,99}\n|(?<=[.!?:;])\n")
"""No rule looks across it: an empty line, or a line that ends as a sentence does."""


@dataclass(frozen=True)
class Replacement:
    """`said` stands for the characters start ... end - 1 of the text as typed."""

    start: int
    end: int
    said: str


@dataclass(frozen=True)
class Normalised:
    """A text and how it is said."""

    typed: str
    replacements: tuple[Replacement, ...] = ()
    """In order, apart."""

    @property
    def said(self) -> str:
        parts, at = [], 0
        for item in self.replacements:
            parts += [self.typed[at : item.start], item.said]
            at = item.end
        return "".join([*parts, self.typed[at:]])


def normalise(text: str) -> Normalised:
    """Writes out what a voice cannot read. Never raises; linear in the length of `text`."""
    if "\n" not in text:
        return _normalised(text)
    found: list[Replacement] = []
    start = 0
    for end in [*(match.end() for match in _PARAGRAPH.finditer(text)), len(text)]:
        found += (
            Replacement(start + item.start, start + item.end, item.said)
            for item in _normalised(text[start:end]).replacements
        )
        start = end
    return Normalised(text, tuple(found))


def _normalised(text: str) -> Normalised:
    result, said = Normalised(text), text
    for _ in range(_MOST_PASSES):
        left = Normalised(said, tuple(Replacement(*span) for span in marks.unspoken(said)))
        rest = left.said if left.replacements else said
        written = Normalised(rest, tuple(_written_out(rest)))
        change = joined(left, written) if left.replacements else written
        if not change.replacements:
            break
        result = joined(result, change) if result.replacements else change
        said = change.said
    return result


def joined(first: Normalised, second: Normalised) -> Normalised:
    """Two replacings, the second of what the first gave, as one.

    Where they overlap, they become one replacement.
    """
    spans: list[tuple[int, int, Replacement, bool]] = []
    moved = 0
    for item in first.replacements:
        low = item.start + moved
        spans.append((low, low + len(item.said), item, True))
        moved += len(item.said) - (item.end - item.start)
    spans += [(item.start, item.end, item, False) for item in second.replacements]
    spans.sort(key=lambda span: span[:2])

    out: list[Replacement] = []
    middle, moved, index = second.typed, 0, 0
    while index < len(spans):
        low, high = spans[index][:2]
        start, parts, at = low - moved, [], low
        while True:
            _, end, item, is_first = spans[index]
            high = max(high, end)
            if is_first:
                moved += len(item.said) - (item.end - item.start)
            else:
                parts += [middle[at : item.start], item.said]
                at = item.end
            index += 1
            if index == len(spans) or spans[index][0] >= high:
                break
        out.append(Replacement(start, high - moved, "".join([*parts, middle[at:high]])))
    return Normalised(first.typed, tuple(out))


# --- writing out --------------------------------------------------------------------------------------

_SMALL = "[a-zß-öø-ÿ]"
_SMALL_WORD = rf"(?!aka\b){_SMALL}{{1,40}}(?:['’-]{_SMALL}{{1,40}}){{0,4}}[,;:!?…\"”’)]{{0,4}}"
_PLAIN = (
    # Before a number or "al." it may be what a rule begins with, and before a full stop an abbreviation.
    rf"{_SMALL_WORD}(?:\s{{1,9}}(?!\d|al\.)|\Z)|(?!(?:{any_of(words.STARTS)})\.){_SMALL_WORD}\.(?:\s{{1,9}}|\Z)"
)
"""A word that no rule can change."""
_WORD = re.compile(r"[^\W\d_]+")
_WORD_ALONE = re.compile(r"(?:['’][^\W\d_]{1,3})?(?:[,;:!?…\"”’)\]]*\.{0,3}[\"”’)]*(?:\s|\Z)|\.?[-–—](?!\w))")
"""What is behind a word that is neither glued to something nor an abbreviation."""
_REST_OF_NUMBER = re.compile(r"\d[.,:/]\Z")
_TOKEN = re.compile(r"\d+|_+|\s+|[^\w\s]")

_DIGIT_RULES: tuple[Rule, ...] = (
    *dates.DATES,
    *dates.TIMES,
    *names.DIGIT_NAMES,
    *names.ADDRESSES[3:],
    *dates.ERAS[:1],
    *dates.ERAS[2:3],
    *quantities.DECADES,
    *quantities.BEHIND_NUMBERS,
    *quantities.NUMBERS,
)
_WORD_RULES: tuple[Rule, ...] = (
    *quantities.MONEY,
    *dates.MONTH_DAYS,
    *dates.ERAS[1:2],
    *words.NUMBERED,
    *words.ABBREVIATIONS,
)
_CAPITAL_RULES: tuple[Rule, ...] = (*words.ROMANS, *initialisms.INITIALISMS)
_GLUED_RULES: tuple[Rule, ...] = (
    *dates.ZONES,
    *names.ADDRESSES,
    *words.SIGN_WORDS,
    *names.CODES,
    *initialisms.INITIALISMS,
)
_SIGNED_NUMBERS = (*words.OPERATORS, *quantities.SIGNS)
_SIGN_RULES: dict[str, tuple[Rule, ...]] = {
    **dict.fromkeys("'’‘", dates.ERAS[2:]),
    **dict.fromkeys("$€£¥₹₩", quantities.MONEY),
    **dict.fromkeys("=→×÷*·≠&§©∞∑∆", words.OPERATORS),
    **dict.fromkeys("−–±≈≥≤<>√", _SIGNED_NUMBERS),
    "-": (*names.PATHS, *_SIGNED_NUMBERS),
    "~": (*names.PATHS, *_SIGNED_NUMBERS),
    "+": (*names.DIGIT_NAMES, *_SIGNED_NUMBERS),
    "(": names.DIGIT_NAMES,
    "/": (*names.PATHS, *words.OPERATORS),
    "@": (*names.HANDLES, *words.OPERATORS),
    "#": (*words.NUMBER_SIGN, *names.HANDLES),
    ".": (*words.SIGN_WORDS, *quantities.NUMBERS[-1:]),
    "_": names.CODES,
}
_FIRST_WORDS = (
    words.STARTS | words.NUMBERED_STARTS | dates.STARTS | frozenset(map(str.lower, quantities.CURRENCY_CODES))
)
_FIRST_CAPITALS = any_of(word.capitalize() for word in _FIRST_WORDS if len(word) > 1)
_CAPITALISED = (
    rf"(?!(?:{_FIRST_CAPITALS})(?![^\W\d_]))[A-Z]{_SMALL}{{1,40}}(?:['’]{_SMALL}{{1,3}})?"
    rf"[,;:!?…\"”’)\]]{{0,4}}\.{{0,3}}[\"”’)]{{0,3}}(?:\s{{1,9}}|\Z)"
)
"""The same of one that begins with a capital."""
_SILENT = r"""[\s,;:!?"”“)\]}…]+|\.(?![\dN])|['’‘(](?!\d)|-{2,}(?=\s|\Z)"""
"""Space and signs that no rule begins with, or none before what follows."""
_SKIPPED = re.compile(rf"(?:{_SILENT}|(?<![^\W_])(?:{_PLAIN}|{_CAPITALISED}))+")


def _written_out(text: str) -> list[Replacement]:
    found: list[Replacement] = []
    at, end = 0, len(text)
    while at < end:
        skipped = _SKIPPED.match(text, at)
        if skipped is not None:
            at = skipped.end()
            if at == end:
                break
        char = text[at]
        word = _WORD.match(text, at)
        rules = _rules(text, at, char, word)
        item = _first_that_answers(text, at, rules)
        if item is not None:
            found.append(item)
            at = item.end
            continue
        token = word or _TOKEN.match(text, at)
        at = token.end() if token else at + 1
        if char.isalnum():
            # What is glued to a word that no rule took is part of it.
            while at < end and (text[at].isalnum() or text[at] == "_"):
                at += 1
    return found


def _rules(text: str, at: int, char: str, word: re.Match[str] | None) -> tuple[Rule, ...]:
    """Those that can apply where a token begins."""
    if char.isnumeric():
        # Behind "12," or "3:" it is the rest of something that no rule knew.
        return () if _REST_OF_NUMBER.search(text, max(0, at - 2), at) else _DIGIT_RULES
    if word is None:
        return _SIGN_RULES.get(char, ())
    letters = word[0]
    rules = _WORD_RULES if letters.lower() in _FIRST_WORDS else ()
    if _WORD_ALONE.match(text, word.end()):
        if not letters.isalpha():
            return rules + _ALL_LETTER_RULES
        if not letters.isascii():
            return rules + words.SIGN_WORDS
        return rules if letters[1:].islower() else rules + _CAPITAL_RULES
    return rules + _ALL_LETTER_RULES


_ALL_LETTER_RULES = (*quantities.MONEY, *_GLUED_RULES, *words.ROMANS)


def _first_that_answers(text: str, at: int, rules: tuple[Rule, ...]) -> Replacement | None:
    for rule in rules:
        match = rule.pattern.match(text, at)
        if match is None or match.end() == at:
            continue
        said = rule.say(match)
        if said is not None and said != match[0]:
            return Replacement(at, match.end(), said)
    return None
