"""Who shows what happens. The audience is chosen once; nothing below a front end prints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from csm_repl.errors import CsmReplError
from csm_repl.events import Event, TurnDone
from csm_repl.terminal import defused

__all__ = ["Printer", "defused", "ended_text", "report_line", "report_lines", "speaker_color"]


class Printer(Protocol):
    """Shows events to one kind of reader."""

    def say(self, text: str) -> None:
        """A sentence about what takes time, such as loading."""
        ...

    def handle(self, event: Event, line: int) -> None:
        """Shows an event of input line `line`, counted from 1."""
        ...

    def error(self, error: CsmReplError, line: int | None = None) -> None:
        """One paragraph with cause and remedy."""
        ...

    def track(self, file: str) -> None:
        """A speaker's track at the end of the run."""
        ...


# Red is left to errors, and black and white may be the background.
_SPEAKER_COLORS = ("cyan", "magenta", "green", "yellow", "bright_blue")
_ENDED = {
    "cut": "cut at the ceiling",
    "context": "cut at the end of the context",
    "interrupted": "interrupted",
}
_REMEDIES = {"cut": "$SET max-seconds off$ lifts it"}


def speaker_color(speaker: int) -> str:
    """The name of an ANSI colour, as rich calls it."""
    return _SPEAKER_COLORS[speaker % len(_SPEAKER_COLORS)]


def ended_text(ended: str) -> str:
    """Why a take did not end by itself, and what to do; empty if it did."""
    return "; ".join(text for text in (_ENDED.get(ended), _REMEDIES.get(ended)) if text)


def report_line(turn: TurnDone) -> str:
    """Seconds of audio, seconds taken, real-time factor, time to first audio, seed."""
    return next(report_lines(turn))[0]


def report_lines(turn: TurnDone) -> Iterator[list[str]]:
    """The report as one line, and then in fewer and fewer words, for terminals that are not wide enough."""
    audio, work = f"{turn.seconds:.2f} s of audio", f"in {turn.elapsed_s:.2f} s"
    rtf, first = f"RTF {turn.real_time_factor:.2f}", f"first audio {turn.first_audio_s:.2f} s"
    seed = f"seed {turn.seed}"
    shorter = [
        f"{audio} {work} ({rtf}, {first}, {seed})",
        f"{audio} {work} ({rtf}, {seed})",
        f"{audio} ({rtf}, {seed})",
        f"{turn.seconds:.2f} s ({rtf}, {seed})",
        f"{turn.seconds:.2f} s, {seed}",
    ]
    ended, remedy = _ENDED.get(turn.ended), _REMEDIES.get(turn.ended)
    if not ended:
        yield from ([text] for text in shorter)
        return
    yield [f"{shorter[0]}, {ended_text(turn.ended)}"]
    rest = [remedy] if remedy else []
    yield from ([f"{text}, {ended}", *rest] for text in shorter)
    yield from ([text, ended, *rest] for text in shorter)
