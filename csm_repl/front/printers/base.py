"""Who shows what happens. The audience is chosen once; nothing below a front end prints."""

from __future__ import annotations

from typing import Protocol

from csm_repl.errors import CsmReplError
from csm_repl.events import Event, TurnDone
from csm_repl.terminal import defused

__all__ = ["Printer", "defused", "ended_text", "report_line"]


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


_ENDED = {
    "cut": "cut at the ceiling; $SET max-seconds off$ lifts it",
    "context": "cut at the end of the context",
    "interrupted": "interrupted",
}


def ended_text(ended: str) -> str:
    """Why a take did not end by itself; empty if it did."""
    return _ENDED.get(ended, "")


def report_line(turn: TurnDone) -> str:
    """Seconds of audio, seconds taken, real-time factor, time to first audio, seed."""
    text = (
        f"{turn.seconds:.2f} s of audio in {turn.elapsed_s:.2f} s "
        f"(RTF {turn.real_time_factor:.2f}, first audio {turn.first_audio_s:.2f} s, seed {turn.seed})"
    )
    ended = ended_text(turn.ended)
    return f"{text}, {ended}" if ended else text
