"""What was probably meant by a mistyped word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The only known word that begins with `word`, or else the one most like it; None if none is alike."""
    by_lower = {each.lower(): each for each in known}
    typed = word.lower()
    begun = [each for each in by_lower if each.startswith(typed)] if typed.strip("-") else []
    alike = begun if len(begun) == 1 else difflib.get_close_matches(typed, by_lower, n=1)
    return by_lower[alike[0]] if alike else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question, or nothing."""
    found = nearest(word, known)
    return f"Did you mean {found}?" if found else ""
