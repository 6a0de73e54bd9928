"""What is to be trained on, as plain descriptions: which sound, which words, whose voice.

    manifest           the types, and which reader a name is for
    manifest_folder    a folder of clips
    manifest_jsonl     a JSONL file
    manifest_dataset   a `datasets` data set, on disk or on the hub

Nothing is read from the sounds here. What cannot be used is a `Problem`, never an exception, unless all
of it cannot be used.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from csm_repl.errors import UsageError
from csm_repl.train.sounds import Sound

__all__ = ["MAX_SPEAKER", "Manifest", "Problem", "Record", "Utterance", "read_manifest", "read_manifests"]

MAX_SPEAKER = 999
"""The highest that the console can speak as."""

_DATASET_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")


@dataclass(frozen=True)
class Utterance:
    """A sound with its words."""

    name: str
    """Where it comes from, for messages; the same as long as its data stay where they are."""
    sound: Sound
    text: str | None
    """None: in `txt`, or for Whisper to find out."""
    speaker: int
    txt: Path | None = None
    """Where the words stand, and where Whisper's go; None: only `text` counts."""
    in_loss: bool = True


@dataclass(frozen=True)
class Record:
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
    records: tuple[Record, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    """Whole sentences for the user."""

    @property
    def n_utterances(self) -> int:
        return sum(len(record.turns) for record in self.records)


def read_manifest(source: str, *, offline: bool = False, token: str | None = None) -> Manifest:
    """Reads one source of data.

    Args:
        source: a folder of clips, a `.jsonl` file, a folder that `save_to_disk` made, or `hf:NAME`.
        offline: take a hub data set from the cache only.
        token: access token of the hub.

    Raises:
        UsageError: there is no such thing, or nothing in it can be used.
    """
    from csm_repl.train import manifest_dataset, manifest_folder, manifest_jsonl

    if source.startswith("hf:"):
        return manifest_dataset.read_hub(source.removeprefix("hf:"), offline=offline, token=token)
    path = Path(source).expanduser()
    if path.is_dir() and any((path / name).is_file() for name in _DATASET_FILES):
        return manifest_dataset.read_saved(path)
    if path.is_dir():
        return manifest_folder.read_folder(path)
    if path.is_file():
        return manifest_jsonl.read_jsonl(path)
    base, colon, split = source.rpartition(":")
    if colon and Path(base).expanduser().is_dir():
        return manifest_dataset.read_saved(Path(base).expanduser(), split=split)
    raise UsageError(
        f"There is no {source}.",
        "Give a folder of clips, a .jsonl file, or hf:NAME for a data set of the hub.",
    )


def read_manifests(sources: Sequence[str], *, offline: bool = False, token: str | None = None) -> Manifest:
    """Several sources as one, in their order. UsageError where one of them cannot be used."""
    read = [read_manifest(source, offline=offline, token=token) for source in sources]
    return Manifest(
        tuple(record for manifest in read for record in manifest.records),
        tuple(problem for manifest in read for problem in manifest.problems),
        tuple(note for manifest in read for note in manifest.notes),
    )


def nothing_left(source: object, problems: Iterable[Problem], remedy: str) -> UsageError:
    """What to raise where a source has no usable record."""
    first = next(iter(problems), None)
    why = f" The first fault: {first.name}: {first.cause}" if first is not None else ""
    return UsageError(f"{source} has nothing to train on.{why}", remedy)
