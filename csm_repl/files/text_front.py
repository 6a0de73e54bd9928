"""A model folder's `text.json`: how its text is read before the tokenizer gets it.

    {"front": "phones", "lexicon": "lexicon.txt.gz", "letters": "letters.txt.gz"}

Without one, as CSM-1B's folder is, the tokenizer gets the text as it is.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any

from csm_repl.errors import CheckpointError
from csm_repl.files.json_files import read_config
from csm_repl.text.phones import Letters, PhoneFront

__all__ = ["FRONT_FILE", "front_files", "front_names", "open_front"]

FRONT_FILE = "text.json"
_PARTS = ("lexicon", "letters")
_MOST_BYTES = 64 * 2**20
"""Of an unpacked file; CMUdict has 4 MB."""


def open_front(folder: Path) -> PhoneFront | None:
    """The front that a model folder names; None: the model reads text as it is.

    Raises:
        CheckpointError: its `text.json` names another front, or files that are missing or damaged.
    """
    if not (folder / FRONT_FILE).is_file():
        return None
    lexicon, letters = map(_content, front_files(folder))
    rules = letters.decode("utf-8", "replace").splitlines()
    return PhoneFront(lexicon, Letters(dict(rule.partition(" ")[::2] for rule in rules)))


def front_files(folder: Path) -> list[Path]:
    """The files that a folder's `text.json` names.

    Raises:
        CheckpointError: as `front_names`.
    """
    return [folder / name for name in front_names(folder / FRONT_FILE)]


def front_names(path: Path) -> list[str]:
    """The names in a `text.json`, of files that belong beside it.

    Raises:
        CheckpointError: it is no JSON object, or of another front, or names no files in its own folder.
    """
    description = read_config(path)
    if description.get("front") != "phones":
        raise CheckpointError(
            f"{path} names the text front {description.get('front')!r}, which this version does not know.",
            "Update csm-repl, or use another model.",
        )
    return [_name(path, part, description.get(part)) for part in _PARTS]


def _name(path: Path, part: str, value: Any) -> str:
    if not isinstance(value, str) or value in {"", ".."} or Path(value).name != value or "\\" in value:
        raise CheckpointError(f"{path} names no file as {part}.", "Take the model's own text.json.")
    return value


def _content(path: Path) -> bytes:
    try:
        # A FIFO would be waited for.
        if not path.is_file():
            path.stat()
            raise ValueError("it is no regular file")
        with gzip.open(path) as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"it holds more than {_MOST_BYTES // 2**20} MB")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.", "Download the model again.") from error
    return data
