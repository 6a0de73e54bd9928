"""The `.env` file of the folder where the program is started, and names that set nothing."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from csm_repl.errors import UsageError
from csm_repl.settings.arguments import did_you_mean
from csm_repl.settings.registry import ENV_PREFIX, Settings, specs

__all__ = ["notices", "read_dotenv"]

_MOST_BYTES = 2**20
_NAMED_LINES = 5
_REMEDY = "Make it a readable text file with a line NAME=value for each setting, or rename it."


def read_dotenv(path: Path | None) -> tuple[dict[str, str], list[int]]:
    """What a file sets, as it stands there: nothing in a value is expanded. Empty where there is none.

    Returns:
        Name -> value, and the numbers of the lines that set nothing although they are no comments.

    Raises:
        UsageError: it is there and cannot be read.
    """
    # A folder of this name is a virtual environment; a pipe would be waited for.
    if path is None or not path.is_file():
        return {}, []
    from dotenv.parser import parse_stream

    found, broken = {}, []
    for binding in parse_stream(io.StringIO(_text(path))):
        if binding.error:
            broken.append(binding.original.line)
        elif binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found, broken


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", _REMEDY) from error
    if len(raw) > _MOST_BYTES:
        raise UsageError(f"{path} is larger than a megabyte.", _REMEDY)
    is_utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no UTF-8 text.", _REMEDY) from error


def notices(
    settings: Settings, environ: Mapping[str, str], from_file: Mapping[str, str], broken: Sequence[int]
) -> Iterator[str]:
    """What users should know about where settings come from: sentences without any value."""
    if broken:
        lines = _joined([str(number) for number in broken[:_NAMED_LINES]])
        yield f"Line{'s' if len(broken) > 1 else ''} {lines} of the .env file: no NAME=value; left out."
    changed = [spec.dashed for spec in specs() if settings.origin(spec.name) == ".env"]
    if changed:
        yield f"The .env file of this folder sets {_joined(changed)}."
    known = {spec.env for spec in specs() if spec.env}
    only_flags = {ENV_PREFIX + spec.name.upper(): spec for spec in specs() if spec.env is None}
    for source, names in (("the environment", environ), ("the .env file", from_file)):
        for name in names:
            if not name.upper().startswith(ENV_PREFIX) or name in known or not re.fullmatch(r"\w+", name):
                continue
            if name in only_flags:
                hint = f"Use {only_flags[name].flags[-1]}."
            else:
                meant = did_you_mean(name, known, ENV_PREFIX.lower())
                hint = f"Did you mean {meant}?" if meant else "'csm-repl --help' lists the settings."
            yield f"{name}, in {source}, sets nothing. {hint}"


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
