"""Texts that no grammar and no splitter may stumble over, and how much work they are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

# Random characters alone hardly ever make a separator, an offset or a command.
VISIBLE = """
|| | $ $CLEAR clear SET $voice Ke _ - -- − — 0 1 05 19 2024 ５ ² . , : ! ? ... … 。 No. Vol. etc. e.g. Mr.
" ' ’ ” “ ( ) * # % < @ ^ ` a Hello I 日本 ŉ ß 🙂 👍🏽
"""
INVISIBLE = [" ", "\n", "\t", "\u3000", "e\u0301", "👩\u200d🚀", "\u200b", "\x00", "\x1f", "\ufeff", "\ud800"]
FRAGMENTS = st.sampled_from([*VISIBLE.split(), *INVISIBLE])
TEXTS = st.one_of(st.text(), st.lists(FRAGMENTS, max_size=24).map("".join))
# Examples that wait for a busy machine are no failures.
unhurried = settings(deadline=None)


def squeezed(text: str) -> str:
    return "".join(text.split())


REPEATED = ["word ", "a!1||", "||", "$ ", "$a ", ". ", "No. ", "。", "a"]
RUNS = [".", ",", "-", "1", " ", '"', "\u0301", "\u200d", "(", "$"]
TAILS = ["a", "1", "-1", " 1", "$"]
LONG = [
    *(unit * (2_000 // len(unit)) + "a" for unit in REPEATED),
    *(begin + char * 2_000 + tail for begin in ("", "$a") for char in RUNS for tail in TAILS),
]


def assert_work_grows_with_the_length_only(work: Callable[[str], Any], text: str) -> None:
    """Half of the text must be about half of the lines that Python runs for it."""
    n_half, n_whole = _n_lines(work, text[: len(text) // 2] + text[-2:]), _n_lines(work, text)
    assert n_whole <= 2 * n_half + 200


def _n_lines(work: Callable[[str], Any], text: str) -> int:
    n_lines = 0

    def count(_: FrameType, event: str, __: Any) -> Any:
        nonlocal n_lines
        n_lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work(text)
    finally:
        sys.settrace(before)
    return n_lines
