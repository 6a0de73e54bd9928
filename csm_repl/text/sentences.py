"""Where a long text may be cut: sentence ends, clause marks, spaces."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator

__all__ = ["split_sentences", "takes_number"]

_TAKES_NUMBER = re.compile(
    r"(?:(?<![\w.])(?:Nos|Vols?|vol|Figs?|Ch|Sec|Eq|pp?|approx|ca|vs|e\.g|i\.e)|\w\s+No)\.\Z"
)
_TAKES_MORE = re.compile(
    r"(?:(?<![\w.])(?:[Mm]rs?|[Mm]s|Mx|[Dd]r|[Pp]rof|[Ss]t|Mt|Gen|Col|Maj|Lt|Sgt|Capt|Cmdr|Gov|Sen|Rep|Rev|Hon"
    r"|Pres|Messrs|Mme|Mlle|Jr|Sr|Inc|Ltd|Co|Corp|etc|cf|viz|[A-HJ-ZÀ-ÖØ-Þ])|[^\W\d]\.[^\W\d])\.\Z"
)
_ABBREVIATION_WINDOW = 16

# No look-ahead: with one, a run of marks would be tried again from each of its characters.
_SENTENCE_MARK = re.compile(r"""([。！？｡]+)["'”’)\]」』】〉》）]*|[.!?…؟۔।॥‼⁇⁈⁉‽]+["'”’“‘»«›‹)\]}*_`]*""")
_CLAUSE_MARK = re.compile(r"""([—，、；：]+)|[,;:–]["'”’“»«)\]]*""")
_SPACE = re.compile(r"\s+")


def split_sentences(text: str, max_chars: int) -> list[str]:
    """`text` in pieces as long as fit in `max_chars`, each ended at the best place there is.

    The last sentence end that fits, else the last clause mark, else the last space, else anywhere, but not
    inside a combined character if there is another place. No piece is longer than `max_chars`, none is blank,
    and together they have every non-space character of `text`, in order.

    Raises:
        ValueError: `max_chars` is below 1.
    """
    if max_chars < 1:
        raise ValueError(f"max_chars must be at least 1, not {max_chars}")
    text = text.strip()
    sentences = list(_ends_of(_SENTENCE_MARK, text))
    clauses = list(_ends_of(_CLAUSE_MARK, text))
    spaces = [match.start() for match in _SPACE.finditer(text)]
    pieces = []
    start = 0
    while len(text) - start > max_chars:
        limit = start + max_chars
        cut = (
            _last_between(sentences, start + 1, limit)
            # `Well,` is no piece to be spoken on its own; a space further on is better.
            or _last_between(clauses, start + 1 + max_chars // 4, limit)
            or _last_between(spaces, start + 1, limit)
            or _hard_cut(text, start, limit)
        )
        pieces.append(text[start:cut].rstrip())
        gap = _SPACE.match(text, cut)
        start = gap.end() if gap else cut
    return [*pieces, text[start:]] if text else []


def takes_number(text: str, end: int) -> bool:
    """Whether an abbreviation that takes a number (`Vol.`, `No.`) ends at `end`."""
    return _has_at_end(text, end, _TAKES_NUMBER)


def _has_at_end(text: str, end: int, abbreviation: re.Pattern[str]) -> bool:
    return abbreviation.search(text, max(0, end - _ABBREVIATION_WINDOW), end) is not None


def _ends_of(mark: re.Pattern[str], text: str) -> Iterator[int]:
    """Where marks end that white space follows, or that (group 1) need none."""
    for match in mark.finditer(text):
        end = match.end()
        if match[1] is None and not text[end : end + 1].isspace():
            continue
        if not takes_number(text, end) and not _has_at_end(text, end, _TAKES_MORE):
            yield end


def _last_between(places: list[int], low: int, high: int) -> int | None:
    index = bisect_right(places, high)
    return places[index - 1] if index and places[index - 1] >= low else None


def _hard_cut(text: str, start: int, limit: int) -> int:
    for cut in range(limit, start, -1):
        if not _inside_character(text[cut - 1], text[cut]):
            return cut
    return limit


def _inside_character(left: str, right: str) -> bool:
    """Whether the two belong to one character as it is seen: accents, joined emoji, surrogates."""
    return (
        "\u200d" in (left, right)
        or unicodedata.category(right)[0] == "M"
        or "\U0001f3fb" <= right <= "\U0001f3ff"
        or ("\ud800" <= left <= "\udbff" and "\udc00" <= right <= "\udfff")
    )
