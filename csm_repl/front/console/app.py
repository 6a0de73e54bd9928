"""Loads, then one line after the other until somebody leaves.

Jobs run in the main thread while no prompt is shown, so Ctrl-C is a plain KeyboardInterrupt.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING

from csm_repl import __version__
from csm_repl.audio import SAMPLE_RATE, AudioSink, open_sink
from csm_repl.errors import CsmReplError, ExitCode
from csm_repl.events import Audio, Echo, Event, LineDone, Notice, PlayFile, Quit, Stopped
from csm_repl.front.console.block import block_reader, is_command, left_out, lines_of, summary
from csm_repl.front.console.playback import Playback
from csm_repl.front.console.terminal import drop_typed, orderly_suspend, silent_keys
from csm_repl.front.jobs import Interrupts, run_job, unexpected
from csm_repl.front.joined import JoinedSound
from csm_repl.front.printers import JsonPrinter, Printer
from csm_repl.front.printers.rich import RichPrinter, open_console
from csm_repl.settings import Settings
from csm_repl.studio.commands import COMMANDS
from csm_repl.studio.reading import bare_word_hint, run_line
from csm_repl.terminal import end_signal, held_interrupts
from csm_repl.text.formats import open_reader

if TYPE_CHECKING:
    from csm_repl.front.console.prompt import Prompt
    from csm_repl.studio import Studio

__all__ = ["ConsoleApp", "run_console"]

BELL_AFTER_S = 10.0
"""Nobody looks away from the screen for less."""

log = logging.getLogger(__name__)
_HINT = "Type a line, with || between turns. $HELP$ lists the commands; Ctrl-D leaves."


def run_console(settings: Settings) -> ExitCode:
    """Talks with whoever is at the terminal.

    Raises:
        CsmReplError: nothing can be spoken: usage, model or device.
    """
    screen = RichPrinter(open_console(settings.color), quiet=settings.quiet, verbose=settings.verbose)
    printer: Printer = screen
    if settings.json:
        printer = JsonPrinter(sys.stdout, sys.stderr, quiet=settings.quiet, verbose=settings.verbose)
    with contextlib.ExitStack() as stack:
        # Once for all: an interrupt at a bad moment must not leave a shell without echo, and what the
        # terminal sends between a prompt and a job must not be echoed.
        stack.enter_context(orderly_suspend())
        stack.enter_context(silent_keys())
        interrupts = stack.enter_context(Interrupts())
        try:
            # An output that cannot be written is said before the model loads.
            sink = _open_sink(settings, stack)
            studio = _open_studio(settings, printer)
        except KeyboardInterrupt:
            printer.handle(Stopped("Stopped."), 0)
            code = ExitCode.INTERRUPTED
        else:
            code = ConsoleApp(studio, printer, sink, interrupts).run()
        if code == ExitCode.INTERRUPTED:
            drop_typed()
        return code


def _open_sink(settings: Settings, stack: contextlib.ExitStack) -> AudioSink | None:
    if settings.out_file is None:
        return None
    return stack.enter_context(
        open_sink(settings.out_file, raw=settings.raw, rate=SAMPLE_RATE, replace=settings.force)
    )


def _open_studio(settings: Settings, printer: Printer) -> Studio:
    if not isinstance(printer, RichPrinter):
        with held_interrupts():
            from csm_repl.studio import open_studio

        return open_studio(settings, say=printer.say)
    # torch alone takes seconds to import.
    with printer.busy("Starting."), held_interrupts():
        from csm_repl.studio import open_studio
    with contextlib.ExitStack() as spinner:

        def say(text: str) -> None:
            spinner.close()
            printer.say(text)
            # Downloads before it have a progress bar of their own, which a spinner would write over.
            if text.startswith("Loading "):
                spinner.enter_context(printer.busy("Loading the weights."))

        return open_studio(settings, say=say)


class ConsoleApp:
    """The loop between prompt and jobs.

    Args:
        studio: ready to speak; its voices have not been looked at yet.
        printer: shows what happens.
        sink: the file of the whole run.
        interrupts: counts Ctrl-C.
    """

    def __init__(
        self, studio: Studio, printer: Printer, sink: AudioSink | None, interrupts: Interrupts
    ) -> None:
        self._studio = studio
        self._printer = printer
        self._joined = JoinedSound(sink, printer.error, printer.say)
        self._interrupts = interrupts
        self._playback = Playback(studio.codec.sample_rate, lambda: self._studio.settings, self._handle)
        how = studio.settings.format
        self._reader = open_reader("plain" if how == "auto" else how, COMMANDS)
        self._line = 0
        self._quit = False

    def run(self) -> ExitCode:
        code = ExitCode.OK
        try:
            self._begin()
            code = self._loop()
        except SystemExit:
            # The second Ctrl-C of a job. What was made is still put in order.
            code = ExitCode.INTERRUPTED
        self._rest()
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            self._finish(wait=code == ExitCode.OK)
        return code

    def _begin(self) -> None:
        self._job(self._look_at_voices())
        if isinstance(self._printer, RichPrinter):
            self._printer.banner(*_banner(self._studio))
            self._gap()

    def _loop(self) -> ExitCode:
        # Here and not above: it wants the voices' names.
        from csm_repl.front.console.prompt import LeftByInterruptError, open_prompt

        prompt = open_prompt(
            self._studio,
            self._studio.settings.color,
            self._interrupts,
            on_interrupt=self._playback.stop,
            on_help=self._help,
        )
        while not self._quit and end_signal() is None:
            try:
                if problem := prompt.take_problem():
                    self._printer.handle(Notice(problem, "warning"), self._line)
                self._run(prompt.read(), prompt)
            except EOFError:
                break
            except LeftByInterruptError:
                return ExitCode.INTERRUPTED
            except KeyboardInterrupt:
                self._playback.stop()
            except OSError:
                # The terminal is gone.
                log.info("the terminal cannot be read any more", exc_info=True)
                break
        return ExitCode.OK if end_signal() is None else ExitCode.INTERRUPTED

    def _run(self, text: str, prompt: Prompt) -> None:
        """Runs the lines of `text`, one after the other; Ctrl-C leaves out those that are still to come."""
        waiting = lines_of(text)
        if not waiting:
            return
        n_lines = len(waiting)
        stopped = False
        if n_lines == 1 and (hint := bare_word_hint(text)) is not None:
            # Only of what is typed by itself; in a block it is text, as in a file.
            if text.strip() == "?":
                self._help()
            else:
                self._printer.handle(Notice(hint), self._line)
                self._gap()
            return
        try:
            reader = self._reader
            if n_lines > 1:
                self._printer.handle(Notice(summary(waiting)), self._line)
                if self._studio.settings.format == "auto":
                    reader = block_reader(waiting)
            while waiting and not stopped and not self._quit:
                line = waiting.pop(0)
                self._line += 1
                if n_lines > 1:
                    self._show_place(n_lines - len(waiting), n_lines, line)
                stopped = self._job(run_line(self._studio, line, reader=reader))
        except KeyboardInterrupt:
            self._playback.stop()
            stopped = True
        if stopped:
            # Where a terminal does not mark what is pasted, the rest of it waits as if it had been typed.
            waiting += prompt.take_waiting()
        if waiting and not self._quit:
            prompt.remember("\n".join(waiting))
            self._printer.handle(Stopped(left_out(len(waiting))), self._line)
        if not self._quit:
            self._gap()

    def _finish(self, *, wait: bool) -> None:
        self._joined.end()
        try:
            for path in self._studio.finish():
                with contextlib.suppress(OSError):
                    self._printer.track(str(path))
        except CsmReplError as error:
            self._printer.error(error)
        try:
            if wait:
                self._playback.wait()
        finally:
            self._playback.close()

    # --- a job ----------------------------------------------------------------------------------------

    def _job(self, events: Iterator[Event]) -> bool:
        """Runs to its end whatever happens; only leaving gets through. Whether Ctrl-C stopped it."""
        # Once more: behind a shell, the terminal may have got other modes.
        with silent_keys():
            try:
                return run_job(events, self._handle)
            except CsmReplError as error:
                log.info("line %d failed", self._line, exc_info=True)
                self._fail(error)
            except Exception as error:  # the model is still loaded, and the next line may work
                log.exception("line %d failed", self._line)
                self._fail(unexpected(error))
            finally:
                self._rest()
        return False

    def _handle(self, event: Event) -> None:
        self._joined.handle(event)
        if isinstance(event, Quit):
            self._quit = True
            return
        if isinstance(event, PlayFile):
            self._playback.file(event.file)
            return
        if isinstance(event, Echo):
            self._playback.prepare()
        elif isinstance(event, Audio):
            self._playback.add(event)
        elif isinstance(event, LineDone):
            self._playback.end()
            self._ring(event)
        elif isinstance(event, Stopped):
            self._playback.stop()
        self._printer.handle(event, self._line)

    def _ring(self, line: LineDone) -> None:
        took_long = sum(turn.elapsed_s for turn in line.turns) >= BELL_AFTER_S
        if took_long and self._studio.settings.bell and isinstance(self._printer, RichPrinter):
            self._printer.bell()

    def _fail(self, error: CsmReplError) -> None:
        self._playback.end()
        if self._studio.settings.debug and isinstance(self._printer, RichPrinter):
            self._printer.traceback(traceback.format_exc())
        self._printer.error(error)

    def _rest(self) -> None:
        if isinstance(self._printer, RichPrinter):
            self._printer.rest()

    def _gap(self) -> None:
        if isinstance(self._printer, RichPrinter):
            self._printer.gap()

    def _show_place(self, number: int, n_lines: int, line: str) -> None:
        if isinstance(self._printer, RichPrinter):
            self._printer.place(number, n_lines, line if is_command(line) else "")

    def _help(self) -> None:
        for event in run_line(self._studio, "$HELP$"):
            self._printer.handle(event, self._line)
        self._gap()

    def _look_at_voices(self) -> Iterator[Event]:
        """As `Studio.refresh_voices`, without what the banner says anyway."""
        with contextlib.ExitStack() as stack:
            if isinstance(self._printer, RichPrinter):
                stack.enter_context(self._printer.waiting("Checking the voices."))
            changes = self._studio.voices.refresh()
        unedited = {clip.path for clip in self._studio.voices.clips if clip.transcript == "whisper"}
        for change in changes:
            if change.is_warning:
                yield Notice(change.message, "warning")
            else:
                yield Notice(change.message, "info" if change.path in unedited else "detail")


def _banner(studio: Studio) -> tuple[str, list[tuple[int, str]], list[str]]:
    model, voices = studio.model, studio.voices
    speakers = sorted({clip.speaker for clip in voices.clips})
    hints = [_HINT]
    if not speakers:
        hints.insert(0, f"No clips in {voices.root}: speakers get random voices.")
    title = f"csm-repl {__version__}: {model.name} on {model.device}, {model.numbers}"
    return title, [(speaker, voices.name(speaker)) for speaker in speakers], hints
