"""Speaks the scripts of a run with everything that they need loaded."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence

from csm_repl.audio import AudioSink
from csm_repl.audio.player import Player, open_player
from csm_repl.errors import ExitCode, LineError, UsageError
from csm_repl.events import ScriptLine
from csm_repl.front.jobs import run_job
from csm_repl.front.pipe.expected import expected_lines
from csm_repl.front.pipe.lines import LineFeed, read_lines
from csm_repl.front.pipe.listener import Listener
from csm_repl.front.pipe.scripts import STDIN, open_script, script_labels, script_reader
from csm_repl.front.pipe.side_by_side import SideBySide
from csm_repl.front.printers import PlainPrinter, ScriptProgress, StatusLine
from csm_repl.settings import Settings
from csm_repl.studio import Studio, open_studio
from csm_repl.studio.reading import run_line
from csm_repl.text.formats import ScriptReader

__all__ = ["speak"]


def speak(
    settings: Settings,
    scripts: Sequence[str],
    printer: PlainPrinter,
    sink: AudioSink | None,
    *,
    status: StatusLine | None,
    watched: bool,
) -> ExitCode:
    """Loads the model and speaks scripts, at least one, as one conversation; `-` is stdin.

    Args:
        settings: of the run.
        scripts: looked at before.
        printer: shows what happens.
        sink: takes the sound of the whole run.
        status: a line of the terminal for the progress.
        watched: whether somebody sees stderr.

    Raises:
        CsmReplError: nothing can be spoken: usage, model or device.
    """
    studio = open_studio(settings, say=printer.say)
    progress = None
    if watched:
        expected = expected_lines(settings, scripts)
        progress = ScriptProgress(expected, status, printer.say)
    listener = Listener(printer, sink, _player(settings, studio, printer), progress)
    return _run(studio, scripts, listener)


def _player(settings: Settings, studio: Studio, printer: PlainPrinter) -> Player | None:
    if not settings.play:
        return None
    player, problem = open_player(studio.codec.sample_rate)
    if problem:
        printer.say(problem)
    return player


def _run(studio: Studio, scripts: Sequence[str], listener: Listener) -> ExitCode:
    # Voices that cannot be used are said once, before the first line.
    interrupted = run_job(studio.refresh_voices(), lambda event: listener.handle(event, 0))
    for label, script in zip(script_labels(scripts), scripts, strict=True):
        if interrupted or listener.quit:
            break
        listener.begin_script(label)
        try:
            with open_script(script) as file:
                studio.part = ""
                reader = script_reader(studio.settings.format, file)
                interrupted = _run_script(studio, file, listener, script, reader)
        except UsageError as error:  # it has gone since it was looked at
            listener.fail(error, 0)
    listener.finish(studio.finish(), interrupted=interrupted)
    if interrupted:
        return ExitCode.INTERRUPTED
    return ExitCode.SOME_LINES_FAILED if listener.failed else ExitCode.OK


def _run_script(
    studio: Studio, file: io.BufferedReader, listener: Listener, script: str, reader: ScriptReader
) -> bool:
    if studio.engine.n_slots > 1:
        return SideBySide(studio, LineFeed(file, buffered=script != STDIN), listener, script, reader).run()
    return _run_one_by_one(studio, file, listener, script, reader)


def _run_one_by_one(
    studio: Studio, file: io.BufferedReader, listener: Listener, script: str, reader: ScriptReader
) -> bool:
    """Speaks line by line; whether Ctrl-C stopped it."""
    for number, text in read_lines(file):
        handle = functools.partial(listener.handle, line=number)
        try:
            if isinstance(text, LineError):
                raise text
            if run_job(run_line(studio, text, ScriptLine(script, number), reader), handle):
                return True
        except Exception as error:
            listener.fail(error, number)
        if listener.quit:
            break
    return False
