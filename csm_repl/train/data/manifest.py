"""What is to be trained on, as plain descriptions: which sound, which words, whose voice.

`sources` reads them. What cannot be used is a `Problem`, never an exception, unless nothing can be used.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from csm_repl.errors import UsageError
from csm_repl.train.data.sounds import LazySound

__all__ = ["MAX_SPEAKER", "Manifest", "ManifestEntry", "Problem", "Utterance", "nothing_left"]

MAX_SPEAKER = 999
"""The highest that the console can speak as."""


@dataclass(frozen=True)
class Utterance:
    """A sound with its words."""

    name: str
    """Where it comes from, for messages; the same as long as its data stay where they are."""
    sound: LazySound
    text: str | None
    """None: in `txt`, or for Whisper to find out."""
    speaker: int
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


@dataclass(frozen=True)
class Manifest:
    entries: tuple[ManifestEntry, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """Whole sentences for the user."""

    @property
    def n_utterances(self) -> int:
        return sum(len(entry.turns) for entry in self.entries)


def nothing_left(source: object, problems: Iterable[Problem], remedy: str) -> UsageError:
    """What to raise where a source has no usable entry."""
    first = next(iter(problems), None)
    why = f" The first fault: {first.name}: {first.cause}" if first is not None else ""
    return UsageError(f"{source} has nothing to train on.{why}", remedy)
