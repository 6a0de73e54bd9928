"""Options and dispatch. Loads one front end, late: `--help` and `--version` import no torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from csm_repl import __version__
from csm_repl.errors import CsmReplError, ExitCode, UsageError, in_words
from csm_repl.settings import OptionParser, Settings, load_settings, nearest, specs
from csm_repl.settings.completion import SHELLS, completion_script
from csm_repl.terminal import (
    end_signal,
    end_signals_as_interrupts,
    held_interrupts,
    make_libraries_harmless,
    prepare_streams,
    settle_streams,
    show_path,
    tell,
)

__all__ = ["main"]

_COMMANDS = {"doctor": "checks the installation", "voices": "lists and checks the reference clips"}
_DESCRIPTION = """\
Speaks lines for one or more speakers with Sesame's CSM-1B, in the voices of the clips in a folder.

  csm-repl                     the console
  csm-repl SCRIPT.txt ...      speaks scripts, one after the other; - is stdin, and so is a pipe
  csm-repl doctor              checks the installation
  csm-repl voices              lists and checks the reference clips
  csm-repl train DATA          trains CSM on your clips; see csm-repl train --help
  csm-repl merge ADAPTER       merges a trained adapter into its base model

A line is one or more turns separated by ||. The first turn is spoken by speaker 0, the second by
speaker 1, and so on; a number at its end says otherwise: Hello!||Hi, who is it?||It's me.0
"""
_EPILOG = """\
Every option can also be set as an environment variable CSM_REPL_NAME or in a .env file; see
.env.example. Exit codes: 0 all good, 1 some lines failed, 2 usage, 3 model not available,
4 device or out of memory, 130 interrupted, 143 and 129 ended by TERM and HUP.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    prepare_streams()
    if arguments is None:
        make_libraries_harmless()
    with end_signals_as_interrupts():
        code = _guarded(words)
        settle_streams()
        ended_by = end_signal()
    return code if ended_by is None else 128 + ended_by


def _guarded(words: list[str]) -> int:
    debug = "--debug" in words
    try:
        return int(_main(words))
    except CsmReplError as error:
        _log_failure()
        if debug:
            raise
        tell(f"csm-repl: {error}")
        return int(error.exit_code)
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and end_signal() is None:
            raise
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.SOME_LINES_FAILED)
    except Exception as error:
        _log_failure()
        if debug:
            raise
        from csm_repl.paths import log_file

        tell(
            f"csm-repl: Unexpected error: {type(error).__name__}: {in_words(str(error))}. "
            f"The details are in {log_file()}; --debug shows them."
        )
        return int(ExitCode.SOME_LINES_FAILED)


def _main(words: list[str]) -> ExitCode:
    if not {"-h", "--help", "--version"} & set(words):
        _check_folder()
    if words[:1] in (["train"], ["merge"]):
        with held_interrupts():
            from csm_repl.train.command import run_merge, run_train

        return run_train(words[1:]) if words[0] == "train" else run_merge(words[1:])
    names, values = _parse(words)
    if (shell := values.pop("print_completion")) is not None:
        for line in _completion(shell).splitlines():
            show_path(line)
        return ExitCode.OK
    settings = load_settings(values, say=tell)
    command = names[0] if names and names[0] in _COMMANDS else None
    if command is not None and len(names) > 1:
        raise UsageError(f"{command} takes no script.", f"Leave out {' '.join(names[1:])}.")
    from csm_repl.logs import start_logging

    start_logging(verbose=settings.verbose)
    if command is None:
        return _speak(settings, names)
    with held_interrupts():
        from csm_repl.front.doctor import run_doctor, run_voices

    return run_doctor(settings) if command == "doctor" else run_voices(settings)


def _check_folder() -> None:
    # Torch's libraries would end the process without a word that helps.
    try:
        Path.cwd()
    except OSError as error:
        raise UsageError(
            "The current folder is not there any more.", "Change to one that is, and start again."
        ) from error


def _speak(settings: Settings, scripts: list[str]) -> ExitCode:
    if not scripts and _is_terminal():
        if settings.dry_run:
            raise UsageError("--dry-run needs a script.", "Name one, or pipe lines in.")
        if settings.out_file == "-":
            raise UsageError(
                "-o - would write sound to the terminal.", "Pipe it to a program, or name a file."
            )
        if settings.batch > 1:
            raise UsageError(
                f"The console speaks one line at a time, not {settings.batch} "
                f"(from {settings.origin('batch')}).",
                "Name a script, or pipe lines in.",
            )
        from csm_repl.front.console import run_console

        return run_console(settings)
    if settings.out_file == "-" and _isatty(sys.stdout) and not settings.dry_run:
        raise UsageError("-o - would write sound to the terminal.", "Pipe it to a program, or name a file.")
    scripts = scripts or ["-"]
    _check_scripts(scripts)
    if settings.dry_run:
        from csm_repl.front.pipe.dry_run import run_dry

        return run_dry(settings, scripts)
    with held_interrupts():
        from csm_repl.front.pipe.run import run_pipe

    return run_pipe(settings, scripts)


def _check_scripts(scripts: list[str]) -> None:
    from csm_repl.front.pipe.scripts import check_scripts

    try:
        check_scripts(scripts)
    except UsageError as error:
        meant = nearest(scripts[0], (*_COMMANDS, "train", "merge"))
        if len(scripts) == 1 and meant and not Path(scripts[0]).exists():
            raise UsageError(error.cause, f"Did you mean the command {meant}? {error.remedy}") from error
        raise


def _is_terminal() -> bool:
    return _isatty(sys.stdin) and _isatty(sys.stdout)


def _isatty(stream: TextIO | None) -> bool:
    # A stream that the parent has closed is None.
    return stream is not None and stream.isatty()


def _parse(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    values = _parser().parse(words)
    return values.pop("script"), values


def _parser(*, scripts: bool = True) -> OptionParser:
    parser = OptionParser(
        prog="csm-repl",
        usage="csm-repl [options] [SCRIPT.txt ... | - | doctor | voices | train ... | merge ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        add_help=False,
    )
    if scripts:
        parser.add_argument("script", nargs="*", metavar="SCRIPT.txt", help=argparse.SUPPRESS)
    groups: dict[str, Any] = {}
    for setting in specs():
        if not setting.flags:
            continue
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group)
        group, kind = groups[setting.group], {"dest": setting.name, "default": None}
        if setting.has_both_ways:
            flag = setting.flags[0]
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=setting.help, **kind)
        elif setting.is_switch:
            group.add_argument(*setting.flags, action="store_true", help=setting.help, **kind)
        else:
            text = setting.help if setting.default is None else f"{setting.help} [{setting.default}]"
            group.add_argument(*setting.flags, metavar=setting.metavar, help=text.replace("%", "%%"), **kind)
    other = parser.add_argument_group("other")
    other.add_argument("-h", "--help", action="help", help="show this help")
    other.add_argument(
        "--print-completion",
        choices=SHELLS,
        metavar="SHELL",
        help=f"print what makes a shell complete options: {', '.join(SHELLS)}",
    )
    other.add_argument(
        "--version", action="version", version=f"csm-repl {__version__}", help="show the version"
    )
    return parser


def _completion(shell: str) -> str:
    from csm_repl.train.flags import merge_parser, train_parser

    plain = {
        name: OptionParser(prog=f"csm-repl {name}", usage="", description=text, epilog=None)
        for name, text in _COMMANDS.items()
    }
    return completion_script(
        shell, _parser(scripts=False), {**plain, "train": train_parser(), "merge": merge_parser()}
    )


def _log_failure() -> None:
    import logging

    if logging.getLogger("csm_repl").handlers:
        logging.getLogger("csm_repl").exception("the program ended")


if __name__ == "__main__":
    sys.exit(main())
