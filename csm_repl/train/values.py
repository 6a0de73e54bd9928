"""Text from a command line as a value of an annotated type."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

__all__ = ["choices", "value_reader"]


def value_reader(hint: Any) -> Callable[[str], Any]:
    """Text -> a value of the annotated type; ValueError with half a sentence otherwise."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        [kind] = [argument for argument in arguments if argument is not type(None)]
        return value_reader(kind)
    if origin is Literal:
        return lambda text: _word(text, arguments)
    if origin is tuple:
        length = None if arguments[-1] is Ellipsis else len(arguments)
        return lambda text: _list(text, value_reader(arguments[0]), length)
    if hint is int:
        return lambda text: _number(text, int, "must be a whole number")
    if hint is float:
        return lambda text: _number(text, _float, "must be a number")
    if hint is Path:
        return lambda text: Path(text).expanduser()
    return str


def choices(hint: Any) -> tuple[str, ...]:
    """The words of an annotated Literal; none for any other type."""
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _float(text: str) -> float:
    # 1/16 is how the share of the frames is written everywhere.
    top, slash, bottom = text.partition("/")
    return float(top) / float(bottom) if slash else float(text)


def _number(text: str, kind: Callable[[str], Any], complaint: str) -> Any:
    try:
        return kind(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(complaint) from None


def _word(text: str, words: Sequence[str]) -> str:
    if text not in words:
        raise ValueError(f"must be one of {', '.join(words)}")
    return text


def _list(text: str, kind: Callable[[str], Any], length: int | None) -> tuple[Any, ...]:
    values = tuple(kind(part.strip()) for part in text.split(",") if part.strip())
    if length is not None and len(values) != length:
        raise ValueError(f"must be {length} values with a comma between them")
    if not values:
        raise ValueError("must not be empty")
    return values
