"""The score of the table of what is said, and its cases that are left as typed.

    python -m tools.said_table

The cases are those of `tests/text/normalise/cases.tsv`, which were written from `docs/normalisation.md`.
"""

from __future__ import annotations

import argparse
from collections import Counter

from csm_repl.text.normalise import normalise
from tests.support.paths import ROOT

TABLE = ROOT / "tests" / "text" / "normalise" / "cases.tsv"


def table() -> list[tuple[str, str, str]]:
    """Its cases: kind, as typed, as said."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(kind, typed, said) for kind, typed, said in rows]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    cases = table()
    right, all_of = Counter[str](), Counter[str]()
    for kind, typed, said in cases:
        found = normalise(typed).said
        all_of[kind] += 1
        right[kind] += found == said
        if found != said:
            print(f"WRONG {kind}: {typed!r} -> {found!r}, not {said!r}")
    for kind, count in all_of.most_common():
        print(f"{kind:14} {right[kind]:4} of {count}")
    print(f"{'all':14} {right.total():4} of {all_of.total()}")
    left = [(kind, typed) for kind, typed, said in cases if typed == said]
    print(f"\n{len(left)} are left as typed:")
    for kind, typed in left:
        print(f"  {kind:14} {typed}")


if __name__ == "__main__":
    main()
