"""What is written in signs and names something: telephones, versions, addresses, files, models."""

from __future__ import annotations

import re

from csm_repl.text.normalise.initialisms import is_initialism
from csm_repl.text.normalise.numbers import cardinal, code_number, digits, several, spelled
from csm_repl.text.normalise.rule import Rule, before, word_before, word_set

__all__ = ["ADDRESSES", "CODES", "DIGIT_NAMES", "HANDLES", "PATHS"]

# --- digits in groups ---------------------------------------------------------------------------------

_PHONE = re.compile(
    r"(?P<plus>\+)?(?P<groups>\(\d{1,5}\)\s?\d{2,5}(?:[-. ]\d{2,6}){1,4}"
    r"|\d{1,4}(?:[-. ](?:\(\d{1,6}\)|\d{1,6})){1,6})"
    r"(?![\w]|[.,:/-]\d)"
)
_EMERGENCY = re.compile(
    r"\b(?:[Cc]all|[Dd]ial|[Pp]hone|[Rr]ing|[Cc]alled|[Dd]ialed|[Cc]alling)\s(?:[^.!?]{0,20}\s)?\Z"
)
_IP = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?::(?P<port>\d{1,5}))?(?![\w]|\.\d)")
_VERSION = re.compile(
    r"\d{1,4}(?:\.\d{1,5}){2,4}(?:-?(?P<stage>rc|beta|alpha)\.?(?P<n>\d{1,3})?)?(?![\w]|\.\d)"
)
_SOFTWARE = re.compile(
    r"\b(?:Python|PHP|Java|Ubuntu|Debian|Fedora|iOS|macOS|Android|Node|Go|Rust|Ruby|Swift|Kotlin|CUDA|Windows|"
    r"Linux|kernel|Django|PyTorch|TensorFlow|Chrome|Firefox|Safari|Postgres|PostgreSQL|MySQL|Blender|Unity|"
    r"transformers|[Vv]ersion|[Rr]elease)\s\Z"
)
_TWO_PARTS = re.compile(r"(\d{1,4})\.(\d{1,4})(?![\w]|[.,]\d)")
_LONG_GROUPS = re.compile(r"\d{1,7}(?:-\d{1,7}){2,6}(?![\w-])")


def _said_groups(text: str) -> str:
    return ", ".join(digits(group) for group in re.findall(r"\d+", text))


def _say_phone(match: re.Match[str]) -> str | None:
    groups = re.findall(r"\d+", match["groups"])
    sizes = [len(group) for group in groups]
    total = sum(sizes)
    plus = "plus " if match["plus"] else ""
    separated = bool(re.search(r"\d[- .]\(?\d|\)", match["groups"]))
    if not separated or total > 16:
        return None
    if match["plus"]:
        return plus + _said_groups(match["groups"]) if total >= 7 and sizes[0] <= 3 else None
    if match["groups"][0] == "(":
        return _said_groups(match["groups"]) if total >= 7 else None
    if "-" in match["groups"] and " " not in match["groups"]:
        shapes = ([3, 4], [3, 3, 4], [1, 3, 3, 4])
        return _said_groups(match["groups"]) if sizes in shapes else None
    if sizes in ([3, 3, 4], [1, 3, 3, 4]) or (groups[0][0] == "0" and total >= 9 and len(groups) >= 2):
        return _said_groups(match["groups"])
    return None


def _say_emergency(match: re.Match[str]) -> str | None:
    return digits(match[0]) if before(match, _EMERGENCY) else None


def _say_ip(match: re.Match[str]) -> str | None:
    address, _, port = match[0].partition(":")
    parts = address.split(".")
    if any(int(part) > 255 for part in parts):
        return None
    said = " dot ".join(digits(part) for part in parts)
    return f"{said} port {code_number(port)}" if port else said


def _say_version(match: re.Match[str]) -> str:
    stage, count = match["stage"], match["n"]
    text = match[0] if stage is None else match[0][: match.start("stage") - match.start()].rstrip("-")
    said = " point ".join(cardinal(part) for part in text.split("."))
    if stage is None:
        return said
    name = spelled(stage) if stage == "rc" else stage
    return f"{said} {name} {cardinal(count)}" if count else f"{said} {name}"


def _say_two_parts(match: re.Match[str]) -> str | None:
    if not before(match, _SOFTWARE):
        return None
    return f"{cardinal(match[1])} point {_minor(match[2])}"


def _minor(text: str) -> str:
    return f"oh {cardinal(text[1:])}" if len(text) > 1 and text[0] == "0" else cardinal(text)


def _say_long_groups(match: re.Match[str]) -> str:
    return _said_groups(match[0])


DIGIT_NAMES = (
    Rule(re.compile(r"(?:911|999|112|110|113|119|101|111|988|411|311)(?![\w]|[.,:/-]\d)"), _say_emergency),
    Rule(_IP, _say_ip),
    Rule(_VERSION, _say_version),
    Rule(_TWO_PARTS, _say_two_parts),
    Rule(_PHONE, _say_phone),
    Rule(_LONG_GROUPS, _say_long_groups),
)

# --- addresses ----------------------------------------------------------------------------------------

_TOP = (
    r"com|org|net|edu|gov|mil|int|info|io|ai|dev|app|co|uk|de|fr|it|es|nl|eu|us|ca|au|jp|cn|in|ch|at|be|se|no|"
    r"fi|dk|pl|ru|br|mx|nz|ie|tv|me|fm|ly|gg|xyz|tech|online|shop|blog|cloud|biz"
)
_HOST = (
    r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?){0,8}"
)
_REST = r"(?:/[^\s<>\"“”]{0,400}?|[?#][^\s<>\"“”]{1,400}?)?"
_ADDRESS_END = r"(?=[.,;:!?)\]}'\"’”»*_]{0,4}(?:\s|$|[<>\"“”|]))"
_URL = re.compile(rf"(?:(?P<scheme>https?|ftp|file)://)(?P<rest>[^\s<>\"“”]{{1,500}}?){_ADDRESS_END}")
_WEB = re.compile(rf"www\.{_HOST}(?::\d{{1,5}})?{_REST}{_ADDRESS_END}", re.IGNORECASE)
_DOMAIN = re.compile(
    rf"(?=[\w.-]{{0,80}}[A-Za-z])(?:[A-Za-z0-9-]{{1,63}}\.){{1,5}}(?:{_TOP})(?![\w-])(?::\d{{1,5}}(?!\d))?{_REST}{_ADDRESS_END}"
)
_MAIL = re.compile(rf"(?:mailto:)?[A-Za-z0-9._%+-]{{1,64}}@{_HOST}\.[A-Za-z]{{2,24}}(?![\w@])")
_FILE_TYPES = (
    r"txt|pdf|docx?|xlsx?|pptx?|csv|tsv|json|ya?ml|toml|xml|html?|css|js|ts|py|rs|go|cpp|c|h|java|sh|md|rst|ini|"
    r"cfg|log|wav|mp3|mp4|flac|ogg|opus|m4a|avi|mkv|mov|png|jpe?g|gif|svg|webp|bmp|zip|tar|gz|exe|dll|so|iso|"
    r"sql|db|env|lock|bin|pt|safetensors|ipynb|tex|bat|psd|ttf|srt|vtt"
)
_FILE = re.compile(
    rf"(?:[A-Za-z0-9_.-]{{1,60}}/){{0,8}}[A-Za-z0-9_-][A-Za-z0-9_.-]{{0,100}}\.(?:{_FILE_TYPES})(?:\.gz)?(?![\w]|[.-]\w)"
)
_SIGNS = {
    ".": "dot", "/": "slash", "\\": "backslash", "-": "dash", "_": "underscore", "?": "question mark",
    "=": "equals", "&": "and", "#": "hash", "%": "percent", "~": "tilde", ":": "colon", "@": "at",
    "+": "plus", "!": "exclamation mark", "*": "star", ",": "comma", ";": "semicolon", "$": "dollar",
    "|": "pipe", "<": "less than", ">": "greater than", "^": "caret", "`": "backtick",
}  # fmt: skip
_PARTS = re.compile(r"[A-Za-z]+|[0-9]+|.", re.DOTALL)
_SPELLED_PARTS = {
    "www", "uk", "us", "eu", "tv", "fm", "ai", "io", "pdf", "txt", "py", "js", "ts", "rs", "cpp", "md",
    "rst", "cfg",
    "csv", "tsv", "xml", "html", "htm", "css", "json", "docx", "xlsx", "xls", "pptx", "ppt", "wav", "mp",
    "flac",
    "ogg", "avi", "mkv", "mov", "png", "jpg", "svg", "bmp", "gz", "exe", "dll", "iso", "sql", "db", "sh",
    "ini",
    "pt", "ipynb", "psd", "ttf", "srt", "vtt", "php", "api", "url", "xyz", "gg", "de", "fr", "ch",
    "nl", "jp", "cn", "nz", "yml", "http", "https",
}  # fmt: skip
_WORDS_OF_PARTS = {"flac", "avi"}


def said_address(text: str) -> str:
    """An address or a name of a file in words: letters stay together, signs get their names."""
    said = []
    for part in _PARTS.findall(text):
        if part.isdecimal():
            said.append(code_number(part) if len(part) <= 4 else digits(part))
        elif part.isalpha() and part.isascii():
            lower = part.lower()
            spell = (lower in _SPELLED_PARTS and lower not in _WORDS_OF_PARTS) or is_initialism(part)
            said.append(spelled(part) if spell else part)
        elif part in _SIGNS:
            said.append(_SIGNS[part])
        else:
            said.append(part)
    return " ".join(said)


def _say_url(match: re.Match[str]) -> str:
    return said_address(match["rest"].rstrip("/"))


def _say_plain_address(match: re.Match[str]) -> str:
    return said_address(match[0].removeprefix("mailto:").rstrip("/"))


def _say_file(match: re.Match[str]) -> str | None:
    # "m.p.h" is no header.
    return None if re.fullmatch(r"(?:[A-Za-z]\.)+[A-Za-z]", match[0]) else said_address(match[0])


ADDRESSES = (
    Rule(_URL, _say_url),
    Rule(_WEB, _say_plain_address),
    Rule(_MAIL, _say_plain_address),
    Rule(_DOMAIN, _say_plain_address),
    Rule(_FILE, _say_file),
)

_UNIX_PATH = re.compile(r"(?<![\w/])~?(?:/[A-Za-z0-9_.-]{1,60}){2,12}/?(?<![.-])(?![\w/])")
_FLAG = re.compile(r"--?[A-Za-z](?:[A-Za-z0-9-]{0,39}[A-Za-z0-9])?(?![\w-])")


_BEFORE_FLAGS = word_set(
    "flag option use with pass run add set using try give need without "
    "push pull commit install clone rebase checkout merge run switch git pip parameter argument or and"
)


def _say_path(match: re.Match[str]) -> str:
    return said_address(match[0].rstrip("/"))


def _say_flag(match: re.Match[str]) -> str | None:
    # "He said --and left": two hyphens are as often a dash.
    is_flag = "-" in match[0][2:] or word_before(match).lower() in _BEFORE_FLAGS
    if not match[0].startswith("--") or not (is_flag or (match.start() == 0 and match[0].islower())):
        return None
    words = " ".join(part for part in match[0].split("-") if part)
    return f"dash dash {words}"


PATHS = (Rule(_UNIX_PATH, _say_path), Rule(_FLAG, _say_flag))

# --- handles, code, models ----------------------------------------------------------------------------

_HANDLE = re.compile(r"@([A-Za-z_][A-Za-z0-9_.]{0,38}[A-Za-z0-9_]|[A-Za-z])(?![\w@])")
_HASHTAG = re.compile(r"#([A-Za-z][A-Za-z0-9_]{0,60})(?![\w#])")
HANDLES = (
    Rule(_HANDLE, lambda match: f"at {said_address(match[1])}"),
    Rule(_HASHTAG, lambda match: f"hashtag {said_address(match[1])}"),
)

_SNAKE = re.compile(r"_{0,2}[A-Za-z][A-Za-z0-9]{0,40}(?:_{1,2}[A-Za-z0-9]{1,40}){1,8}_{0,2}(?![\w])")
_VERSION_WORD = re.compile(r"(?:v\.?\s?|V(?=\d+\.\d))(\d{1,4}(?:\.\d{1,5}){1,4}|\d{1,4})(?![\w]|\.\d)")
_MODEL = re.compile(
    r"[A-Za-z]{1,12}(?:-?\d{1,7}(?:(?!s(?!\w))[A-Za-z]{1,3})?)(?:-?(?:[A-Z]{1,3}|\d{1,5})(?![a-z])){0,3}(?P<s>s)?(?![\w]|-\w|[.,]\d)"
)
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_CHEMICAL = re.compile(r"(?:[A-Z][a-z]?[₀-₉]{0,3}){1,8}(?![\w])")
_SMALL_MODELS = {"mp": "M P", "h": "H", "x": "x", "p": "p", "b": "b", "a": "a", "q": "q", "m": "m", "t": "t"}
_LETTERS_AND_DIGITS = re.compile(r"[A-Za-z]+|\d+")


def _say_snake(match: re.Match[str]) -> str:
    return said_address(match[0])


def _say_version_word(match: re.Match[str]) -> str:
    parts = match[1].split(".")
    first = "version" if match[0][0] == "v" else "Version"
    return f"{first} {' point '.join(_minor(part) for part in parts)}"


def _say_model(match: re.Match[str]) -> str | None:
    text = match[0].removesuffix("s") if match["s"] else match[0]
    groups = _LETTERS_AND_DIGITS.findall(text)
    first = groups[0]
    if first.islower() and first not in _SMALL_MODELS:
        return None
    said = []
    for group in groups:
        if group.isdecimal():
            said.append(code_number(group))
        elif (len(group) <= 3 and group.isupper()) or is_initialism(group):
            said.append(spelled(group))
        else:
            said.append(_SMALL_MODELS.get(group, group))
    if match["s"]:
        said[-1] = several(said[-1])
    return " ".join(said)


def _say_chemical(match: re.Match[str]) -> str | None:
    text = match[0].translate(_SUBSCRIPTS)
    if text == match[0]:
        return None
    return " ".join(
        part if not part.isdecimal() else cardinal(part) for part in re.findall(r"[A-Z][a-z]?|\d+", text)
    )


CODES = (
    Rule(_SNAKE, _say_snake),
    Rule(_VERSION_WORD, _say_version_word),
    Rule(_CHEMICAL, _say_chemical),
    Rule(_MODEL, _say_model),
)
