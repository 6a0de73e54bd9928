"""Where a run's events go: printer, file and loudspeaker; and what became of the run."""

from __future__ import annotations

import logging
from pathlib import Path

from csm_repl.audio import SAMPLE_RATE, AudioSink, read_audio, resample, to_mono
from csm_repl.audio.player import Player
from csm_repl.errors import CsmReplError
from csm_repl.events import Audio, Event, LineDone, Notice, PlayFile, Quit
from csm_repl.front.jobs import unexpected
from csm_repl.front.joined import JoinedSound
from csm_repl.front.pipe.scripts import place_of
from csm_repl.front.printers import PlainPrinter, ScriptProgress

__all__ = ["Listener"]

log = logging.getLogger(__name__)


class Listener:
    """Takes events in the order of their lines.

    Args:
        printer: shows results and notices.
        sink: the file of the whole run.
        player: plays while lines are spoken.
        progress: counts lines for whoever watches.
    """

    def __init__(
        self,
        printer: PlainPrinter,
        sink: AudioSink | None,
        player: Player | None,
        progress: ScriptProgress | None = None,
    ) -> None:
        self._printer = printer
        self._joined = JoinedSound(sink, self._fail_joined, printer.say)
        self._player = player
        self._progress = progress
        self._label: str | None = None
        self.quit = False
        """Whether `$EXIT$` was heard."""
        self.failed = False
        """Whether a line failed."""

    def begin_script(self, label: str | None) -> None:
        """The lines that follow are those of another script.

        Args:
            label: what to call it; None: there is only one.
        """
        self._label = label
        self._printer.script = label

    def handle(self, event: Event, line: int) -> None:
        """Takes an event of input line `line`."""
        self._joined.handle(event)
        if isinstance(event, Quit):
            self.quit = True
        elif isinstance(event, PlayFile):
            self._play_file(event.file, line)
        elif isinstance(event, Audio):
            if self._player is not None:
                self._player.play(event.samples)
        else:
            if isinstance(event, LineDone) and self._player is not None:
                self._player.end()
            self._printer.handle(event, line)
        if self._progress is not None:
            self._progress.hear(event, place_of(self._label, line))

    def fail(self, error: Exception, line: int) -> None:
        """Reports an error of input line `line`; the next lines can still be spoken.

        Raises:
            BrokenPipeError: it is that, and there is nobody to report to.
        """
        if isinstance(error, BrokenPipeError):
            raise error
        self.failed = True
        if isinstance(error, CsmReplError):
            log.info("line %d failed", line, exc_info=error)
        else:
            log.error("line %d failed", line, exc_info=error)
            error = unexpected(error)
        self._printer.error(error, line)
        if self._progress is not None:
            self._progress.fail(error.cause, place_of(self._label, line))

    def _fail_joined(self, error: CsmReplError) -> None:
        self.failed = True
        self._printer.error(error)

    def finish(self, tracks: list[Path], *, interrupted: bool) -> None:
        """The end of the run."""
        self._joined.end()
        for path in tracks:
            self._printer.track(str(path))
        if self._player is not None:
            if not interrupted:
                self._player.wait()
            self._player.close()
        if self._progress is not None:
            self._progress.finish()

    def _play_file(self, file: Path, line: int) -> None:
        if self._player is None:
            self._printer.handle(
                Notice(f"{file} is not played: this run has no playback (see --play)."), line
            )
            return
        samples, rate = read_audio(file)
        self._player.play(resample(to_mono(samples), rate, SAMPLE_RATE))
        self._player.end()
