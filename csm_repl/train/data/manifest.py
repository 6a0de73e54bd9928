"""What is to be trained on, as plain descriptions: which sound, which words, whose voice.

`sources` reads them. What cannot be used is a `Problem`, never an exception, unless nothing can be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from csm_repl.errors import UsageError
from csm_repl.train.data.sounds import LazySound

__all__ = ["Manifest", "ManifestEntry", "Problem", "ProblemList", "Utterance"]


@dataclass(frozen=True)
class Utterance:
    """A sound with its words."""

    name: str
    """Where it comes from, for messages; the same as long as its data stay where they are."""
    sound: LazySound
    text: str | None
    """None: in `txt`, or for Whisper to find out."""
    speaker: str
    """As the data call the voice: `anna`, `3-anna`, `1034`; '' where they do not. `Manifest.numbers` has its
    number."""
    txt: Path | None = None
    """Where the words stand, and where Whisper's go; None: only `text` counts."""
    in_loss: bool = True


@dataclass(frozen=True)
class ManifestEntry:
    """One utterance, or the turns of a conversation."""

    name: str
    turns: tuple[Utterance, ...]


@dataclass(frozen=True)
class Problem:
    """Something that is left out."""

    name: str
    cause: str
    remedy: str = ""


class ProblemList:
    """Collects problems; of more than a million bad lines it keeps the first thousand, and the number."""

    _MOST_KEPT = 1_000

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.n_more = 0

    def add(self, name: str, cause: str, remedy: str = "") -> None:
        if len(self.kept) < self._MOST_KEPT:
            self.kept.append(Problem(name, cause, remedy))
        else:
            self.n_more += 1

    def nothing_left(self, source: object, remedy: str) -> UsageError:
        """What to raise where a source has no usable entry."""
        why = f" The first fault: {self.kept[0].name}: {self.kept[0].cause}" if self.kept else ""
        return UsageError(f"{source} has nothing to train on.{why}", remedy)


@dataclass(frozen=True)
class Manifest:
    entries: tuple[ManifestEntry, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """Whole sentences for the user."""
    n_more_problems: int = 0
    """Beside those in `problems`."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Speakers' numbers, by what the utterances call them."""

    @property
    def n_utterances(self) -> int:
        return sum(len(entry.turns) for entry in self.entries)
