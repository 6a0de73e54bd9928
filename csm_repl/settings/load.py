"""Settings from where people give them: flag > environment > `.env` > default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from csm_repl.errors import UsageError
from csm_repl.settings.dotenv import notices, read_dotenv
from csm_repl.settings.registry import Origin, Settings, SettingSpec, specs

__all__ = ["load_settings", "parse_value"]


def parse_value(setting: SettingSpec, text: str, origin: Origin) -> Any:
    """`text` as a value of `setting`; UsageError names the setting and where the text came from."""
    try:
        return setting.parse(text)
    except ValueError as error:
        shown = "(hidden)" if setting.name == "hf_token" else repr(text)
        raise UsageError(
            f"{setting.dashed} {error}, not {shown} (from {origin}).",
            f"It means: {setting.help}.",
        ) from error


def load_settings(
    flags: Mapping[str, Any],
    environ: Mapping[str, str] | None = None,
    dotenv: Path | None = Path(".env"),
) -> Settings:
    """Settings from flags (already split by name), the environment, a `.env` file and the defaults.

    Args:
        flags: setting name -> text, or a ready bool for switches; absent or None means not given.
        environ: defaults to the process's environment.
        dotenv: file with NAME=value lines; a missing one is fine.

    Raises:
        UsageError: a value that does not parse, or a `.env` that cannot be read.
    """
    environ = os.environ if environ is None else environ
    from_file, broken = read_dotenv(dotenv)
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
        elif setting.env in from_file:
            text, origin = from_file[setting.env], ".env"
        else:
            continue
        if not text.strip():
            continue  # `NAME=` in a .env means: not set
        values[setting.name] = parse_value(setting, text, origin)
        origins[setting.name] = origin
    settings = Settings(**values, origins=origins)
    settings = replace(settings, notices=tuple(notices(settings, environ, from_file, broken)))
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
    return settings
