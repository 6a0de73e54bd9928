"""The command line's parser: every mistake is a UsageError that names what was probably meant."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from typing import NoReturn

from csm_repl.errors import UsageError

__all__ = ["ArgumentParser", "did_you_mean"]


def did_you_mean(typed: str, known: Iterable[str], prefix: str = "") -> str | None:
    """The one of `known` that is most like what was typed; None where none is alike.

    Args:
        prefix: all of them begin with it, so that it says nothing about how alike they are.
    """
    names = {name.lower().removeprefix(prefix): name for name in known}
    found = difflib.get_close_matches(typed.lower().removeprefix(prefix), names, n=1, cutoff=0.6)
    return names[found[0]] if found else None


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, without abbreviations of options."""

    def __init__(self, *, prog: str, usage: str, description: str, epilog: str | None) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )

    @property
    def actions(self) -> Sequence[argparse.Action]:
        """Its options and positional arguments."""
        return self._actions

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """UsageError for what is no option, or lacks its value."""
        values, unknown = self.parse_known_args(words)
        if unknown:
            self._refuse(unknown)
        return values

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", self._help)

    @property
    def _help(self) -> str:
        return f"'{self.prog} --help' lists the options."

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        option = next((word for word in unknown if word.startswith("-") and word != "-"), None)
        if option is None:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        name = option.partition("=")[0]
        meant = did_you_mean(name, self._option_string_actions, "--")
        raise UsageError(f"There is no option {name}.", f"Did you mean {meant}?" if meant else self._help)
