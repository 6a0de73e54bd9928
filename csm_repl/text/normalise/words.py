"""Abbreviations, Roman numerals, and words that are written with signs."""

from __future__ import annotations

import re

from csm_repl.text.normalise.numbers import cardinal, code_number, number, ordinal, spelled
from csm_repl.text.normalise.quantities import AMOUNT, RAISED
from csm_repl.text.normalise.rule import Rule, any_of, before, ending, word_before, word_set

__all__ = ["ABBREVIATIONS", "NUMBERED", "ROMANS", "SIGN_WORDS", "STARTS"]

# --- abbreviations ------------------------------------------------------------------------------------

_TITLES = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Prof": "Professor", "Gen": "General",
    "Col": "Colonel", "Capt": "Captain", "Lt": "Lieutenant", "Sgt": "Sergeant", "Rev": "Reverend",
    "Hon": "Honorable", "Sen": "Senator", "Rep": "Representative", "Gov": "Governor", "Pres": "President",
    "St": "Saint", "Fr": "Father", "Messrs": "Messieurs", "Maj": "Major", "Cpl": "Corporal", "Adm": "Admiral",
    "Cmdr": "Commander", "Supt": "Superintendent",
}  # fmt: skip
_BEHIND_NAMES = {
    "Jr": "Junior", "Sr": "Senior", "Inc": "Incorporated", "Ltd": "Limited", "Corp": "Corporation",
    "Co": "Company", "Bros": "Brothers", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "St": "Street",
    "Dr": "Drive", "Ln": "Lane", "Hwy": "Highway", "Sq": "Square", "Pl": "Place", "Ct": "Court",
}  # fmt: skip
_EVERYWHERE = {
    "e.g.": "for example", "eg.": "for example", "e.g": "for example", "i.e.": "that is", "ie.": "that is",
    "i.e": "that is", "etc.": "et cetera", "vs.": "versus", "approx.": "approximately",
    "a.k.a.": "also known as", "aka": "also known as", "w/": "with", "w/o": "without", "b/c": "because",
    "c/o": "care of", "n/a": "not applicable", "dept.": "department", "et al.": "and others",
    "cf.": "compare",
    "ca.": "circa", "incl.": "including", "excl.": "excluding", "govt.": "government",
    "intl.": "international",
    "assn.": "association", "misc.": "miscellaneous", "temp.": "temperature", "tel.": "telephone",
    "ext.": "extension", "attn.": "attention", "appt.": "appointment", "resp.": "respectively",
    "viz.": "namely", "ibid.": "ibidem", "w/out": "without",
}  # fmt: skip
_BEFORE_NUMBERS = {
    "fig": "figure", "figs": "figures", "vol": "volume", "vols": "volumes", "ch": "chapter", "p": "page",
    "pp": "pages", "min": "minimum", "max": "maximum", "est": "established", "sec": "section", "no": "number",
    "nos": "numbers", "nr": "number", "eq": "equation", "ver": "version", "apt": "apartment",
    "approx": "approximately",
    "ep": "episode", "pt": "part", "art": "article", "para": "paragraph", "lvl": "level",
}  # fmt: skip


_CAPITALISED = re.compile(r"[A-Z][\w'’-]*[.]?\s\Z")
_TITLE = re.compile(
    rf"(?P<short>{any_of(_TITLES)})\.\s(?=[\"'“‘]?[A-Z]|(?:and|or|&)\s(?:{any_of(_TITLES)})\.)"
)
_TITLE_DOT = re.compile(rf"(?P<short>{any_of(_TITLES)})\.(?=\s?[A-Z])")
_BEHIND = re.compile(rf"(?P<short>{any_of(_BEHIND_NAMES)})\.(?![\w])")
_ANYWHERE = re.compile(rf"(?P<short>{any_of(_EVERYWHERE)})(?![\w])", re.IGNORECASE)
_WITH_NUMBER = re.compile(
    rf"(?P<short>{any_of(_BEFORE_NUMBERS)})\.\s?(?=\d|[IVX]{{2,}}\b)|(?P<bare>pp?|vol|ch|fig)\s(?=\d)",
    re.IGNORECASE,
)


def _like(typed: str, said: str) -> str:
    """Capitalised where what was typed is."""
    return said[0].upper() + said[1:] if typed[0].isupper() else said


def _say_title(match: re.Match[str]) -> str | None:
    short, previous = match["short"], word_before(match)
    # "Main Dr. Anna lives there": a drive, unless a title or the sentence's first word comes before.
    may_be_drive = short == "Dr" and before(match, _CAPITALISED)
    if may_be_drive and previous not in _OPENERS and previous.rstrip(".") not in _TITLES:
        return None
    return f"{_TITLES[short]} "


_OPENERS = word_set("The And But So When If Ask Tell Is Hello Hi Dear In At To")
_NAME_OR_NUMBER = re.compile(r"(?:[A-Z][\w'’-]*|\d(?:st|nd|rd|th)),?\s{1,2}\Z")


def _say_behind(match: re.Match[str]) -> str | None:
    if not before(match, _NAME_OR_NUMBER):
        return None
    return _BEHIND_NAMES[match["short"]] + ending(match)


_MAY_END_SENTENCES = {"etc.", "et al.", "dept.", "govt.", "incl.", "misc."}


def _say_anywhere(match: re.Match[str]) -> str | None:
    short = match["short"]
    lower, rest = short.lower(), match.string[match.end() : match.end() + 1]
    if lower == "vs." and len(word_before(match)) == 1:
        return None  # "T Vs." is the plural of a spelled word
    if lower == "w/" and not match.string[match.end() : match.end() + 2].strip():
        return None
    said = _EVERYWHERE[lower]
    if short[0].isupper() and lower not in {"n/a", "aka"}:
        said = _like(short, said)
    if lower == "w/" and not rest.isspace():
        return f"{said} "
    return said + ending(match) if lower in _MAY_END_SENTENCES else said


def _say_with_number(match: re.Match[str]) -> str | None:
    short = match["short"] or match["bare"]
    if short.isupper() and len(short) > 1:
        return None
    said = _BEFORE_NUMBERS[short.lower()]
    return f"{said if said.startswith('number') else _like(short, said)} "


ABBREVIATIONS = (
    Rule(_WITH_NUMBER, _say_with_number),
    Rule(_TITLE, _say_title),
    Rule(_TITLE_DOT, lambda match: f"{_TITLES[match['short']]}"),
    Rule(_BEHIND, _say_behind),
    Rule(_ANYWHERE, _say_anywhere),
)
STARTS = frozenset(
    re.split(r"[\W\d]", word.lower())[0]
    for word in (*_TITLES, *_BEHIND_NAMES, *_EVERYWHERE, *_BEFORE_NUMBERS)
)
"""First words, in small letters and without a full stop, of what the rules here may change."""

# --- Roman numerals -----------------------------------------------------------------------------------

_ROMAN = re.compile(
    r"(?P<roman>(?=[IVXL])L?X{0,3}(?:IX|IV|V?I{0,3})|XL(?:IX|IV|V?I{0,3})|(?:XC|L)(?:IX|IV|V?I{0,3}))(?P<s>['’]s)?(?![\w]|['’-]\w|\.\w)"
)
_RULERS = word_set(
    """
    Louis Henry Elizabeth Charles George William Edward Richard James Mary Philip Philippe Napoleon
    Nicholas Alexander
    Peter Catherine Ivan Pius Leo Paul Gregory Innocent Clement Urban Benedict Francis Boniface Ramses
    Ramesses
    Ptolemy Cleopatra Otto Friedrich Frederick Wilhelm Gustav Christian Haakon Olav Carl Felipe Carlos Alfonso
    Ferdinand Isabella Leopold Albert Umberto Emmanuel Pedro Mehmed Murad Suleiman Selim Darius Xerxes
    Thutmose
    Amenhotep Constantine Justinian Theodosius Baldwin Robert Malcolm David Kenneth Stephen Harold
    Margaret Harald
    Rama Victoria Juan João Manuel Sancho Casimir Sigismund Rudolf Rudolph Maximilian Franz Josef Joseph Nero
    Michael Basil Leon Theodore Julius Sixtus Adrian Hadrian Celestine Eugene Nicholas Martin Callixtus
    Honorius
    Abdul Farouk Fuad Hussein Abdullah Mohammed Muhammad Hassan Tutankhamun Seti Anne
    """
)
_COUNTED_NOUNS = word_set(
    "Act Part Chapter Volume Book Type Phase Level Grade Class Section Scene Stage Article "
    "Appendix Tier Lesson "
    "Episode Season Unit Round Division Title Mark"
)
_SINGLE = {"I": 1, "V": 5, "X": 10}
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
_CLOSES = re.compile(
    r"(?:['’]s)?(?:\s*\Z|[.,;:!?)\"”’]|\s(?:of|and|was|is|in|had|made|to|reigned|ruled|died|became)\b)"
)
_I_THE_SPEAKER = re.compile(
    r"['’][^s]|\s(?:am|was|have|had|think|thought|know|knew|like|liked|love|loved|hate|hated|want|wanted|did|do|can|could|"
    r"will|would|should|wrote|said|say|saw|see|mean|meant|need|needed|never|always|really|just|don|didn|must|made)\b"
)
_WORLD_WAR = re.compile(r"\bWorld War \Z")
_NOT_NUMERALS = {"LI", "LX", "LV", "XL", "XX", "XXX", "VI", "XI", "LIV", "LIX"}
_NAME_BEFORE = re.compile(r"([A-ZÀ-Þ][\w'’-]*)\s\Z")


def _roman_value(text: str) -> int:
    total = 0
    for char, following in zip(text, [*text[1:], ""], strict=True):
        value = _VALUES[char]
        total += -value if following and _VALUES[following] > value else value
    return total


def _say_roman(match: re.Match[str]) -> str | None:
    roman, found = match["roman"], before(match, _NAME_BEFORE)
    if not roman or found is None:
        return None
    name, tail = found[1], match["s"] or ""
    if len(roman) == 1 and roman not in _SINGLE:
        return None
    closed = _CLOSES.match(match.string, match.end()) is not None
    if name in _RULERS and (len(roman) > 1 or roman == "V" or (roman == "X" and name != "Malcolm") or closed):
        if roman == "X" and name == "Malcolm":
            return None
        return f"the {ordinal(str(_roman_value(roman))).capitalize()}{tail}"
    if len(roman) == 1:
        counted = name in _COUNTED_NOUNS or before(match, _WORLD_WAR) is not None
        fits = counted and (roman != "I" or _I_THE_SPEAKER.match(match.string, match.end()) is None)
        return f"{cardinal(str(_SINGLE[roman])).capitalize()}{tail}" if fits else None
    if name.isupper() and len(name) > 1:
        return None
    if roman in _NOT_NUMERALS and not (
        name in _COUNTED_NOUNS or name in {"Bowl", "Fantasy", "Apollo", "Legion"}
    ):
        return None
    return f"{cardinal(str(_roman_value(roman))).capitalize()}{tail}"


ROMANS = (Rule(_ROMAN, _say_roman),)

# --- numbered things ----------------------------------------------------------------------------------

_NUMBER_SIGN = re.compile(rf"#\s?({AMOUNT})(?![\w])")
_ROOM = re.compile(
    r"(?P<what>[Rr]oom|[Ff]light|[Hh]ighway|[Bb]us|[Aa]partment|[Ss]uite|[Gg]ate|[Aa]rea|[Ii]nterstate|[Uu]nit|"
    r"[Aa]pt\.?|[Tt]rain|Rte\.?|[Ee]xtension)\s(?P<number>\d{1,5})(?P<letter>[A-Z])?(?![\w]|[.,:/-]\d)"
)
_LETTERED_ROUTE = re.compile(r"I-(\d{1,3})(?![\w])")


def _say_number_sign(match: re.Match[str]) -> str:
    return f"number {number(match[1])}"


def _say_room(match: re.Match[str]) -> str:
    what = {"Apt": "Apartment", "apt": "apartment", "Rte": "Route"}.get(
        match["what"].rstrip("."), match["what"]
    )
    said = f"{what} {code_number(match['number'])}"
    return f"{said} {match['letter']}" if match["letter"] else said


NUMBERED_STARTS = word_set(
    "room flight highway bus apartment suite gate area interstate unit apt train rte extension i"
)
NUMBERED = (Rule(_ROOM, _say_room), Rule(_LETTERED_ROUTE, lambda match: f"I {code_number(match[1])}"))
NUMBER_SIGN = (Rule(_NUMBER_SIGN, _say_number_sign),)
__all__ += ["NUMBERED_STARTS", "NUMBER_SIGN"]

# --- signs --------------------------------------------------------------------------------------------

_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ζ": "zeta", "η": "eta",
    "θ": "theta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi",
    "ρ": "rho", "σ": "sigma", "τ": "tau", "υ": "upsilon", "φ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Δ": "Delta", "Ω": "Omega", "Σ": "Sigma", "Π": "Pi", "Φ": "Phi", "Ψ": "Psi", "Θ": "Theta", "Λ": "Lambda",
    "Γ": "Gamma", "Ξ": "Xi",
}  # fmt: skip
_LONE_GREEK = re.compile(rf"[{''.join(_GREEK)}](?![\w²³])")
_AMPERSAND = re.compile(r"(?P<left>[A-Za-z]{1,4})&(?P<right>[A-Za-z]{1,4})(?![\w&])")
_LANGUAGE = re.compile(r"(?:(?P<plus>[A-Z])\+\+|(?P<sharp>[CFJ])#|(?P<grade>[A-F])\+)(?![\w+#])")
_DOT_NET = re.compile(r"\.NET(?![\w])")
_OPERATORS = {
    "+": "plus", "=": "equals", "×": "times", "÷": "divided by", "<": "is less than", ">": "is greater than",
    "≤": "is at most", "≥": "is at least", "≈": "is about", "≠": "is not equal to", "±": "plus or minus",
    "→": "to", "·": "times", "*": "times", "-": "minus", "−": "minus", "–": "minus", "/": "divided by",
}  # fmt: skip
_OPERATOR = re.compile(r"(?P<sign>[+=×÷<>≤≥≈≠±→·*−–/-])(?P<behind>\s?)(?=[\w(√−$€£.-])")
_OPERAND_BEFORE = re.compile(r"(?P<operand>[\w)²³%°]+)(?P<space>\s?)\Z")
_SIMPLE = {
    "&": "and", "@": "at", "=": "equals", "+": "plus", "→": "to", "§": "section", "©": "copyright",
    "∞": "infinity", "∑": "sum", "∆": "delta",
}  # fmt: skip
_ALONE = re.compile(r"[&@=+→](?=\s|\Z)")
_WITH_WORD = re.compile(r"(?P<sign>[§©])\s?(?=[\w])|(?P<only>[∞∑∆])")


def _say_greek(match: re.Match[str]) -> str:
    return _GREEK[match[0]]


def _say_ampersand(match: re.Match[str]) -> str:
    def side(text: str) -> str:
        return spelled(text) if text.isupper() else text

    return f"{side(match['left'])} and {side(match['right'])}"


def _say_language(match: re.Match[str]) -> str:
    if match["plus"]:
        return f"{match['plus']} plus plus"
    return f"{match['sharp']} sharp" if match["sharp"] else f"{match['grade']} plus"


def _say_operator(match: re.Match[str]) -> str | None:
    sign, start = match["sign"], match.start()
    left = _OPERAND_BEFORE.search(match.string, max(0, start - 24), start)
    if left is None or bool(left["space"]) != bool(match["behind"]):
        return None
    spaced, operand = bool(match["behind"]), left["operand"]
    right = match.string[match.end() : match.end() + 24]
    said = f"{_OPERATORS[sign]} " if spaced else f" {_OPERATORS[sign]} "
    numbers = bool(re.fullmatch(r"[\d)²³%°]+|[A-Za-z][²³)]?", operand)) and bool(
        re.match(r"[(√−$€£.-]?(?:\d|[A-Za-z](?![A-Za-z]))", right)
    )
    if sign in "-−–/*·":
        # Only in a sum: "5 - 3 = 2"; elsewhere it is a dash.
        near = match.string[max(0, start - 24) : start] + right
        return (
            said
            if numbers
            and (spaced or sign in "*/·")
            and operand[-1] not in "abcABCDEF"
            and re.search(r"[=+×÷]", near)
            else None
        )
    if sign in "=→≠":
        return said if spaced or numbers or sign == "=" else None
    return said if numbers else None


def _say_alone(match: re.Match[str]) -> str | None:
    start = match.start()
    if start == 0 or not match.string[start - 1].isspace() or match.end() == len(match.string):
        return None
    return _SIMPLE[match[0]]


def _say_with_word(match: re.Match[str]) -> str:
    return _SIMPLE[match["only"]] if match["only"] else f"{_SIMPLE[match['sign']]} "


SIGN_WORDS = (
    RAISED,
    Rule(_AMPERSAND, _say_ampersand),
    Rule(_LANGUAGE, _say_language),
    Rule(_DOT_NET, lambda _: "dot NET"),
    Rule(_LONE_GREEK, _say_greek),
)
OPERATORS = (Rule(_OPERATOR, _say_operator), Rule(_ALONE, _say_alone), Rule(_WITH_WORD, _say_with_word))
__all__ += ["OPERATORS"]
