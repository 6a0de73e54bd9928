"""Parsers of the settings' values: text -> value, ValueError with half a sentence otherwise."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

__all__ = [
    "DEVICE_HELP",
    "Choice",
    "boolean",
    "choice",
    "context",
    "device",
    "integer",
    "max_seconds",
    "max_seconds_text",
    "number",
    "optional_path",
    "optional_text",
    "path",
    "seed",
    "text",
]

DEVICE_HELP = "auto, cuda, cuda:N, mps or cpu"


def text(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value.strip()


def optional_text(value: str) -> str | None:
    return value.strip() or None


def path(value: str) -> Path:
    try:
        return Path(text(value)).expanduser()
    except RuntimeError:
        raise ValueError("names a home folder that does not exist") from None


def optional_path(value: str) -> Path | None:
    return path(value) if value.strip() else None


def boolean(value: str) -> bool:
    word = value.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off", ""}:
        return False
    raise ValueError("must be on or off")


def number(low: float, high: float, unit: str = "") -> Callable[[str], float]:
    def parse(value: str) -> float:
        try:
            parsed = float(value)
        except ValueError:
            raise ValueError("must be a number") from None
        if not (math.isfinite(parsed) and low <= parsed <= high):
            raise ValueError(f"must be between {low:g} and {high:g}{unit}")
        return parsed

    return parse


def integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            parsed = int(value.strip(), 10)
        except ValueError:
            raise ValueError("must be a whole number") from None
        if not low <= parsed <= high:
            raise ValueError(f"must be between {low} and {high}")
        return parsed

    return parse


def seed(value: str) -> int | None:
    if value.strip().lower() in {"", "random", "none"}:
        return None
    return integer(0, 2**63 - 1)(value)


def context(value: str) -> int | None:
    """`auto` is None: the model's own."""
    if value.strip().lower() == "auto":
        return None
    return integer(64, 2**20)(value)


def max_seconds(value: str) -> float | None:
    """`auto` is None (a ceiling from the text), `off` is infinity (only the context ends a take)."""
    word = value.strip().lower()
    if word == "auto":
        return None
    if word in {"off", "inf"}:
        return math.inf
    return number(0.08, 3600.0, " seconds, or auto, or off")(value)


def max_seconds_text(value: float | None) -> str | float:
    """The setting as JSON and the user write it."""
    if value is None:
        return "auto"
    return "off" if math.isinf(value) else value


class Choice:
    """One of a few words, in any case."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words

    def __call__(self, value: str) -> str:
        word = value.strip().lower()
        if word not in self.words:
            raise ValueError(f"must be one of {', '.join(self.words)}")
        return word


def choice(*words: str) -> Choice:
    return Choice(words)


def device(value: str) -> str:
    word = value.strip().lower()
    kind, colon, index = word.partition(":")
    known = kind in {"auto", "cpu", "mps", "cuda"}
    if not known or (colon and not (kind == "cuda" and index.isascii() and index.isdigit())):
        raise ValueError(f"must be {DEVICE_HELP}")
    return word
