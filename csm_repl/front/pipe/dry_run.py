"""`--dry-run`: shows how scripts are understood, and what will fail. Loads no model and imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from csm_repl.errors import CsmReplError, ExitCode, LineError
from csm_repl.front.pipe.rehearsal import Rehearsal, Rehearsed
from csm_repl.front.pipe.scripts import script_rows
from csm_repl.settings import Settings
from csm_repl.terminal import show, show_json, tell
from csm_repl.text.duration import clock_time
from csm_repl.voices.listing import ListedVoices

__all__ = ["run_dry"]


def run_dry(settings: Settings, scripts: Sequence[str]) -> ExitCode:
    """Goes through scripts, at least one, as `run_pipe` would.

    Args:
        settings: of the run.
        scripts: looked at by `check_scripts`; `-` is stdin.

    Returns:
        What a run would return, as far as that can be known without one.
    """
    rehearsal = Rehearsal(settings, ListedVoices(settings.references))
    shown = (_Json if settings.json else _Text)(settings.quiet)
    try:
        for complaint in rehearsal.complaints:
            shown.notice(complaint)
        for row in script_rows(scripts, settings.format):
            shown.script = row.label
            try:
                shown.line(row.number, rehearsal.read(row.reader, row.text))
            except LineError as error:
                shown.failed(row.number, error)
            if rehearsal.quit:
                break
        shown.end(rehearsal)
    except BrokenPipeError:  # nobody reads any more, which is no error of the disk
        raise
    except OSError as error:  # a full disk, a closed stdout
        from csm_repl.audio import output_error

        raise output_error("stdout", error) from error
    return ExitCode.SOME_LINES_FAILED if shown.n_failed else ExitCode.OK


class _Text:
    """For people: lines on stdout, what is wrong with them on stderr."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self.script: str | None = None
        self.n_lines = 0
        """To be spoken, those that fail included."""
        self.n_failed = 0

    def line(self, number: int, line: Rehearsed) -> None:
        self.n_lines += bool(line.turns)
        self._show(number, line)
        for text in (*line.notices, *line.doubts):
            self.notice(text, number)

    def _show(self, number: int, line: Rehearsed) -> None:
        where = self._where(number)
        if line.heading is not None:
            show(f"{where}  ## {line.heading.title}")
        if line.command is not None:
            show(f"{where}  ${f'{line.command.name} {line.command.args}'.strip()}$")
        for turn in line.turns:
            show(f"{where}  {turn.speaker} {turn.voice}: {turn.text}")
            if turn.said != turn.text:
                show(f"{' ' * len(where)}    said: {turn.said}")

    def notice(self, text: str, number: int | None = None) -> None:
        if not self._quiet:
            tell(text if number is None else f"{self._where(number, 'line ')}: {text}")

    def failed(self, number: int, error: CsmReplError) -> None:
        self.n_lines += 1
        self.n_failed += 1
        tell(f"csm-repl: {self._where(number, 'input line ')}: {error}")

    def end(self, rehearsal: Rehearsal) -> None:
        if self._quiet:
            return
        for speaker, voice in sorted(rehearsal.cast.items()):
            name = "" if voice.voice == f"speaker {speaker}" else f" {voice.voice}"
            clip = "" if voice.has_clip else ", without a clip"
            turns = f"{voice.n_turns} turn{'s' if voice.n_turns > 1 else ''}"
            tell(f"Speaker {speaker}{name}: {turns}, about {clock_time(voice.seconds)}{clip}.")
        total = sum(voice.seconds for voice in rehearsal.cast.values())
        failing = f", {self.n_failed} will fail" if self.n_failed else ""
        lines = f"{self.n_lines} line{'' if self.n_lines == 1 else 's'}"
        tell(f"{lines}{failing}, about {clock_time(total)} of sound.")

    def _where(self, number: int, word: str = "") -> str:
        return f"{word}{number}" if self.script is None else f"{self.script}:{number}"


class _Json(_Text):
    """For programs: an object a line on stdout, the last one a summary. stderr is as for people."""

    def _show(self, number: int, line: Rehearsed) -> None:
        if line.heading is not None:
            self._object("heading", number, title=line.heading.title)
        if line.command is not None:
            self._object("command", number, command=line.command.name, args=line.command.args)
        if line.turns:
            turns = [
                {
                    "position": turn.position,
                    "speaker": turn.speaker,
                    "voice": turn.voice,
                    "text": turn.text,
                    "said": turn.said,
                    "replacements": list(map(asdict, turn.replacements)),
                }
                for turn in line.turns
            ]
            notices = [*line.notices, *line.doubts]
            self._object("line", number, seconds=round(line.seconds, 2), turns=turns, notices=notices)

    def failed(self, number: int, error: CsmReplError) -> None:
        super().failed(number, error)
        self._object("error", number, error=error.cause, remedy=error.remedy, exit_code=int(error.exit_code))

    def end(self, rehearsal: Rehearsal) -> None:
        super().end(rehearsal)
        speakers = [
            {
                "speaker": speaker,
                "voice": voice.voice,
                "has_clip": voice.has_clip,
                "turns": voice.n_turns,
                "seconds": round(voice.seconds, 2),
            }
            for speaker, voice in sorted(rehearsal.cast.items())
        ]
        show_json(
            {
                "type": "summary",
                "lines": self.n_lines,
                "failed": self.n_failed,
                "seconds": round(sum(each.seconds for each in rehearsal.cast.values()), 2),
                "speakers": speakers,
            }
        )

    def _object(self, kind: str, number: int, **values: Any) -> None:
        script = {} if self.script is None else {"script": self.script}
        show_json({"type": kind, **script, "line": number, **values})
