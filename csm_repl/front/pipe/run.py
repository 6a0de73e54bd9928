"""From options to exit code: opens what a run without a terminal needs, and runs it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from csm_repl.audio import SAMPLE_RATE, AudioSink, open_sink
from csm_repl.clock import counted_stops
from csm_repl.errors import ExitCode, OutputError
from csm_repl.events import Stopped
from csm_repl.front.jobs import Interrupts
from csm_repl.front.printers import JsonPrinter, PlainPrinter, StatusLine
from csm_repl.outputs.takes import TakeFolder
from csm_repl.settings import Settings
from csm_repl.terminal import held_interrupts

__all__ = ["run_pipe"]


def run_pipe(settings: Settings, scripts: Sequence[str]) -> ExitCode:
    """Speaks the lines of scripts, at least one, as one conversation; `-` is stdin.

    Args:
        settings: of the run.
        scripts: looked at by `check_scripts`.

    Raises:
        CsmReplError: nothing can be spoken: usage, model or device.
    """
    to_stdout = settings.out_file == "-"
    kind = JsonPrinter if settings.json else PlainPrinter
    watched = not settings.quiet and sys.stderr is not None and sys.stderr.isatty()
    status = StatusLine(sys.stderr) if watched and os.environ.get("TERM", "dumb") != "dumb" else None
    printer = kind(
        None if to_stdout else sys.stdout,
        sys.stderr,
        quiet=settings.quiet,
        verbose=settings.verbose,
        color=settings.color == "always",
        status=status,
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(Interrupts())
        stack.enter_context(counted_stops())
        if status is not None:
            stack.callback(status.clear)
        try:
            # An output that cannot be written is said before torch is loaded.
            sink = _open_sink(settings, stack)
            TakeFolder(settings.output).check_writable()
            with held_interrupts():
                from csm_repl.front.pipe.speak import speak

            return speak(settings, scripts, printer, sink, status=status, watched=watched)
        except KeyboardInterrupt:
            printer.handle(Stopped("Stopped."), 0)
            return ExitCode.INTERRUPTED
        except BrokenPipeError:
            return _reader_left(printer)


def _open_sink(settings: Settings, stack: contextlib.ExitStack) -> AudioSink | None:
    if settings.out_file is None:
        return None
    return stack.enter_context(
        open_sink(settings.out_file, raw=settings.raw, rate=SAMPLE_RATE, replace=settings.force)
    )


def _reader_left(printer: PlainPrinter) -> ExitCode:
    # Python would complain once more when it flushes stdout at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    with contextlib.suppress(OSError):
        printer.error(
            OutputError("The program that read stdout has closed it.", "The takes so far are kept.")
        )
    return ExitCode.SOME_LINES_FAILED
