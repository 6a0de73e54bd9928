"""Settings from where people give them: flag > environment > `.env` > default."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from csm_repl.errors import UsageError
from csm_repl.events import Say
from csm_repl.settings.dotenv import DotEnv, read_dotenv
from csm_repl.settings.nearest import did_you_mean, nearest
from csm_repl.settings.registry import ENV_PREFIX, SECRETS, Origin, Settings, SettingSpec, specs

__all__ = ["load_settings", "parse_value"]

_MOST_NAMED = 5
_MOST_SHOWN = 60
"""Characters of a name or value."""


def parse_value(setting: SettingSpec, text: str, origin: Origin) -> Any:
    """`text` as a value of `setting`; UsageError names the setting and where the text came from."""
    try:
        return setting.parse(text)
    except ValueError as error:
        shown = "(hidden)" if setting.name in SECRETS else repr(text)
        remedy = did_you_mean(text, setting.words) or f"It means: {setting.help}."
        raise UsageError(f"{setting.dashed} {error}, not {shown} (from {origin}).", remedy) from error


def load_settings(
    flags: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = Path(".env"),
    say: Say = lambda _: None,
) -> Settings:
    """Settings from flags (already split by name), the environment, a `.env` file and the defaults.

    Args:
        flags: setting name -> text, or a ready bool for switches; absent or None means not given.
        environ: defaults to the process's environment.
        dotenv: file with NAME=value lines; a missing one is fine.
        say: receives what the `.env` changes and which names are not known, unless `quiet` is set.

    Raises:
        UsageError: a value that does not parse, or a `.env` that cannot be read.
    """
    environ = os.environ if environ is None else environ
    file = DotEnv({}) if dotenv is None else read_dotenv(dotenv)
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for setting in specs():
        given = flags.get(setting.name)
        if given is not None:
            origin = setting.flags[-1] if setting.flags else "flag"
            values[setting.name] = (
                given if isinstance(given, bool) else parse_value(setting, str(given), origin)
            )
            origins[setting.name] = origin
            continue
        if setting.env is None:
            continue
        if setting.env in environ:
            text, origin = environ[setting.env], f"${setting.env}"
        elif setting.env in file.values:
            text, origin = file.values[setting.env], ".env"
        else:
            continue
        if not text.strip():
            continue  # `NAME=` in a .env means: not set
        values[setting.name] = parse_value(setting, text, origin)
        origins[setting.name] = origin
    settings = Settings(**values, origins=origins)
    if settings.raw and settings.out_file is None:
        raise UsageError("--raw works only with -o.", "Add -o FILE, or -o - for stdout.")
    if settings.batch > 1 and not settings.independent:
        raise UsageError(
            f"Lines cannot be spoken side by side (batch {settings.batch}, from {settings.origin('batch')}) "
            "while each hears the ones before it.",
            "Add --independent, or use --batch 1.",
        )
    if settings.quiet and settings.verbose:
        raise UsageError("-q and -v exclude each other.", "Give one of them.")
    if not settings.quiet:
        if dotenv is not None:
            _tell_of_file(file, dotenv, origins, say)
        _tell_of_unknown(environ, "the environment", say)
    return settings


def _tell_of_file(file: DotEnv, path: Path, origins: Mapping[str, Origin], say: Say) -> None:
    if not (file.values or file.broken):
        return  # the current folder may be gone
    path = path.absolute()
    changed = [
        f"{setting.dashed} {'(hidden)' if setting.name in SECRETS else _shortened(file.values[setting.env])}"
        for setting in specs()
        if setting.env is not None and origins.get(setting.name) == ".env"
    ]
    if changed:
        say(f"{path} sets {', '.join(changed)}.")
    if file.broken:
        numbers = ", ".join(map(str, file.broken[:_MOST_NAMED]))
        more = f" and {len(file.broken) - _MOST_NAMED} more" if len(file.broken) > _MOST_NAMED else ""
        are = ("Line", "is") if len(file.broken) == 1 else ("Lines", "are")
        say(f"{are[0]} {numbers}{more} of {path} {are[1]} not NAME=value and {are[1]} left out.")
    _tell_of_unknown(file.values, str(path), say)


def _tell_of_unknown(names: Iterable[str], where: str, say: Say) -> None:
    known = {setting.name.upper(): setting for setting in specs()}
    taken = {setting.env for setting in specs()}
    unknown = sorted(name for name in names if name.startswith(ENV_PREFIX) and name not in taken)
    for name in unknown[:_MOST_NAMED]:
        found = nearest(name.removeprefix(ENV_PREFIX), known)
        hint = ""
        if found is not None and known[found].env is None:
            hint = f" {known[found].flags[-1]} has no variable."
        elif found is not None:
            hint = f" Did you mean {known[found].env}?"
        say(f"{_shortened(name)} in {where} is no setting of csm-repl.{hint}")
    if len(unknown) > _MOST_NAMED:
        say(f"{len(unknown) - _MOST_NAMED} more names in {where} are no settings of csm-repl.")


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 1]}…"
