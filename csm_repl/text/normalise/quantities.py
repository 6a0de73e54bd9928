"""Numbers with something beside them: money, percent, units, fractions, ranges, sizes."""

from __future__ import annotations

import re

from csm_repl.text.normalise.numbers import (
    cardinal,
    code_number,
    digits,
    is_year,
    number,
    ordinal,
    plain,
    plural,
    several,
    spelled,
    year,
)
from csm_repl.text.normalise.rule import NOTHING_MORE, Rule, any_of, before, next_word, word_before, word_set

__all__ = [
    "AMOUNT",
    "BEHIND_NUMBERS",
    "CURRENCY_CODES",
    "DECADES",
    "MONEY",
    "NUMBERS",
    "SIGNS",
    "UNITS",
    "counted",
]

AMOUNT = r"(?:\d{1,3}(?:[,\u00a0\u202f]\d{3}){1,9}(?!\d)|\d{1,33})(?:\.\d{1,15})?"
_DASH = r"[-–—−]"
_SIZES = r"hundred|thousand|million|billion|trillion"

_CURRENCIES = {
    "$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"), "¥": ("yen", ""),
    "₹": ("rupee", "paisa"), "₩": ("won", ""), "US$": ("U S dollar", "cent"), "A$": ("Australian dollar",
    "cent"),
    "C$": ("Canadian dollar", "cent"), "CA$": ("Canadian dollar", "cent"), "AU$": ("Australian dollar",
    "cent"),
    "NZ$": ("New Zealand dollar", "cent"), "HK$": ("Hong Kong dollar", "cent"),
    "USD": ("U S dollar", "cent"), "EUR": ("euro", "cent"), "GBP": ("British pound", "penny"),
    "JPY": ("Japanese yen", ""), "CHF": ("Swiss franc", ""), "CAD": ("Canadian dollar", "cent"),
    "AUD": ("Australian dollar", "cent"), "INR": ("Indian rupee", ""), "CNY": ("Chinese yuan", ""),
}  # fmt: skip
CURRENCY_CODES = tuple(name for name in _CURRENCIES if name.isalpha())
_MAGNITUDES = {
    "k": "thousand", "K": "thousand", "m": "million", "M": "million", "mn": "million", "mio": "million",
    "b": "billion", "B": "billion", "bn": "billion", "Bn": "billion", "tn": "trillion", "T": "trillion",
}  # fmt: skip
_PER = {
    "month": "month", "mo": "month", "year": "year", "yr": "year", "day": "day", "week": "week", "wk": "week",
    "hour": "hour", "hr": "hour", "h": "hour", "minute": "minute", "min": "minute", "second": "second",
    "sec": "second", "s": "second", "person": "person", "night": "night", "kg": "kilogram", "lb": "pound",
    "km": "kilometer", "mile": "mile", "item": "item", "piece": "piece", "user": "user", "seat": "seat",
    "page": "page", "unit": "unit", "m²": "square meter", "l": "liter", "L": "liter", "gallon": "gallon",
    "share": "share", "token": "token", "word": "word", "line": "line", "ticket": "ticket", "GB": "gigabyte",
    "oz": "ounce", "kWh": "kilowatt hour", "game": "game", "bottle": "bottle", "box": "box", "pack": "pack",
}  # fmt: skip
UNITS = {
    "%": "percent", "‰": "per mille",
    "mm": "millimeter", "cm": "centimeter", "dm": "decimeter", "m": "meter", "km": "kilometer",
    "nm": "nanometer", "µm": "micrometer", "μm": "micrometer",
    "mg": "milligram", "g": "gram", "kg": "kilogram", "µg": "microgram", "μg": "microgram", "lb": "pound",
    "lbs": "pound", "tbsp": "tablespoon", "tsp": "teaspoon", "gal": "gallon",
    "oz": "ounce", "ft": "foot", "yd": "yard", "mi": "mile",
    "ml": "milliliter", "mL": "milliliter", "cl": "centiliter", "dl": "deciliter", "l": "liter", "L": "liter",
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "KB": "kilobyte", "kB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte",
    "PB": "petabyte", "KiB": "kibibyte", "MiB": "mebibyte", "GiB": "gibibyte", "TiB": "tebibyte",
    "kbit": "kilobit", "Mbit": "megabit", "Gbit": "gigabit", "kbps": "kilobit per second",
    "Mbps": "megabit per second", "Gbps": "gigabit per second", "fps": "frame per second",
    "W": "watt", "kW": "kilowatt", "MW": "megawatt", "GW": "gigawatt", "kWh": "kilowatt hour",
    "MWh": "megawatt hour", "mAh": "milliampere hour", "V": "volt", "kV": "kilovolt", "mV": "millivolt",
    "mA": "milliampere", "dB": "decibel", "kJ": "kilojoule", "kcal": "kilocalorie", "cal": "calorie",
    "ms": "millisecond", "µs": "microsecond", "μs": "microsecond", "ns": "nanosecond", "s": "second",
    "sec": "second", "secs": "second", "min": "minute", "mins": "minute", "hr": "hour", "hrs": "hour",
    "h": "hour", "yrs": "year", "yr": "year", "mph": "mile per hour", "kph": "kilometer per hour",
    "km/h": "kilometer per hour", "km/s": "kilometer per second", "m/s²": "meter per second squared",
    "kmh": "kilometer per hour", "m/s": "meter per second",
    "MB/s": "megabyte per second", "GB/s": "gigabyte per second", "Mbit/s": "megabit per second",
    "rpm": "revolution per minute", "g/L": "gram per liter", "mg/L": "milligram per liter",
    "kg/m³": "kilogram per cubic meter", "m²": "square meter", "km²": "square kilometer",
    "cm²": "square centimeter", "m³": "cubic meter", "cm³": "cubic centimeter", "ft²": "square foot",
    "sq ft": "square foot", "sqft": "square foot", "hPa": "hectopascal", "kPa": "kilopascal",
    "psi": "pound per square inch", "px": "pixel", "MP": "megapixel", "pts": "point",
    "°C": "degree Celsius", "°F": "degree Fahrenheit", "° C": "degree Celsius", "° F": "degree Fahrenheit",
    "°": "degree", "℃": "degree Celsius", "℉": "degree Fahrenheit", "bpm": "beat per minute",
}  # fmt: skip
_ONLY_WITH_SPACE = {"V", "L"}
"""Glued to a number they are as often part of a name."""
_NOT_BEFORE_A_WORD = {"m", "s", "h", "g", "l", "W", "V", "L", "cal", "MP"}
"""Behind a space they count as units only where they cannot be a letter that stands for itself."""
_COMPASS = {"N": "north", "S": "south", "E": "east", "W": "west"}
_FRACTIONS = {
    "½": ("1", "2"), "⅓": ("1", "3"), "⅔": ("2", "3"), "¼": ("1", "4"), "¾": ("3", "4"), "⅕": ("1", "5"),
    "⅖": ("2", "5"), "⅗": ("3", "5"), "⅘": ("4", "5"), "⅙": ("1", "6"), "⅚": ("5", "6"), "⅛": ("1", "8"),
    "⅜": ("3", "8"), "⅝": ("5", "8"), "⅞": ("7", "8"),
}  # fmt: skip


# --- money --------------------------------------------------------------------------------------------

_MAGNITUDE = rf"(?:\s?(?P<size>{_SIZES}|mio|mn|bn|Bn|tn|[kKmMbBT])(?![A-Za-z]))?"
_PER_TAIL = rf"(?:\s?/\s?(?P<per>{any_of(_PER)})(?!\w))?"
_SYMBOL = r"(?:(?:US|CA|AU|NZ|HK|[AC])?\$|[€£¥₹₩])"
_MONEY_BEFORE = re.compile(
    rf"(?P<symbol>{_SYMBOL}|(?:{'|'.join(CURRENCY_CODES)})(?=\s?\d))\s?(?P<low>{AMOUNT}){_MAGNITUDE}"
    rf"(?:\s?{_DASH}\s?{_SYMBOL}?(?P<high>{AMOUNT}){_MAGNITUDE.replace('<size>', '<size2>')})?"
    rf"{_PER_TAIL}(?![A-Za-z\d]|[.,]\d)"
)
_MONEY_BEHIND = re.compile(
    rf"(?P<low>{AMOUNT}){_MAGNITUDE}"
    rf"(?:\s?{_DASH}\s?(?P<high>{AMOUNT}){_MAGNITUDE.replace('<size>', '<size2>')})?"
    rf"\s?(?P<symbol>[€£¥₹₩¢]|(?:{'|'.join(CURRENCY_CODES)})(?![A-Za-z])){_PER_TAIL}(?!\w|[.,]\d)"
)


def _size(text: str | None) -> str:
    return f" {_MAGNITUDES.get(text, text)}" if text else ""


def _money(amount: str, symbol: str, size: str | None) -> str:
    name, cent = _CURRENCIES.get(symbol, ("cent", ""))
    whole, _, decimals = amount.partition(".")
    if size:
        return f"{number(amount)}{_size(size)} {plural(name, '2')}"
    if len(decimals) != 2 or not cent:
        return f"{number(amount)} {plural(name, amount)}"
    cents = f"{cardinal(decimals)} {plural(cent, decimals.lstrip('0') or '0')}"
    if decimals == "00":
        return f"{number(whole)} {plural(name, whole)}"
    return cents if whole.strip("0") == "" else f"{number(whole)} {plural(name, whole)} and {cents}"


def _say_money(match: re.Match[str]) -> str:
    low, high, symbol = match["low"], match["high"], match["symbol"]
    if high:
        said = f"{number(low)}{_size(match['size'])} to {_money(high, symbol, match['size2'])}"
    else:
        said = _money(low, symbol, match["size"])
    return f"{said} per {_PER[match['per']]}" if match["per"] else said


MONEY = (Rule(_MONEY_BEFORE, _say_money),)

# --- percent and units --------------------------------------------------------------------------------

_UNIT = rf"(?P<space>\s|\u00a0)?(?P<unit>{any_of(UNITS)})(?![\w²³])"
_MEASURE = re.compile(
    rf"(?P<low>{AMOUNT})(?:\s?(?:{_DASH}|to)\s?(?P<minus>[-−])?(?P<high>{AMOUNT}))?"
    rf"(?:{_UNIT}|-(?P<glued>{any_of(UNITS)})(?=\s[a-z]))(?:\s(?P<compass>[NSEW])(?![\w])|(?P<stop>\.)(?=\s{{1,2}}[a-z]))?"
)
_MEASURED_SIZE = re.compile(rf"(?P<low>{AMOUNT})\s?[x×]\s?(?P<high>{AMOUNT}){_UNIT}")
_WITH_STOP = word_set("ft lb lbs oz yd mi hr hrs min mins sec secs tbsp tsp gal")
"""Abbreviations that are written with a full stop, too."""
_HOURS_BEFORE = re.compile(r"\d\s?h(?:rs?|ours?)?\.?\s?\Z")
_FEET_AND_SOME = re.compile(r"(\d{1,2})\s?ft\.?\s(\d{1,2})\s?in(?:\.(?=\s{1,2}[a-z]))?(?![\w])")
_FEET_AND_INCHES = re.compile(r"(\d{1,2})['′]\s?(\d{1,2})(?:[\"″]|'')")
_INCHES = re.compile(rf"({AMOUNT})[\"″](?=\s[a-z])")


def _unit_fits(match: re.Match[str]) -> bool:
    unit, space = match["unit"], match["space"]
    if not space:
        return unit not in _ONLY_WITH_SPACE
    if unit in _NOT_BEFORE_A_WORD:
        rest = match.string[match.end() : match.end() + 2]
        return (not rest[:1].isalnum() and rest[:1] not in {"'", "’", "."}) or rest in {". ", "."}
    return True


def _say_measure(match: re.Match[str]) -> str | None:
    low, high = match["low"], match["high"]
    if match["glued"]:
        numbers = f"{number(low)} to {number(high)}" if high else number(low)
        return f"{numbers} {UNITS[match['glued']]}"
    if not _unit_fits(match):
        return None
    unit = UNITS[match["unit"]]
    if match["unit"] == "m" and not match["space"] and before(match, _HOURS_BEFORE):
        unit = "minute"
    if match["unit"] == "%" and high is None and match.string[match.end() : match.end() + 1] == "-":
        return None
    minus = "minus " if match["minus"] else ""
    said = f"{number(low)} to {minus}{number(high)}" if high else number(low)
    said = f"{said} {plural(unit, high or low)}"
    if match["compass"]:
        if not match["unit"].startswith("°"):
            return None
        said = f"{said} {_COMPASS[match['compass']]}"
    return f"{said}." if match["stop"] and match["unit"] not in _WITH_STOP else said


def _say_measured_size(match: re.Match[str]) -> str:
    high = match["high"]
    return f"{number(match['low'])} by {number(high)} {plural(UNITS[match['unit']], high)}"


def _say_inches(match: re.Match[str]) -> str | None:
    quoted = before(match, _QUOTE_BEFORE) is not None
    return None if quoted else f"{number(match[1])} {plural('inch', match[1])}"


def _say_feet_and_some(match: re.Match[str]) -> str:
    return f"{cardinal(match[1])} {plural('foot', match[1])} {cardinal(match[2])} {plural('inch', match[2])}"


def _say_feet(match: re.Match[str]) -> str:
    return f"{cardinal(match[1])} foot {cardinal(match[2])}"


# --- fractions, ranges, sizes, powers -----------------------------------------------------------------

_VULGAR = re.compile(rf"(?:(?P<whole>\d{{1,9}})\s?)?(?P<part>[{''.join(_FRACTIONS)}])(?!\w)")
_FRACTION = re.compile(
    rf"(?:(?P<whole>\d{{1,4}})\s)?(?P<above>\d{{1,4}})/(?P<below>\d{{1,4}}){NOTHING_MORE}(?!/)"
)
_RANGE = re.compile(
    rf"(?P<low>{AMOUNT})(?P<dash>\s?[–—]\s?|[-−:])(?P<high>{AMOUNT})(?P<s>s)?{NOTHING_MORE}(?![-/])"
)
_SIZE = re.compile(r"(\d{1,5})\s?[x×]\s?(\d{1,5})(?:\s?[x×]\s?(\d{1,5}))?(?!\w|[.,]\d)")
_FACTOR = re.compile(rf"({AMOUNT})[x×](?![\w]|\s?\d)")
_POWER = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)[eE]([+-]?)(\d{1,3})(?!\w|[.,]\d)")
_RAISED = re.compile(
    r"(\d{1,9}|[A-Za-z]{1,4})(?:\^(?P<minus>[-−])?(?P<to>\d{1,4}|[a-z])|(?P<sign>[²³]))(?!\w)"
)
_BOOKS = word_set(
    """
    Genesis Exodus Leviticus Numbers Deuteronomy Joshua Judges Ruth Samuel Kings Chronicles Ezra Nehemiah
    Esther Job
    Psalm Psalms Proverbs Ecclesiastes Isaiah Jeremiah Lamentations Ezekiel Daniel Hosea Joel Amos Jonah Micah
    Matthew Mark Luke John Acts Romans Corinthians Galatians Ephesians Philippians Colossians
    Thessalonians Timothy
    Titus Hebrews James Peter Jude Revelation Surah Sura Quran
    """
)
_SPECIAL_SLASHES = {
    "24/7": "twenty-four seven",
    "50/50": "fifty fifty",
    "9/11": "nine eleven",
    "20/20": "twenty twenty",
}
_WORDS_BELOW = {"2": ("half", "halves"), "4": ("quarter", "quarters")}


def _fraction(above: str, below: str) -> str:
    one, many = _WORDS_BELOW.get(below) or (ordinal(below), f"{ordinal(below)}s")
    return f"{cardinal(above)} {one if above == '1' else many}"


def _with_whole(whole: str | None, above: str, below: str) -> str:
    if whole is None:
        return _fraction(above, below)
    part = "a half" if (above, below) == ("1", "2") else _fraction(above, below)
    return f"{number(whole)} and {part}"


def _say_vulgar(match: re.Match[str]) -> str:
    return _with_whole(match["whole"], *_FRACTIONS[match["part"]])


def _say_fraction(match: re.Match[str]) -> str | None:
    whole, above, below = match["whole"], match["above"], match["below"]
    special = _SPECIAL_SLASHES.get(f"{above}/{below}")
    if special is not None and whole is None:
        return special
    if "0" in {above[0], below[0]}:
        return None
    if (
        int(above) < int(below)
        and (int(below) <= 20 or below in {"32", "64", "100", "1000"})
        and below != "1"
    ):
        return _with_whole(whole, above, below)
    return None if whole else f"{_bare(above)} slash {_bare(below)}"


def _bare(text: str) -> str:
    return year(text) if is_year(text) else number(text)


def _say_range(match: re.Match[str]) -> str | None:
    low, high, dash = match["low"], match["high"], match["dash"].strip()
    if dash == "-" and len(plain(low)) == 3 and len(high) == 4 and int(low) > 0:
        return None  # a telephone number
    if (low[0] == "0" and len(low) > 1 and low[1] != ".") or (
        high[0] == "0" and len(high) > 1 and high[1] != "."
    ):
        return None
    if len(low) == 4 and len(high) == 2 and is_year(low) and dash != ":":
        if int(high) > int(low[2:]):
            return f"{year(low)} to {cardinal(high)}"
        return None
    said = _bare(high)
    if dash == ":" and word_before(match).rstrip(".") in _BOOKS:
        return f"{number(low)} {number(high)}"
    if match["s"]:
        if len(high) != 4 and not (len(high) == 2 and high[1] == "0"):
            return None
        said = several(said)
    return f"{_bare(low)} to {said}"


def _say_size(match: re.Match[str]) -> str:
    parts = [part for part in match.groups() if part]
    if " × " in match[0] and len(parts) == 2:
        return f"{number(parts[0])} times {number(parts[1])}"
    say = code_number if all(len(part) >= 3 for part in parts) else number
    return " by ".join(say(part) for part in parts)


_IN_A_FORMULA = re.compile(r"[=+*/^(−-]\s?\Z")
_FORMULA_BEHIND = re.compile(r"\s?[=+*/^)−]|\s-\s")


def _say_factor(match: re.Match[str]) -> str:
    in_formula = before(match, _IN_A_FORMULA) or _FORMULA_BEHIND.match(match.string, match.end())
    return f"{number(match[1])} {'x' if in_formula and match[0][-1] == 'x' else 'times'}"


def _say_power(match: re.Match[str]) -> str:
    minus = "minus " if match[2] == "-" else ""
    return f"{number(match[1])} times ten to the power of {minus}{cardinal(match[3])}"


def _say_raised(match: re.Match[str]) -> str:
    base = number(match[1]) if match[1].isdecimal() else match[1]
    to = match["to"] or {"²": "2", "³": "3"}[match["sign"]]
    if match["minus"] is None and to in {"2", "3"}:
        return f"{base} {'squared' if to == '2' else 'cubed'}"
    minus = "minus " if match["minus"] else ""
    return f"{base} to the power of {minus}{cardinal(to) if to.isdecimal() else to}"


RAISED = Rule(_RAISED, _say_raised)


# --- numbers alone ------------------------------------------------------------------------------------

_DECIMAL = re.compile(rf"(?:{AMOUNT}|\.\d{{1,15}})(?:\s(?P<size>{_SIZES})\b)?{NOTHING_MORE}")
_ORDINAL = re.compile(r"(\d{1,3}(?:,\d{3})+|\d{1,12})(?:st|nd|rd|th|ST|ND|RD|TH)(?![\w])")
_WITH_LETTERS = re.compile(r"(\d{1,4})([A-Z]{1,2}|p|k)(s)?(?![\w]|[.]\d)")
_MANY_OF_A_KIND = re.compile(r"(\d{3,4})['’]?s(?!\w)")
_PLUS_BEHIND = re.compile(rf"({AMOUNT})\+(?![\w+]|\s?\d)")
_FEET_BEHIND = re.compile(r"['′\"″](?!\w)")
_QUOTE_BEFORE = re.compile(r"['‘\"“][^'’\"”]*\Z")
_TIME_WORDS = {
    "in", "since", "by", "until", "till", "from", "of", "year", "before", "after", "around", "circa",
    "during",
    "between", "early", "late", "mid", "spring", "summer", "autumn", "fall", "winter", "january", "february",
    "march", "april", "may", "june", "july", "august", "september", "october", "november", "december",
}  # fmt: skip
_NO_PLURALS = {
    "was", "is", "has", "this", "its", "as", "us", "his", "hers", "does", "always", "perhaps", "plus",
    "series",
    "thus", "yes", "ours", "theirs", "yours", "besides", "towards", "news", "across", "less", "unless",
    "minus",
    "versus", "sometimes", "says", "marks", "sees", "brings", "comes", "goes", "makes", "shows", "seems",
    "starts", "ends", "begins", "saw", "means", "turns", "gives", "looks", "gets",
}  # fmt: skip
_COUNTED = {"people", "men", "women", "children", "euros", "feet", "percent", "more", "or"}


def counted(match: re.Match[str]) -> bool:
    """Whether a number counts what follows: a plural does, and no word of time comes before."""
    if word_before(match).lower() in _TIME_WORDS:
        return False
    following = next_word(match)
    if following in _COUNTED:
        return True
    return (
        len(following) > 3
        and following.islower()
        and following.endswith("s")
        and following not in _NO_PLURALS
    )


def _say_number(match: re.Match[str]) -> str | None:
    text, size = match[0], match["size"]
    if _FEET_BEHIND.match(match.string, match.end()) and not before(match, _QUOTE_BEFORE):
        return None
    if size:
        return f"{number(text.removesuffix(size).strip())} {size}"
    if "." not in text and "," not in text:
        if is_year(text) and not counted(match):
            return year(text)
        if len(text) >= 7 and not text.endswith("000"):
            return digits(text)
    return number(text)


def _say_ordinal(match: re.Match[str]) -> str:
    return ordinal(match[1])


def _say_with_letters(match: re.Match[str]) -> str:
    letters = spelled(match[2])
    return f"{code_number(match[1])} {letters}{'s' if match[3] else ''}"


def _say_many(match: re.Match[str]) -> str | None:
    text = match[1]
    if is_year(text) and text.endswith("0"):
        return several(year(text))
    # "120s" are seconds; aeroplanes are the exception.
    return f"{code_number(text)}s" if re.fullmatch(r"7\d7", text) else None


def _say_plus_behind(match: re.Match[str]) -> str:
    return f"{number(match[1])} plus"


BEHIND_NUMBERS = (
    Rule(_MONEY_BEHIND, _say_money),
    Rule(_MEASURED_SIZE, _say_measured_size),
    Rule(_FEET_AND_SOME, _say_feet_and_some),
    Rule(_FEET_AND_INCHES, _say_feet),
    Rule(_MEASURE, _say_measure),
    Rule(_INCHES, _say_inches),
    Rule(_VULGAR, _say_vulgar),
    Rule(_FRACTION, _say_fraction),
)
DECADES = (Rule(_MANY_OF_A_KIND, _say_many),)
NUMBERS = (
    Rule(_POWER, _say_power),
    RAISED,
    Rule(_SIZE, _say_size),
    Rule(_FACTOR, _say_factor),
    Rule(_ORDINAL, _say_ordinal),
    Rule(_RANGE, _say_range),
    Rule(_WITH_LETTERS, _say_with_letters),
    Rule(_PLUS_BEHIND, _say_plus_behind),
    Rule(_DECIMAL, _say_number),
)

# --- signs before a number ----------------------------------------------------------------------------

_AFTER_OPERAND = re.compile(r"[\w)²³]\Z|[\d)]\s\Z")
_SIGN_WORDS = {
    "-": "minus", "−": "minus", "–": "minus", "+": "plus", "±": "plus or minus", "~": "about", "≈": "about",
    "≥": "at least", "≤": "at most", ">": "more than", "<": "less than", "√": "square root of",
}  # fmt: skip
_SIGN = re.compile(r"(?P<sign>[-−–+±~≈≥≤<>√])(?:\s?)(?=[$€£¥₹₩]?\.?\d)(?!\S{1,80}[@>]|\d+[A-Za-z]{3})")


def _say_sign(match: re.Match[str]) -> str | None:
    """The word for a sign alone; the number behind it follows as it would without."""
    sign = match["sign"]
    if before(match, _AFTER_OPERAND) or (sign in "-–+~" and match[0] != sign):
        return None
    return f"{_SIGN_WORDS[sign]} "


SIGNS = (Rule(_SIGN, _say_sign),)
