"""What is written and not spoken: Markdown's marks, stage directions, emoji, references."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["unspoken"]

_CAP = 200
"""Characters that a mark may enclose: longer ones are more likely two signs without a partner."""
_LINE = rf"[^\n\[\]]{{0,{_CAP}}}"

_LINK = re.compile(rf"!?\[(?P<text>{_LINE})\]\([^\s()]{{1,400}}\)")
_BRACKETS = re.compile(rf"(?P<before>\s?)(?<![\w])\[{_LINE}\](?P<after>\s?)")
_HEADING = re.compile(r"(?m)^[ \t]{0,3}(?:#{1,6}[ \t]+|>[ \t]?|(?:[-*+•][ \t]+(?=\S)))")
_DOUBLE = re.compile(rf"(\*\*\*|\*\*|__|~~)(?=\S)(?P<inside>[^\n]{{1,{_CAP}}}?)(?<=\S)\1")
_SINGLE_STARS = re.compile(rf"(?<![\w*])\*(?=[^\s*])(?P<inside>[^\n*]{{1,{_CAP}}}?)(?<=[^\s*])\*(?![\w*])")
_SINGLE_LINES = re.compile(rf"(?<![\w_])_(?=[^\s_])(?P<inside>[^\n_]{{1,{_CAP}}}?)(?<=[^\s_])_(?![\w_])")
_TICKS = re.compile(r"`{1,3}")
_FENCE = re.compile(r"(?m)^```[A-Za-z0-9]{0,12}[ \t]*$")
_EMOJI_ONE = (
    "[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff\U0001f1e6-\U0001f1ff\u231a-\u231b\u23e9-\u23fa\u2139\u3030"
    "\u303d\u3297\u3299\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe]"
)
_EMOJI_TAIL = "(?:[\ufe0e\ufe0f\u200d\u20e3\U0001f3fb-\U0001f3ff]|[\U000e0020-\U000e007f])"
_EMOJI = re.compile(rf"\s?(?:{_EMOJI_ONE}{_EMOJI_TAIL}{{0,4}})+")
_KEYCAP = re.compile("(?<=[0-9#*])\ufe0f?\u20e3")
_EMOTICON = re.compile(
    r"(?:[:;=8][-^o']?[)(\]\[DPpOo3/|\\*]+|[xX]D+|<3|\^_?\^|T_T|:'\(|>:\(|"
    r"¯\\_\(ツ\)_/¯)(?=\s|$|[.,!?])"
)
_LOVER = re.compile(r"\b(?:[Ii]|[Ww]e|[Tt]hey)\s\Z")
_BELOVED = re.compile(r"\s[^\W\d_]")
_BARE = re.compile("[™®℠•]|(?<!\\S)\\*{1,3}(?!\\S)")
_ACTION = re.compile(
    r"(?:(?:[a-z]+ly|still|then|and|both|all|quietly|softly) )?[a-z]+(?:s|ing|ed)(?:\b.*)?\Z", re.IGNORECASE
)
_OPENS = re.compile(r"(?:\A|[.!?…:;—–-][\"'”’)]?\s{0,2}|\n\s*)\Z")
_CLOSES = re.compile(r"\s{0,2}(?:\Z|\n|[\"“‘(]?[A-Z])")
_NO_ACTIONS = {
    "this",
    "is",
    "was",
    "his",
    "as",
    "yes",
    "always",
    "us",
    "its",
    "has",
    "thing",
    "nothing",
    "something",
}


def unspoken(text: str) -> list[tuple[int, int, str]]:
    """Spans that are left out: (start, end, what stays there, mostly nothing), in order, apart."""
    found: list[tuple[int, int, str]] = []
    for start, end, left in sorted(_all(text)):
        if found and start < found[-1][1]:
            continue
        if start < end:
            found.append((start, end, left))
    return found


def _all(text: str) -> Iterator[tuple[int, int, str]]:
    if "[" in text:
        for match in _LINK.finditer(text):
            yield match.start(), match.start("text"), ""
            yield match.end("text"), match.end(), ""
        for match in _BRACKETS.finditer(text):
            if text[match.end() - len(match["after"]) : match.end() - len(match["after"]) + 1] == "(":
                continue
            yield _with_space(text, match.start() + len(match["before"]), match.end() - len(match["after"]))
    if "```" in text:
        for match in _FENCE.finditer(text):
            yield match.start(), match.end(), ""
    for match in _HEADING.finditer(text):
        yield match.start(), match.end(), ""
    for pattern, sign in ((_DOUBLE, "**"), (_DOUBLE, "__"), (_DOUBLE, "~~"), (_SINGLE_LINES, "_")):
        if sign in text:
            for match in pattern.finditer(text):
                yield match.start(), match.start("inside"), ""
                yield match.end("inside"), match.end(), ""
    if "*" in text:
        for match in _SINGLE_STARS.finditer(text):
            if _is_direction(match):
                yield _with_space(text, match.start(), match.end())
            else:
                yield match.start(), match.start("inside"), ""
                yield match.end("inside"), match.end(), ""
    if "`" in text:
        for match in _TICKS.finditer(text):
            yield match.start(), match.end(), ""
    for match in _EMOTICON.finditer(text):
        if match.start() == 0 or text[match.start() - 1] in " \t\n.!?,":
            loves = match[0] == "<3" and _LOVER.search(text, max(0, match.start() - 8), match.start())
            if loves and _BELOVED.match(text, match.end()):
                yield match.start(), match.end(), "love"
            else:
                yield _with_space(text, match.start(), match.end())
    if "*" in text or not text.isascii():
        for match in _BARE.finditer(text):
            yield _with_space(text, match.start(), match.end())
    if text.isascii():
        return
    for match in _KEYCAP.finditer(text):
        yield match.start(), match.end(), ""
    for match in _EMOJI.finditer(text):
        yield _with_space(text, match.start() + (text[match.start()].isspace()), match.end())


def _with_space(text: str, start: int, end: int) -> tuple[int, int, str]:
    """The span with the space before it, or behind it where it begins the text or a line."""
    if start > 0 and text[start - 1] in " \t":
        while start > 0 and text[start - 1] in " \t":
            start -= 1
        glued = start > 0 and end < len(text) and text[end].isalnum()
        return start, end, " " if glued else ""
    if start == 0 or text[start - 1] == "\n":
        while end < len(text) and text[end] in " \t":
            end += 1
        return start, end, ""
    both = start > 0 and end < len(text) and text[start - 1].isalnum() and text[end].isalnum()
    return start, end, " " if both else ""


def _is_direction(match: re.Match[str]) -> bool:
    """`*laughs*` alone, or between sentences; inside one it is emphasis."""
    inside, text = match["inside"], match.string
    first = inside.split()[0].lower().strip(",.!?")
    opens = _OPENS.search(text, max(0, match.start() - 6), match.start()) is not None
    closes = _CLOSES.match(text, match.end()) is not None
    acts = _ACTION.match(inside) is not None and first not in _NO_ACTIONS
    if acts and (opens or closes):
        return True
    return opens and closes and len(inside.split()) > 1 and inside[0].islower()
