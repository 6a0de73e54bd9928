"""Text for the corpus: Debian's fortunes, the King James Bible, and everyday sentences from patterns.

Every sentence belongs to the training text or to the held-out one by a hash of its words, so the two
cannot overlap whatever is drawn.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["everyday", "everyday_test", "fortunes", "is_held_out", "king_james", "sentence_pool"]

FORTUNES = Path("/usr/share/games/fortunes")
_LEFT_OUT = {"art", "ascii-art", "perl", "linuxcookie", "translate-me", "debian-hints", "drugs", "ethnic"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_SPEAKABLE = re.compile(r"[A-Za-z][A-Za-z' ,;:-]*[.!?]?")
MIN_WORDS, MAX_WORDS, MAX_CHARACTERS = 1, 14, 80


def is_held_out(text: str) -> bool:
    """Two sentences in a hundred, by their letters alone."""
    letters = _letters(text)
    return int.from_bytes(hashlib.sha256(letters.encode()).digest()[:4], "big") % 50 == 0


def _letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def _clean(text: str) -> str | None:
    text = re.sub(r"\s+", " ", text).strip(" -:;,")
    n_words = len(text.split())
    if not _SPEAKABLE.fullmatch(text) or not MIN_WORDS <= n_words <= MAX_WORDS or len(text) > MAX_CHARACTERS:
        return None
    # Initials, headings and shouted words are read letter by letter or not at all alike.
    if re.search(r"\b[A-Z]{2,}\b|\b[B-HJ-Z]\b|--|' | '|\b[^aeiouyAEIOUY' ]{5,}\b", text):
        return None
    return text


def fortunes() -> Iterator[str]:
    """Sentences of the fortune files."""
    for path in sorted(FORTUNES.iterdir()):
        if path.suffix or path.name in _LEFT_OUT:
            continue
        for cookie in path.read_text(encoding="utf-8", errors="replace").split("\n%\n"):
            # What follows a dash at the beginning of a line is the source of a quotation.
            body = re.split(r"\n\s*--", cookie)[0]
            for sentence in _SENTENCE_END.split(body.replace("\n", " ").replace('"', "")):
                text = _clean(sentence)
                if text and text[-1] in ".!?" and text[0].isupper():
                    yield text


def king_james() -> Iterator[str]:
    """Sentences and clauses of the Bible, as the `bible` program prints them."""
    verses = subprocess.run(
        ["bible", "-f", "gen1:1-rev22:21"], capture_output=True, text=True, check=True
    ).stdout
    for line in verses.splitlines():
        verse = line.partition(" ")[2]
        for clause in re.split(r"(?<=[.!?:;])\s+", verse):
            text = _clean(clause.rstrip(":;,") + ("" if clause.rstrip()[-1:] in ".!?" else "."))
            # Lists of names follow no rules of reading.
            if text and len(re.findall(r" [A-Z]", text)) <= 2:
                yield text[0].upper() + text[1:]


def everyday(seed: int) -> Iterator[str]:
    """Short phrases and filled patterns, without end."""
    rng = random.Random(seed)
    lists = json.loads((Path(__file__).parent / "everyday.json").read_text())
    phrases, patterns, words = lists["phrases"], lists["patterns"], lists["words"]
    while True:
        if rng.random() < 0.1:
            yield rng.choice(phrases)
            continue
        text = re.sub(r"\{(\w+)\}", lambda gap: rng.choice(words[gap[1]]), rng.choice(patterns))
        text = re.sub(r"eer than", "er than", text)
        yield text[0].upper() + text[1:]


def everyday_test() -> list[str]:
    """Sentences to be scored that are no part of any corpus."""
    return (Path(__file__).parent / "everyday_test.txt").read_text().splitlines()


def sentence_pool(n: int, seed: int, *, held_out: bool) -> list[str]:
    """`n` sentences: 45 % fortunes, 30 % Bible, 25 % everyday; distinct but for the short phrases."""
    rng = random.Random(seed)
    pool: list[str] = []
    for source, share in ((fortunes(), 0.45), (king_james(), 0.30)):
        texts = sorted({text for text in source if is_held_out(text) == held_out})
        rng.shuffle(texts)
        pool += texts[: round(n * share)]
    for text in everyday(seed):
        if len(pool) >= n:
            break
        if is_held_out(text) == held_out:
            pool.append(text)
    scored = {_letters(text) for text in everyday_test()}
    pool = [text for text in pool if _letters(text) not in scored]
    rng.shuffle(pool)
    return pool
