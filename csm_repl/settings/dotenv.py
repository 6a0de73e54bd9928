"""What a `.env` holds. Anybody may have written it, or left it in a folder that somebody else works in."""

from __future__ import annotations

import codecs
import io
import stat
from dataclasses import dataclass
from pathlib import Path

from csm_repl.errors import UsageError

__all__ = ["DotEnv", "read_dotenv"]

_MAX_BYTES = 2**20
# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: "utf-8-sig",
}


@dataclass(frozen=True)
class DotEnv:
    values: dict[str, str]
    """As they are written: `${NAME}` in one is not replaced, so that no secret ends up elsewhere."""
    broken: tuple[int, ...] = ()
    """Numbers of the lines that are not NAME=value, from 1."""


def read_dotenv(path: Path) -> DotEnv:
    """The file's lines; a missing one, or a folder of that name, has none.

    Raises:
        UsageError: it cannot be read, or is no text.
    """
    try:
        data = _read(path)
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error
    if data is None:
        return DotEnv({})
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise _unusable(path, "is not UTF-8") from None
    if "\0" in text:
        raise _unusable(path, "is not a text file")
    return _parsed(text)


def _read(path: Path) -> bytes | None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(mode):  # a virtual environment of that name
        return None
    if not stat.S_ISREG(mode):  # a pipe would be waited for
        raise _unusable(path, "is no file")
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise _unusable(path, f"is larger than {_MAX_BYTES // 2**20} MB")
    return data


def _unusable(path: Path, problem: str) -> UsageError:
    return UsageError(
        f"{path.absolute()} {problem}.", "Make it a UTF-8 file of NAME=value lines, or move it away."
    )


def _parsed(text: str) -> DotEnv:
    # python-dotenv's own reader, without what dotenv_values does on top: expanding, and warning on a logger.
    from dotenv.parser import parse_stream

    values: dict[str, str] = {}
    broken = []
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            # Its text begins with the empty lines before it.
            before = binding.original.string[: -len(binding.original.string.lstrip())]
            broken.append(binding.original.line + before.count("\n"))
        elif binding.key is not None and binding.value is not None:
            values[binding.key] = binding.value
    return DotEnv(values, tuple(broken))
