"""Numbers in words, as English says them.

Cardinals and ordinals are num2words'; the rest is what it does not know: years in pairs, digits one by one.
"""

from __future__ import annotations

import functools
import re

__all__ = [
    "cardinal",
    "code_number",
    "digits",
    "is_year",
    "number",
    "oh_number",
    "ordinal",
    "plain",
    "plural",
    "several",
    "spelled",
    "year",
]

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_MAX_CARDINAL_DIGITS = 33
"""Up to nonillions; longer ones are said digit by digit."""
_UNCHANGED = {"hertz", "percent", "per mille", "yen", "yuan", "won", "hundredweight"}
_IRREGULAR = {"foot": "feet", "inch": "inches", "penny": "pence", "degree": "degrees", "paisa": "paise"}


def plain(text: str) -> str:
    """A number's digits without the marks between their groups."""
    return re.sub(r"[,\s\u00a0\u202f]", "", text)


@functools.lru_cache(maxsize=4096)
def cardinal(text: str) -> str:
    """ "1,234" -> "one thousand two hundred and thirty-four"."""
    from num2words import num2words  # type: ignore[import-untyped]

    value = plain(text)
    if len(value) > _MAX_CARDINAL_DIGITS:
        return digits(value)
    return str(num2words(int(value))).replace(",", "")


@functools.lru_cache(maxsize=1024)
def ordinal(text: str) -> str:
    """ "21" -> "twenty-first"."""
    from num2words import num2words

    return str(num2words(int(plain(text)), to="ordinal")).replace(",", "")


def digits(text: str) -> str:
    """ "0123" -> "zero one two three"; what is no digit is dropped."""
    return " ".join(_DIGITS[int(char)] for char in text if char.isdecimal())


def number(text: str) -> str:
    """A whole number or decimal: "1,234.50" -> "one thousand two hundred and thirty-four point five zero"."""
    whole, point, decimals = text.partition(".")
    leading = len(whole) > 1 and whole[0] == "0"
    said = digits(whole) if leading else cardinal(whole) if whole else ""
    return f"{said} point {digits(decimals)}".strip() if point else said


def year(text: str) -> str:
    """ "1984" -> "nineteen eighty-four", "1900" -> "nineteen hundred", "2005" -> "two thousand and five"."""
    if text.startswith("200") or text == "1000":
        return cardinal(text)
    if text[2:] == "00":
        return f"{cardinal(text[:2])} hundred"
    return f"{cardinal(text[:2])} {oh_number(text[2:])}"


def is_year(text: str) -> bool:
    """Whether four digits are read as a year, from 1100 to 2099."""
    return re.fullmatch(r"(?:1[1-9]|20)[0-9]{2}", text) is not None


def several(said: str) -> str:
    """The plural of a number in words: "nineteen ninety" -> "nineteen nineties"."""
    return f"{said[:-1]}ies" if said.endswith("y") else f"{said}s"


def oh_number(text: str) -> str:
    """Two digits behind others: "05" -> "oh five"."""
    return f"oh {cardinal(text[1])}" if text[0] == "0" and text != "00" else cardinal(text)


def code_number(text: str) -> str:
    """Digits that name something: a model, a flight, a room. "101" -> "one oh one"."""
    if text[0] == "0" or len(text) > 4:
        return digits(text)
    if len(text) <= 2 or text[1:].strip("0") == "":
        return cardinal(text)
    if len(text) == 4:
        return year(text) if text[0] != "0" else digits(text)
    return f"{cardinal(text[0])} {oh_number(text[1:])}"


def plural(noun: str, amount: str) -> str:
    """`noun` for an amount as typed: as it is for "1", else its plural. Knows "x per y"."""
    if amount.strip("-−+") == "1":
        return noun
    head, per, tail = noun.partition(" per ")
    first, _, more = head.partition(" ")
    if first in {"degree"}:
        head = f"degrees {more}".strip()
    elif head not in _UNCHANGED and not head.endswith("hertz"):
        *front, last = head.split(" ")
        head = " ".join((*front, _IRREGULAR.get(last, f"{last}s")))
    return f"{head}{per}{tail}"


def spelled(letters: str) -> str:
    """ "fbi" -> "F B I"."""
    return " ".join(letters.upper())
