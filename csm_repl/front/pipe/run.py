"""From options to exit code: opens what a run without a terminal needs, and runs it."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections.abc import Sequence

from csm_repl.audio import SAMPLE_RATE, AudioSink, open_sink
from csm_repl.audio.player import Player, open_player
from csm_repl.clock import counted_stops
from csm_repl.errors import ExitCode, LineError, OutputError, UsageError
from csm_repl.events import ScriptLine, Stopped
from csm_repl.front.jobs import Interrupts, run_job
from csm_repl.front.pipe.expected import expected_lines
from csm_repl.front.pipe.lines import LineFeed, read_lines
from csm_repl.front.pipe.listener import Listener
from csm_repl.front.pipe.scripts import STDIN, check_scripts, open_script, script_labels
from csm_repl.front.pipe.side_by_side import SideBySide
from csm_repl.front.printers import JsonPrinter, PlainPrinter, ScriptProgress, StatusLine
from csm_repl.settings import Settings
from csm_repl.studio import Studio, open_studio
from csm_repl.studio.commands import run_line

__all__ = ["run_pipe"]


def run_pipe(settings: Settings, scripts: Sequence[str]) -> ExitCode:
    """Speaks the lines of scripts, at least one, as one conversation; `-` is stdin.

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
            # A script that is not there and an output that cannot be written are said before the model loads.
            check_scripts(scripts)
            sink = _open_sink(settings, stack)
            studio = open_studio(settings, say=printer.say)
            progress = None
            if watched:
                expected = expected_lines(scripts, offsets=settings.offsets == "on")
                progress = ScriptProgress(expected, status, printer.say)
            listener = Listener(printer, sink, _player(settings, studio, printer), progress)
            return _run(studio, scripts, listener)
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


def _player(settings: Settings, studio: Studio, printer: PlainPrinter) -> Player | None:
    if not settings.play:
        return None
    player, problem = open_player(studio.codec.sample_rate)
    if problem:
        printer.say(problem)
    return player


def _reader_left(printer: PlainPrinter) -> ExitCode:
    # Python would complain once more when it flushes stdout at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    with contextlib.suppress(OSError):
        printer.error(
            OutputError("The program that read stdout has closed it.", "The takes so far are kept.")
        )
    return ExitCode.SOME_LINES_FAILED


def _run(studio: Studio, scripts: Sequence[str], listener: Listener) -> ExitCode:
    # Voices that cannot be used are said once, before the first line.
    interrupted = run_job(studio.refresh_voices(), lambda event: listener.handle(event, 0))
    for label, script in zip(script_labels(scripts), scripts, strict=True):
        if interrupted or listener.quit:
            break
        listener.begin_script(label)
        try:
            with open_script(script) as file:
                interrupted = _run_script(studio, file, listener, script)
        except UsageError as error:  # it has gone since it was looked at
            listener.fail(error, 0)
    listener.finish(studio.finish(), interrupted=interrupted)
    if interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.SOME_LINES_FAILED if listener.failed else ExitCode.OK


def _run_script(studio: Studio, file: io.BufferedReader, listener: Listener, script: str) -> bool:
    if studio.engine.n_slots > 1:
        return SideBySide(studio, LineFeed(file, buffered=script != STDIN), listener, script).run()
    return _run_one_by_one(studio, file, listener, script)


def _run_one_by_one(studio: Studio, file: io.BufferedReader, listener: Listener, script: str) -> bool:
    """Speaks line by line; whether Ctrl-C stopped it."""
    for number, text in read_lines(file):
        handle = functools.partial(listener.handle, line=number)
        try:
            if isinstance(text, LineError):
                raise text
            if run_job(run_line(studio, text, ScriptLine(script, number)), handle):
                return True
        except Exception as error:
            listener.fail(error, number)
        if listener.quit:
            break
    return False
