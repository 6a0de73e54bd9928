"""argparse, whose errors are UsageErrors that name what was probably meant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from csm_repl.errors import UsageError
from csm_repl.settings.nearest import did_you_mean

__all__ = ["OptionParser"]


class OptionParser(argparse.ArgumentParser):
    """Options are written out in full; `parse_args` raises UsageError for anything it does not know."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **arguments
        )

    @property
    def options(self) -> list[str]:
        """All spellings of all options."""
        return list(self._option_string_actions)

    @property
    def actions(self) -> Sequence[argparse.Action]:
        """All options and positional arguments."""
        return self._actions

    def parse(self, words: Sequence[str]) -> dict[str, Any]:
        """Name -> value. `--help` and `--version` print and leave."""
        self._check_names(words)
        return vars(self.parse_args(words))

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", self._hint())

    def _check_names(self, words: Sequence[str]) -> None:
        """A mistyped option first: what argparse says of it is often that something else is missing."""
        for word in words:
            name = word.partition("=")[0]
            if name == "--" or name in ("-h", "--help", "--version"):
                return
            if name.startswith("--") and " " not in name and name not in self._option_string_actions:
                question = did_you_mean(name, (each for each in self.options if each.startswith("--")))
                raise UsageError(f"There is no option {name}.", f"{question} {self._hint()}".strip())

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            words = [str(word) for word in action.choices]
            raise UsageError(
                f"{'/'.join(action.option_strings)} must be one of {', '.join(words)}, not {value!r}.",
                f"{did_you_mean(str(value), words)} {self._hint()}".strip(),
            )

    def _hint(self) -> str:
        return f"'{self.prog} --help' lists the options."
