"""Who shows what happens. The audience is chosen once; nothing below a front end prints."""

from __future__ import annotations

import re
from typing import Protocol

from csm_repl.errors import CsmReplError
from csm_repl.events import Event, TurnDone

__all__ = ["Printer", "defused", "ended_text", "report_line"]

_SPACES = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
# Control characters, halves of surrogate pairs, and marks that turn the direction of writing around.
_ARMED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


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


def defused(text: str) -> str:
    """`text` on one line, with everything escaped that would steer a terminal instead of being shown."""
    return _ARMED.sub(_escaped, _SPACES.sub(" ", text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


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
