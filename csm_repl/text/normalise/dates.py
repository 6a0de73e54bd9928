"""Dates, years, decades, eras and times of day."""

from __future__ import annotations

import re

from csm_repl.text.normalise.numbers import (
    cardinal,
    is_year,
    oh_number,
    ordinal,
    plural,
    several,
    spelled,
    year,
)
from csm_repl.text.normalise.quantities import counted
from csm_repl.text.normalise.rule import Rule, before, ending

__all__ = ["DATES", "ERAS", "MONTH_DAYS", "STARTS", "TIMES", "ZONES"]

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
_SHORT = {name[:3].lower(): name for name in _MONTHS} | {"sept": "September"}
_DAYS = {
    "mon": "Monday", "tue": "Tuesday", "tues": "Tuesday", "wed": "Wednesday", "thu": "Thursday",
    "thur": "Thursday", "thurs": "Thursday", "fri": "Friday", "sat": "Saturday", "sun": "Sunday",
}  # fmt: skip
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)}|(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)(?![a-z])\.?)"
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>1\d{3}|20\d\d)"
_END = r"(?!\w|[/:]\d|[.,]\d|[-–]\d)"


def _month(text: str) -> str:
    return _SHORT[re.sub(r"\W", "", text).lower()[:3]]


# --- dates --------------------------------------------------------------------------------------------

_MONTH_DAY = re.compile(
    rf"{_MONTH}\s{{1,2}}(?:the\s)?{_DAY}(?:\s?[-–]\s?(?P<to>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?)?"
    rf"(?:(?P<comma>,?\s{{1,2}}){_YEAR}{_END}|{_END})"
)
_MONTH_YEAR = re.compile(rf"{_MONTH}(?P<comma>,?\s{{1,2}}){_YEAR}{_END}")
_WEEKDAY = re.compile(
    rf"(?P<weekday>{'|'.join(name.capitalize() for name in _DAYS)})(?:\.,?|,)\s{{1,2}}"
    rf"(?={_MONTH}\s|\d{{1,2}}(?:st|nd|rd|th)?\s)"
)
_DAY_MONTH = re.compile(rf"{_DAY}\s{{1,2}}(?:of\s)?{_MONTH}(?:,?\s{{1,2}}{_YEAR}{_END}|(?![\w]))")
_ISO = re.compile(
    rf"{_YEAR}(?P<mark>[-/])(?P<month>0[1-9]|1[0-2])(?P=mark)(?P<day>0[1-9]|[12]\d|3[01])"
    rf"(?:T(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:\.\d{{1,9}})?)?"
    rf"(?P<zone>Z|[+−-]\d\d:?\d\d)?(?![\w:])|(?=T|{_END}))"
)
_ZONE = re.compile(
    r"(?P<name>UTC|GMT)\s?(?P<sign>[+−±-])(?P<hours>\d{1,2})(?::?(?P<minutes>[0-5]\d))?(?![\w]|[.:]\d)"
)
_SLASHES = re.compile(rf"(?P<first>\d{{1,2}})/(?P<second>\d{{1,2}})/(?P<year>\d{{4}}|\d\d){_END}(?!/)")
_POINTS = re.compile(rf"(?P<day>\d{{1,2}})\.\s?(?P<month>\d{{1,2}})\.\s?{_YEAR}{_END}")
_MONTH_SLASH_YEAR = re.compile(rf"(?P<month>0[1-9]|1[0-2])/{_YEAR}{_END}")
_THE = re.compile(r"\bthe\s{1,2}\Z", re.IGNORECASE)


def _said_date(month: str, day: str, written_year: str | None, comma: str = ", ") -> str:
    said = f"{month} {ordinal(day)}"
    return f"{said}{comma}{year(written_year)}" if written_year else said


def _say_month_day(match: re.Match[str]) -> str | None:
    if (
        not match["year"]
        and match["day"] == match.string[match.end("day") - len(match["day"]) : match.end()]
        and counted(match)
    ):
        return None
    month = _month(match["month"])
    day = match["day"]
    if match["to"]:
        range_ = f"{month} {ordinal(day)} to {ordinal(match['to'])}"
        return f"{range_}{match['comma']}{year(match['year'])}" if match["year"] else range_
    return _said_date(month, day, match["year"], match["comma"] or "")


def _say_month_year(match: re.Match[str]) -> str:
    return f"{_month(match['month'])}{match['comma']}{year(match['year'])}"


def _say_weekday(match: re.Match[str]) -> str:
    return f"{_DAYS[match['weekday'].lower()]}, "


def _say_day_month(match: re.Match[str]) -> str:
    the = "" if before(match, _THE) else "the "
    said = f"{the}{ordinal(match['day'])} of {_month(match['month'])}"
    return f"{said} {year(match['year'])}" if match["year"] else said


def _say_iso(match: re.Match[str]) -> str:
    said = _said_date(_MONTHS[int(match["month"]) - 1], match["day"], match["year"])
    if match["hour"] is None:
        return said
    said = f"{said}, {_clock(match['hour'], match['minute'], '')}"
    if match["second"] not in {None, "00"}:
        said = f"{said} and {cardinal(match['second'])} {plural('second', match['second'].lstrip('0'))}"
    zone = match["zone"]
    if zone in {None, "Z"}:
        return f"{said} U T C" if zone else said
    return f"{said} {_offset('UTC', zone[0], zone[1:3], zone[-2:])}"


def _say_zone(match: re.Match[str]) -> str:
    return _offset(match["name"], match["sign"], match["hours"], match["minutes"])


def _offset(name: str, sign: str, hours: str, minutes: str | None) -> str:
    sign = {"+": "plus", "±": "plus or minus"}.get(sign, "minus")
    more = f" {oh_number(minutes)}" if minutes and minutes != "00" else ""
    return f"{spelled(name)} {sign} {cardinal(hours)}{more}"


def _say_slashes(match: re.Match[str]) -> str | None:
    first, second, written = match["first"], match["second"], match["year"]
    month_first = 1 <= int(first) <= 12 and 1 <= int(second) <= 31
    day_first = 1 <= int(second) <= 12 and 1 <= int(first) <= 31
    said_year = year(written) if len(written) == 4 else oh_number(written)
    if len(written) == 4 and not 1000 <= int(written) <= 2099:
        return None
    if month_first and day_first and int(first) != int(second):
        return f"{cardinal(first)} {cardinal(second)} {said_year}"
    if month_first:
        return f"{_MONTHS[int(first) - 1]} {ordinal(second)}, {said_year}"
    return f"{_MONTHS[int(second) - 1]} {ordinal(first)}, {said_year}" if day_first else None


def _say_points(match: re.Match[str]) -> str | None:
    day, month = int(match["day"]), int(match["month"])
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return None
    return _said_date(_MONTHS[month - 1], match["day"], match["year"])


def _say_month_slash_year(match: re.Match[str]) -> str:
    return f"{_MONTHS[int(match['month']) - 1]} {year(match['year'])}"


MONTH_DAYS = (
    Rule(_WEEKDAY, _say_weekday),
    Rule(_MONTH_DAY, _say_month_day),
    Rule(_MONTH_YEAR, _say_month_year),
)
STARTS = frozenset((*map(str.lower, _MONTHS), *_SHORT, *_DAYS, "ad", "a"))
DATES = (
    Rule(_ISO, _say_iso),
    Rule(_SLASHES, _say_slashes),
    Rule(_POINTS, _say_points),
    Rule(_DAY_MONTH, _say_day_month),
    Rule(_MONTH_SLASH_YEAR, _say_month_slash_year),
)

ZONES = (Rule(_ZONE, _say_zone),)

# --- eras and decades ---------------------------------------------------------------------------------

_ERA = re.compile(r"(\d{1,4})\s?(BCE|BC|CE|AD|B\.C\.E?\.?|A\.D\.|C\.E\.)(?![\w])")
_AD_BEFORE = re.compile(r"(AD|A\.D\.)\s(\d{1,4})(?![\w]|[.,:/-]\d)")
_SHORT_DECADE = re.compile(r"['’‘]?([1-9]0)['’]?s(?!\w)")
_DECADE_WORDS = re.compile(
    r"(?:\b(?:the|early|mid|late|her|his|their|my|our|your|in|of)|mid-|early-|late-)\s{0,2}\Z", re.IGNORECASE
)
_SHORT_YEAR = re.compile(r"['’‘](\d\d)(?![\w'’])")


def _say_era(match: re.Match[str]) -> str:
    era = " ".join(re.sub(r"\W", "", match[2]))
    said = year(match[1]) if is_year(match[1]) else cardinal(match[1])
    return f"{said} {era}{ending(match) if match[2].endswith('.') else ''}"


def _say_ad(match: re.Match[str]) -> str:
    said = year(match[2]) if len(match[2]) == 4 else cardinal(match[2])
    return f"A D {said}"


def _say_short_decade(match: re.Match[str]) -> str | None:
    if match[0][0].isdecimal() and not before(match, _DECADE_WORDS):
        return None
    said = cardinal(match[1])
    return several(said)


def _say_short_year(match: re.Match[str]) -> str | None:
    return oh_number(match[1]) if match[1] != "00" else None


ERAS = (
    Rule(_ERA, _say_era),
    Rule(_AD_BEFORE, _say_ad),
    Rule(_SHORT_DECADE, _say_short_decade),
    Rule(_SHORT_YEAR, _say_short_year),
)

# --- times --------------------------------------------------------------------------------------------

_HALF = r"(?:[aApP]\.\s?[mM](?:\.|\b)|(?:am|pm|AM|PM|Am|Pm)(?![\w]))"
_HOUR = r"[01]?\d|2[0-4]"
_DASH = r"(?:\s?[-–—]\s?|\sto\s)"
_TIME = re.compile(
    rf"(?P<hour>{_HOUR}):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)(?:\.\d{{1,6}})?)?(?![\d:]|\.\d)(?:\s?(?P<half>{_HALF}))?"
)
_HOUR_ALONE = re.compile(rf"(?P<hour>1[0-2]|0?[1-9])\s?(?P<half>{_HALF})")
_TIME_RANGE = re.compile(
    rf"(?P<hour>{_HOUR})(?::(?P<minute>[0-5]\d))?(?:\s?(?P<half>{_HALF}))?{_DASH}"
    rf"(?P<hour2>{_HOUR})(?::(?P<minute2>[0-5]\d))?(?![\d:]|\.\d)(?:\s?(?P<half2>{_HALF}))?"
)


def _half(text: str | None) -> str:
    if not text:
        return ""
    return " A M" if text[0] in "aA" else " P M"


def _clock(hour: str, minute: str | None, half: str, *, alone: bool = True) -> str:
    if minute is None or (minute == "00" and half):
        return f"{cardinal(hour)}{half}"
    if minute == "00":
        if int(hour) in {0, 24}:
            return "midnight"
        return f"{cardinal(hour)} o'clock" if int(hour) <= 12 else f"{cardinal(hour)} hundred"
    return f"{cardinal(hour)} {oh_number(minute)}{half}"


def _say_time(match: re.Match[str]) -> str:
    half, second = _half(match["half"]), match["second"]
    if second is None:
        return _clock(match["hour"], match["minute"], half) + ending(match)
    minutes = "hundred" if match["minute"] == "00" else oh_number(match["minute"])
    seconds = f"{cardinal(second)} {plural('second', second.lstrip('0') or '0')}"
    return f"{cardinal(match['hour'])} {minutes} and {seconds}{half}{ending(match)}"


def _say_hour(match: re.Match[str]) -> str:
    return f"{cardinal(match['hour'])}{_half(match['half'])}{ending(match)}"


def _say_time_range(match: re.Match[str]) -> str | None:
    both_minutes = match["minute"] and match["minute2"]
    if not both_minutes and not match["half2"]:
        return None  # two numbers that are no times
    if int(match["hour"]) > 24 or int(match["hour2"]) > 24:
        return None
    first_half = _half(match["half"])
    minute = match["minute"]
    if minute == "00" and not first_half and match["half2"]:
        minute = None
    first = _clock(match["hour"], minute, first_half)
    last = _clock(match["hour2"], match["minute2"], _half(match["half2"]))
    return f"{first} to {last}{ending(match)}"


TIMES = (Rule(_TIME_RANGE, _say_time_range), Rule(_TIME, _say_time), Rule(_HOUR_ALONE, _say_hour))
