"""Which source a name on the command line stands for, and its manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from csm_repl.errors import UsageError
from csm_repl.train.data.manifest import Manifest
from csm_repl.train.data.sources.clip_folder import read_folder
from csm_repl.train.data.sources.dataset import read_hub, read_saved
from csm_repl.train.data.sources.listing import read_list
from csm_repl.train.data.sources.speakers import number_speakers

__all__ = ["check_sources", "read_manifest", "read_manifests"]

_DATASET_FILES = ("dataset_info.json", "dataset_dict.json", "state.json")


def check_sources(sources: Sequence[str]) -> None:
    """UsageError for a source that is not there; nothing is read, and the hub is not asked."""
    for source in sources:
        base, colon, _ = source.rpartition(":")
        is_split = bool(colon) and Path(base).expanduser().is_dir()
        if not source.startswith("hf:") and not is_split and not Path(source).expanduser().exists():
            raise UsageError(
                f"There is no {source}.",
                "Give a folder of clips, a list (.jsonl, .json, .csv, .tsv), or hf:NAME for a data set on "
                "the hub.",
            )


def read_manifest(source: str, *, offline: bool = False, token: str | None = None) -> Manifest:
    """Reads one source of data.

    Args:
        source: a folder of clips, a list of utterances (JSONL, JSON, CSV, TSV), a folder that `save_to_disk`
            made, or `hf:NAME`.
        offline: take a hub data set from the cache only.
        token: access token of the hub.

    Raises:
        UsageError: there is no such thing, or nothing in it can be used.
    """
    if source.startswith("hf:"):
        return read_hub(source.removeprefix("hf:"), offline=offline, token=token)
    path = Path(source).expanduser()
    if path.is_dir() and any((path / name).is_file() for name in _DATASET_FILES):
        return read_saved(path)
    if path.is_dir():
        return read_folder(path)
    if path.is_file():
        return read_list(path)
    base, colon, split = source.rpartition(":")
    if colon and Path(base).expanduser().is_dir():
        return read_saved(Path(base).expanduser(), split=split)
    check_sources((source,))
    raise UsageError(f"{source} is neither a folder nor a file.", "Give a folder of clips, or a list.")


def read_manifests(
    sources: Sequence[str],
    *,
    known: Mapping[str, int] | None = None,
    offline: bool = False,
    token: str | None = None,
) -> Manifest:
    """Several sources as one, in their order, with a number for each speaker.

    Args:
        sources: as for `read_manifest`.
        known: numbers that speakers have already.
        offline, token: as for `read_manifest`.

    Raises:
        UsageError: one of them cannot be used, or there are more than 1,000 speakers.
    """
    read = [read_manifest(source, offline=offline, token=token) for source in sources]
    entries = tuple(entry for manifest in read for entry in manifest.entries)
    return Manifest(
        entries,
        tuple(problem for manifest in read for problem in manifest.problems),
        tuple(note for manifest in read for note in manifest.notes),
        sum(manifest.n_more_problems for manifest in read),
        number_speakers((turn.speaker for entry in entries for turn in entry.turns), known or {}),
    )
