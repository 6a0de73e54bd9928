"""What the normaliser changes in texts that nobody wrote for it, and how long it takes.

    python -m tools.said_changes FILE... [--show 20]

Counts the sentences of letters and usual punctuation only, in which nothing but initialisms, abbreviations,
Roman numerals, addresses and marks (emoticons, bullets) can be written out, and those of them that are
changed; prints how many changes there are of each of these kinds and of no kind, and the changes, the most
frequent first. Debian's `fortunes` (/usr/share/games/fortunes/*.u8) are such texts.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from pathlib import Path

from csm_repl.text.normalise import normalise

_PLAIN = re.compile(r"[A-Za-z ,.;:!?'\"()-]+")
_LENGTHS = range(21, 300)
_TIMED = 1_000_000


def sentences(text: str) -> list[str]:
    """Each once, in order; `%` and empty lines separate paragraphs, and what follows `--` names an author."""
    paragraphs = re.split(r"\n\s*\n|\n\t--.*", text.replace("\n%\n", "\n\n"))
    found = (
        sentence
        for paragraph in paragraphs
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\"])", " ".join(paragraph.split()))
    )
    return [sentence for sentence in dict.fromkeys(found) if len(sentence) in _LENGTHS]


def _kind(typed: str, said: str) -> str:
    letters = re.sub(r"[^A-Za-z]", "", typed).removesuffix("s")
    if not said.strip():
        return "marks"
    if re.fullmatch(r"[a-z]+(?:\.[a-z]+)+", typed):
        return "addresses"
    if re.sub(r"[^A-Za-z]", "", said).removesuffix("s").upper() == letters.upper():
        return "initialisms"
    if re.fullmatch(r"[IVXL]+(?:['’]s)?", typed):
        return "Roman numerals"
    return "abbreviations" if typed.rstrip().endswith(".") or typed == "aka" else "other"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--show", type=int, default=20, help="so many of the changes")
    arguments = parser.parse_args()
    text = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in arguments.files)
    plain = [sentence for sentence in sentences(text) if _PLAIN.fullmatch(sentence)]
    changed = [found for found in map(normalise, plain) if found.replacements]
    print(f"{len(plain)} sentences without digits and signs, {len(changed)} of them changed")
    kinds = Counter(
        _kind(found.typed[item.start : item.end], item.said)
        for found in changed
        for item in found.replacements
    )
    print(
        ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        + ("" if kinds["other"] else ", 0 other")
    )
    changes = Counter(
        (found.typed[item.start : item.end], item.said) for found in changed for item in found.replacements
    )
    for (typed, said), count in changes.most_common(arguments.show):
        print(f"{count:5} {typed!r} -> {said!r}")
    sample = text[:_TIMED]
    started = time.process_time()
    normalise(sample)
    print(f"{len(sample)} characters in {time.process_time() - started:.2f} s of CPU")


if __name__ == "__main__":
    main()
