"""A data set of the `datasets` library: on the hub, or a folder that `save_to_disk` made.

Columns: `audio` and `text`; `speaker` and `conversation_id` where there are any. Rows with the same
`conversation_id` are turns of one conversation, in the order of the rows. The sound is not decoded here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csm_repl.errors import UsageError
from csm_repl.train.data.manifest import Manifest, ManifestEntry, ProblemList, Utterance
from csm_repl.train.data.sounds import RowSound

__all__ = ["read_hub", "read_rows", "read_saved"]

_AUDIO = ("audio",)
_TEXT = ("text", "sentence", "transcription", "transcript")
_SPEAKER = ("speaker", "speaker_id")
_CONVERSATION = ("conversation_id",)


def read_hub(name: str, *, offline: bool = False, token: str | None = None) -> Manifest:
    """`OWNER/NAME[/CONFIG][:SPLIT]`; the split is `train` where none is named."""
    datasets = _library()
    repo, _, split = name.partition(":")
    owner, *rest = repo.split("/")
    config = rest[1] if len(rest) == 2 else None
    repo = "/".join([owner, *rest[:1]])
    try:
        with _offline(datasets) if offline else contextlib.nullcontext():
            rows = datasets.load_dataset(repo, config, split=split or "train", token=token)
    except Exception as error:  # the hub's, the network's and the format's errors all come through here
        raise UsageError(
            f"The data set {repo} cannot be loaded: {_first_line(error)}.",
            f"Check its name, config and split at https://huggingface.co/datasets/{repo}, "
            "your login ('hf auth login') and the network.",
        ) from error
    return read_rows(rows, name, folder=None)


def read_saved(folder: Path, *, split: str = "") -> Manifest:
    """A folder that `save_to_disk` made; of a `DatasetDict` the split `train` where none is named."""
    datasets = _library()
    try:
        rows = datasets.load_from_disk(str(folder))
    except Exception as error:
        raise UsageError(
            f"The data set in {folder} cannot be loaded: {_first_line(error)}.", "Save it again."
        ) from error
    if isinstance(rows, dict):
        if (split or "train") not in rows:
            raise UsageError(
                f"The data set in {folder} has no split {split or 'train'!r}, but {', '.join(rows)}.",
                f"Name one: {folder}:{next(iter(rows), 'SPLIT')}.",
            )
        rows = rows[split or "train"]
    elif split:
        raise UsageError(f"The data set in {folder} has no splits.", f"Give {folder} alone.")
    return read_rows(rows, folder.name, folder=folder)


def read_rows(rows: Any, name: str, *, folder: Path | None) -> Manifest:
    """The rows of a loaded data set.

    Args:
        rows: a `datasets.Dataset`.
        name: what to call it.
        folder: what paths in the audio column are relative to.
    """
    audio, text = _column(rows, _AUDIO), _column(rows, _TEXT)
    if audio is None or text is None:
        raise UsageError(
            f"The data set {name} has the columns {', '.join(rows.column_names)}; audio and text are needed.",
            "Rename its columns with rename_column.",
        )
    if type(rows.features[audio]).__name__ == "Audio":
        # Decoding needs torchcodec and FFmpeg; soundfile reads the same bytes without.
        rows = rows.cast_column(audio, _library().Audio(decode=False))
    texts = rows[text]
    speaker_column, conversation_column = _column(rows, _SPEAKER), _column(rows, _CONVERSATION)
    speakers = map(_label, rows[speaker_column]) if speaker_column is not None else [""] * len(rows)
    conversations = list(rows[conversation_column]) if conversation_column is not None else range(len(rows))
    problems = ProblemList()
    turns: dict[Any, list[Utterance]] = {}
    spoiled = set()
    for row, (words, speaker, key) in enumerate(zip(texts, speakers, conversations, strict=True)):
        shown = f"{name}[{row}]"
        words = " ".join(words.split()) if isinstance(words, str) else ""
        if not words:
            problems.add(shown, "The row has no text.", "Leave it out, or write its words.")
            spoiled.add(key)
            continue
        turns.setdefault(key, []).append(Utterance(shown, RowSound(rows, row, audio, folder), words, speaker))
    entries = tuple(
        ManifestEntry(" + ".join(turn.name for turn in found), tuple(found))
        for key, found in turns.items()
        if key not in spoiled
    )
    if not entries:
        raise problems.nothing_left(f"The data set {name}", "Use another split.")
    return Manifest(entries, tuple(problems.kept), n_more_problems=problems.n_more)


def _label(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


def _column(rows: Any, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if name in rows.column_names), None)


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            "Reading a data set needs the datasets library, which is not installed.",
            "Install it with: pip install 'csm-repl[train]'",
        ) from error
    datasets.disable_progress_bars()
    return datasets


@contextlib.contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """Both libraries read the environment when they are imported, and ask these variables afterwards."""
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0].rstrip(".") if lines else type(error).__name__)[:300]
