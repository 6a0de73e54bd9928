"""Scripts as a run will understand them, without a model: for `--dry-run` and for the time that is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from csm_repl.errors import LineError
from csm_repl.events import Notice
from csm_repl.settings import Origin, Settings
from csm_repl.studio.commands import known_command, run_command
from csm_repl.studio.hints import SpeakerHints
from csm_repl.studio.reading import read_line
from csm_repl.studio.turns import LineTurn, line_turns
from csm_repl.text.duration import expected_seconds
from csm_repl.text.formats import ScriptReader
from csm_repl.text.grammar import Command, Heading, Line
from csm_repl.text.voice_names import Roster
from csm_repl.voices.listing import ListedVoices
from csm_repl.voices.pronounce_file import PronounceFile

if TYPE_CHECKING:
    from csm_repl.studio import Studio

__all__ = ["Rehearsal", "Rehearsed"]

_CHANGING = {"SWAP", "BACK", "SET"}
"""Commands that change what the lines after them mean; they read nothing but settings and voices."""


@dataclass(frozen=True)
class Rehearsed:
    """What a line of input will be."""

    turns: Sequence[LineTurn] = ()
    command: Command | None = None
    heading: Heading | None = None
    notices: Sequence[str] = ()
    """What the run will say about it."""
    doubts: Sequence[str] = ()
    """What may not be meant."""
    seconds: float = 0.0
    """About how long the turns are."""


@dataclass
class _Voice:
    voice: str
    has_clip: bool
    n_turns: int = 0
    seconds: float = 0.0


@dataclass
class Rehearsal:
    """Goes through the lines of a run.

    It knows settings and voices, but neither what was spoken nor what files a command would find: of commands
    only the name and the arguments' form are checked.

    Args:
        settings: of the run.
        voices: as the names in the folder say.
    """

    settings: Settings
    voices: ListedVoices
    cast: dict[int, _Voice] = field(default_factory=dict)
    """Speaker -> what there is of it."""
    quit: bool = False
    """Whether `$EXIT$` was met."""

    def __post_init__(self) -> None:
        self._hints = SpeakerHints()
        self._roster = Roster(self.voices.speakers)
        self._pronounce = PronounceFile(self.settings.references)
        self.complaints = list(self._pronounce.look())
        """What is wrong with the user's own table."""

    def read(self, reader: ScriptReader, text: str | LineError) -> Rehearsed:
        """The next line.

        Args:
            reader: of its script.
            text: of the line, or why there is none.

        Raises:
            LineError: it will fail, and this is why.
        """
        if isinstance(text, LineError):
            raise text
        offsets = self.settings.offsets == "on"
        parsed = read_line(reader, text, self._roster, offsets=offsets)
        news = reader.news()
        if isinstance(parsed, Command):
            return Rehearsed(command=parsed, notices=[*news, *self._obeyed(parsed)])
        if isinstance(parsed, Heading):
            return Rehearsed(heading=parsed, notices=news)
        if parsed.empty:
            return Rehearsed(notices=news)
        turns, _ = line_turns(
            parsed,
            self.primary,
            names=self.voices.speakers,
            normalize=self.settings.normalize,
            table=self._pronounce.table,
        )
        seconds = [expected_seconds(turn.said) for turn in turns]
        for turn, length in zip(turns, seconds, strict=True):
            has_clip = turn.speaker in self.voices.speakers
            voice = self.cast.setdefault(turn.speaker, _Voice(turn.voice, has_clip))
            voice.n_turns += 1
            voice.seconds += length
        return Rehearsed(
            turns,
            notices=[*news, *self._hints.about(parsed, self.primary, self.voices)],
            doubts=_doubts(parsed),
            seconds=sum(seconds),
        )

    def _obeyed(self, command: Command) -> list[str]:
        name = known_command(command).name
        self.quit = self.quit or name == "EXIT"
        if name not in _CHANGING:
            return []
        events = run_command(cast("Studio", self), command)
        return [event.text for event in events if isinstance(event, Notice)]

    # --- what those commands ask a studio for ---------------------------------------------------------

    @property
    def primary(self) -> int:
        return self.settings.speaker

    def set(self, name: str, value: Any, origin: Origin = "$SET$") -> None:
        self.settings = self.settings.with_value(name, value, origin)

    def voice(self, speaker: int) -> str:
        return self.voices.name(speaker)


def _doubts(line: Line) -> list[str]:
    return [
        f"Turn {turn.position + 1}: the {turn.offset} behind {turn.text.split()[-1][-30:]!r} is an offset. "
        "To have it spoken, put a full stop after it, or use --offsets off."
        for turn in line.turns
        if turn.written and turn.text[-1].isalpha()
    ]
