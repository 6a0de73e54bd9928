"""Words to phones: for models that read ARPAbet and not letters.

A model folder names this front in its `text.json`, see `files.text_front`. What it makes of a text is what
the folder's tokenizer reads: phones with their stress and the marks between words, separated by spaces, as
`HH AH0 L OW1 , W ER1 L D .`

    lexicon   lines `word PHONES`, sorted; the words in small letters
    letters   lines `context PHONES`: what a letter becomes, most specific context first; see `Letters`
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["LETTER_NAMES", "MARKS", "Letters", "PhoneFront", "PhoneWord", "context_of"]

MARKS = frozenset(",.?!;:-")
"""What is kept between words: the voice makes pauses and tunes of it."""
_SAME_MARKS = {
    "…": ".", "—": "-", "–": "-", "。": ".", "，": ",", "？": "?", "！": "!", "¿": "", "¡": "", "“": "",
    "”": "",
}  # fmt: skip
"""Other signs: the mark that they stand for, or none."""
_WIDEST = 4
LETTER_NAMES = {
    "a": "EY1", "b": "B IY1", "c": "S IY1", "d": "D IY1", "e": "IY1", "f": "EH1 F", "g": "JH IY1",
    "h": "EY1 CH", "i": "AY1", "j": "JH EY1", "k": "K EY1", "l": "EH1 L", "m": "EH1 M", "n": "EH1 N",
    "o": "OW1", "p": "P IY1", "q": "K Y UW1", "r": "AA1 R", "s": "EH1 S", "t": "T IY1", "u": "Y UW1",
    "v": "V IY1", "w": "D AH1 B AH0 L Y UW0", "x": "EH1 K S", "y": "W AY1", "z": "Z IY1",
}  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*['’]?")
_TOKEN = re.compile(rf"{_WORD.pattern}|[{re.escape(''.join(MARKS | _SAME_MARKS.keys()))}]+")
_VOICELESS, _HISSING = {"P", "T", "K", "F", "TH"}, {"S", "Z", "SH", "ZH", "CH", "JH"}


@dataclass(frozen=True)
class PhoneWord:
    """What `text[start:end]` is said as: phones, or a mark."""

    start: int
    end: int
    phones: str
    """Separated by spaces; empty where it has no sound."""


def context_of(word: str, at: int, width: int) -> str:
    """A letter with `width` of its neighbours: the one behind it, the one before it, and so on outwards."""
    padded, middle = f"{'#' * _WIDEST}{word}{'#' * _WIDEST}", at + _WIDEST
    order = [0, *(side * step for step in range(1, _WIDEST + 1) for side in (1, -1))]
    return "".join(padded[middle + offset] for offset in order[: width + 1])


class Letters:
    """Letter-to-sound rules: of the contexts that are known, the widest says what a letter becomes.

    Args:
        rules: context, as `context_of` writes it -> phones, which may be none.
    """

    def __init__(self, rules: dict[str, str]) -> None:
        self._rules = rules

    def phones(self, word: str) -> str:
        """The phones of a word in small letters from a to z."""
        found = []
        for at in range(len(word)):
            for width in range(2 * _WIDEST, -1, -1):
                said = self._rules.get(context_of(word, at, width))
                if said is not None:
                    found.append(said)
                    break
        return " ".join(filter(None, found))


class PhoneFront:
    """Reads text.

    Args:
        lexicon: the file's content.
        letters: for words that are not in it.
    """

    def __init__(self, lexicon: bytes, letters: Letters) -> None:
        # As one string of bytes it takes a tenth of a dictionary's memory, and a search half a millisecond.
        self._lexicon = b"\n" + lexicon
        # Sorted: those that begin with a letter stand together.
        self._begins = {letter: self._lexicon.find(b"\n" + letter.encode()) for letter in LETTER_NAMES}
        self._letters = letters
        self._known = functools.lru_cache(maxsize=8192)(self._word)

    def read(self, text: str) -> str:
        """The phones and marks of `text`, separated by spaces."""
        return " ".join(word.phones for word in self.words(text) if word.phones)

    def words(self, text: str) -> Iterator[PhoneWord]:
        """The words and marks of `text`, in order; what is neither is left out."""
        tokens = list(_TOKEN.finditer(text))
        for index, match in enumerate(tokens):
            token = match[0]
            if not token[0].isalpha():
                said = _mark(token)
            elif _is_spelled(text, tokens, index):
                said = LETTER_NAMES[token.lower()]
            else:
                said = self.word(token)
            yield PhoneWord(match.start(), match.end(), said)

    def reads(self, char: str) -> bool:
        """Whether a character is a letter that has a sound, or a mark that is kept."""
        return char in MARKS or char in _SAME_MARKS or bool(_plain(char))

    def word(self, word: str) -> str:
        """The phones of one word, in any case."""
        return self._known(_plain(word))

    def _word(self, word: str) -> str:
        if not word.strip("'"):
            return ""
        found = self._looked_up(word) or self._looked_up(word.strip("'"))
        if found:
            return found
        stem, apostrophe, tail = word.rpartition("'")
        if apostrophe and tail == "s" and stem:
            said = self._word(stem)
            last = said.split()[-1].rstrip("012") if said else ""
            return f"{said} {'IH0 Z' if last in _HISSING else 'S' if last in _VOICELESS else 'Z'}"
        return self._letters.phones(word.replace("'", ""))

    def _looked_up(self, word: str) -> str | None:
        line = b"\n%b " % word.encode()
        at = self._lexicon.find(line, max(0, self._begins.get(word[:1], 0)))
        if at < 0:
            return None
        return self._lexicon[at + len(line) : self._lexicon.find(b"\n", at + 1)].decode("ascii", "replace")


def _plain(word: str) -> str:
    """In small letters from a to z and apostrophes."""
    letters = unicodedata.normalize("NFKD", word.replace("’", "'")).casefold()
    return "".join(char for char in letters if "a" <= char <= "z" or char == "'")


def _mark(token: str) -> str:
    kept = [_SAME_MARKS.get(char, char) for char in token]
    found = [char for char in kept if char]
    if not found:
        return ""
    # Of several, as in "?!" or "...", one tune is made.
    return next((char for char in "?!.;:,-" if char in found), "")


def _is_spelled(text: str, tokens: list[re.Match[str]], index: int) -> bool:
    """Whether a word is a letter that is said by its name: all capitals alone, A only beside another one."""
    token = tokens[index]
    if not _is_letter(token) or token[0] == "I":
        return False
    return token[0] != "A" or any(
        _is_letter(before) and _is_letter(behind) and not text[before.end() : behind.start()].strip()
        for before, behind in pairwise(tokens[max(0, index - 1) : index + 2])
    )


def _is_letter(token: re.Match[str]) -> bool:
    return len(token[0]) == 1 and "A" <= token[0] <= "Z"
