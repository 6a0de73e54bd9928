"""What a shell completes: commands, options, the words that an option takes, files and folders."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from csm_repl.settings.arguments import ArgumentParser
from csm_repl.settings.registry import specs

__all__ = ["SHELLS", "completion_script"]

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


def completion_script(shell: str, parser: ArgumentParser, commands: Mapping[str, ArgumentParser]) -> str:
    """A script that the shell reads at its start.

    Args:
        shell: one of `SHELLS`.
        parser: of the program; it is spoilt for parsing.
        commands: the parsers of its commands; spoilt as well.
    """
    import shtab

    choices = {flag: spec.choices for spec in specs() for flag in spec.flags}
    for each in (parser, *commands.values()):
        for action in each.actions:
            words = next((choices[flag] for flag in action.option_strings if choices.get(flag)), None)
            if words is not None and action.choices is None:
                action.choices = list(words)
            elif action.metavar == "DIR":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar in {"FILE", "SCRIPT.txt", "DATA", "ADAPTER", "ID|DIR", "CONFIG"}:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    added = parser.add_subparsers(dest="command", parser_class=argparse.ArgumentParser)
    for name, command in commands.items():
        added.add_parser(name, parents=[command], add_help=False, help=command.description)
    return str(shtab.complete(parser, shell))
