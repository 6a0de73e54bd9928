"""What the studio tells its front ends. Plain data; whoever shows, plays or saves it decides how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

__all__ = [
    "Audio",
    "Echo",
    "EchoTurn",
    "Event",
    "LineDone",
    "Notice",
    "PlayFile",
    "Progress",
    "Quit",
    "Say",
    "ScriptLine",
    "Stopped",
    "Table",
    "TurnDone",
    "TurnStarted",
    "Withdrawn",
]


Say = Callable[[str], None]
"""Takes a sentence for the user about what takes time, outside a job."""


@dataclass(frozen=True)
class Notice:
    """Whole sentences for the user."""

    text: str
    level: Literal["detail", "info", "warning"] = "info"


@dataclass(frozen=True)
class ScriptLine:
    """Where a line was read."""

    file: str
    """As the user named it; `-` is stdin."""
    line: int
    """From 1, comments and commands counted: not the number of a take."""


@dataclass(frozen=True)
class EchoTurn:
    speaker: int
    voice: str
    text: str
    said: str = ""
    """How it will be said, where that is not as typed."""


@dataclass(frozen=True)
class Echo:
    """The line as it was understood, before anything is generated."""

    turns: tuple[EchoTurn, ...]


@dataclass(frozen=True)
class TurnStarted:
    index: int
    """Which of the line's spoken turns, from 0."""
    n_turns: int
    speaker: int
    voice: str
    text: str
    seed: int
    ceiling_s: float | None
    """None: only the context ends it."""


@dataclass(frozen=True)
class Audio:
    """The next samples of the turn, final."""

    samples: torch.Tensor
    """Float32 [n] at `rate`, n > 0."""
    rate: int
    generated_s: float
    """Seconds generated so far, held-back silence included."""
    elapsed_s: float


@dataclass(frozen=True)
class Progress:
    """A frame of the turn was made, of which nothing can be heard yet."""

    generated_s: float
    """As in `Audio`."""
    elapsed_s: float


@dataclass(frozen=True)
class TurnDone:
    """A take is in the conversation and on the disk."""

    index: int
    n_turns: int
    speaker: int
    voice: str
    text: str
    file: Path
    seconds: float
    elapsed_s: float
    first_audio_s: float
    seed: int
    ended: Literal["end", "cut", "context", "interrupted"]
    meta: Mapping[str, Any] = field(repr=False)
    """What the take's JSON says."""
    number: str = ""
    """`7.2`: the second turn of line 7; `7`: its only one. As in the name of the file."""

    @property
    def real_time_factor(self) -> float:
        """Seconds of work for a second of sound; below 1 is faster than real time."""
        return self.elapsed_s / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class LineDone:
    """All turns of a line are spoken."""

    number: int
    """As in the name of the file; a script's lines are counted otherwise."""
    file: Path
    """The whole line; for a line of one turn that turn's file."""
    seconds: float
    turns: tuple[TurnDone, ...]


@dataclass(frozen=True)
class Withdrawn:
    """Takes are no part of the dialogue any more; their files stay."""

    files: tuple[Path, ...]
    """Of the turns."""


@dataclass(frozen=True)
class Stopped:
    """Ctrl-C ended the job; says what was kept."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows for the user; `records` is the same for programs."""

    kind: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: tuple[Mapping[str, Any], ...]
    empty: str = "Nothing to show."


@dataclass(frozen=True)
class PlayFile:
    """Asks the front end to play a file."""

    file: Path


@dataclass(frozen=True)
class Quit:
    """Asks the front end to leave."""


Event = (
    Withdrawn
    | Notice
    | Echo
    | TurnStarted
    | Audio
    | Progress
    | TurnDone
    | LineDone
    | Stopped
    | Table
    | PlayFile
    | Quit
)
