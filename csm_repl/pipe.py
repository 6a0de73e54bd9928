"""The front end without a terminal: lines from stdin or a file, one after the other as they arrive."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from csm_repl.audio import SAMPLE_RATE, AudioSink, open_sink, read_audio, to_mono
from csm_repl.commands import run_line
from csm_repl.errors import CsmReplError, ExitCode, LineError, OutputError, UsageError
from csm_repl.events import Audio, Event, LineDone, Notice, PlayFile, Quit, Stopped
from csm_repl.jobs import Interrupts, run_job, unexpected
from csm_repl.player import Player, open_player
from csm_repl.printers import JsonPrinter, PlainPrinter
from csm_repl.settings import Settings
from csm_repl.studio import Studio, open_studio

__all__ = ["read_lines", "run_pipe"]

log = logging.getLogger(__name__)


def run_pipe(settings: Settings, source: Path | None) -> ExitCode:
    """Speaks the lines of `source`, or of stdin.

    Raises:
        CsmReplError: nothing can be spoken: usage, model or device.
    """
    to_stdout = settings.out_file == "-"
    kind = JsonPrinter if settings.json else PlainPrinter
    printer = kind(
        None if to_stdout else sys.stdout, sys.stderr, quiet=settings.quiet, verbose=settings.verbose
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(Interrupts())
        try:
            # A script that is not there and an output that cannot be written are said before the model loads.
            lines = stack.enter_context(_open_lines(source))
            sink = _open_sink(settings, stack)
            studio = open_studio(settings, say=printer.say)
            return _Pipe(studio, printer, sink, _player(settings, studio, printer)).run(lines)
        except KeyboardInterrupt:
            printer.handle(Stopped("Stopped."), 0)
            return ExitCode.INTERRUPTED
        except BrokenPipeError:
            return _reader_left(printer)


def read_lines(file: BinaryIO) -> Iterator[tuple[int, str | None]]:
    """Numbered lines as they arrive; None for a line that is not UTF-8."""
    number = 0
    while raw := file.readline():
        number += 1
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            yield number, raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            yield number, None


@contextlib.contextmanager
def _open_lines(source: Path | None) -> Iterator[BinaryIO]:
    if source is None:
        yield sys.stdin.buffer
        return
    try:
        file = source.open("rb")
    except OSError as error:
        raise UsageError(
            f"The script {source} cannot be read: {error.strerror}.", "Give a text file, or - for stdin."
        ) from error
    with file:
        try:
            file.peek(1)
        except OSError as error:
            raise UsageError(
                f"The script {source} cannot be read: {error.strerror}.", "Give a text file, or - for stdin."
            ) from error
        yield file


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
        printer.error(OutputError("Whoever read stdout has closed it.", "The takes so far are kept."))
    return ExitCode.SOME_LINES_FAILED


class _Pipe:
    def __init__(
        self, studio: Studio, printer: PlainPrinter, sink: AudioSink | None, player: Player | None
    ) -> None:
        self._studio = studio
        self._printer = printer
        self._sink = sink
        self._player = player
        self._line = 0
        self._quit = False
        self._failed = False

    def run(self, file: BinaryIO) -> ExitCode:
        # Voices that cannot be used are said once, before the first line.
        interrupted = run_job(self._studio.refresh_voices(), self._handle)
        if not interrupted:
            interrupted = self._run_lines(file)
        for path in self._studio.finish():
            self._printer.track(str(path))
        if self._player is not None:
            if not interrupted:
                self._player.wait()
            self._player.close()
        if interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.SOME_LINES_FAILED if self._failed else ExitCode.OK

    def _run_lines(self, file: BinaryIO) -> bool:
        for self._line, text in read_lines(file):
            try:
                if text is None:
                    raise LineError("This line is not UTF-8.", "Save the script as UTF-8.")
                if run_job(run_line(self._studio, text), self._handle):
                    return True
            except BrokenPipeError:
                raise
            except CsmReplError as error:
                self._failed = True
                log.info("line %d failed", self._line, exc_info=True)
                self._printer.error(error, self._line)
            except Exception as error:  # the next lines can still be spoken
                self._failed = True
                log.exception("line %d failed", self._line)
                self._printer.error(unexpected(error), self._line)
            if self._quit:
                break
        return False

    def _handle(self, event: Event) -> None:
        if isinstance(event, Quit):
            self._quit = True
        elif isinstance(event, PlayFile):
            self._play_file(event.file)
        elif isinstance(event, Audio):
            if len(event.samples):
                if self._sink is not None:
                    self._sink.write(event.samples)
                if self._player is not None:
                    self._player.play(event.samples)
        else:
            if isinstance(event, LineDone) and self._player is not None:
                self._player.end()
            self._printer.handle(event, self._line)

    def _play_file(self, file: Path) -> None:
        if self._player is None:
            self._printer.handle(
                Notice(f"{file} is not played: this run has no playback (--play)."), self._line
            )
            return
        samples, _ = read_audio(file)
        self._player.play(to_mono(samples))
        self._player.end()
