"""A model folder's `text.json`: how its text is read before the tokenizer gets it.

    {"front": "phones", "lexicon": "lexicon.txt.gz", "letters": "letters.txt.gz"}

Without one, as CSM-1B's folder is, the tokenizer gets the text as it is.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

from csm_repl.errors import CheckpointError
from csm_repl.files.json_files import read_config
from csm_repl.text.phones import Letters, PhoneFront

__all__ = ["FRONT_FILE", "front_files", "open_front"]

FRONT_FILE = "text.json"


def open_front(folder: Path) -> PhoneFront | None:
    """The front that a model folder names; None: the model reads text as it is.

    Raises:
        CheckpointError: its `text.json` names another front, or files that are missing or damaged.
    """
    path = folder / FRONT_FILE
    if not path.is_file():
        return None
    description = read_config(path)
    if description.get("front") != "phones":
        raise CheckpointError(
            f"{path} names the text front {description.get('front')!r}, which this version does not know.",
            "Update csm-repl, or use another model.",
        )
    return PhoneFront(_content(folder, description, "lexicon"), Letters(_rules(folder, description)))


def front_files(folder: Path) -> list[Path]:
    """The files that a folder's `text.json` names, as far as they are there."""
    names = [name for name in read_config(folder / FRONT_FILE).values() if isinstance(name, str)]
    return [path for name in names if (path := folder / Path(name).name).is_file()]


def _content(folder: Path, description: dict[str, Any], name: str) -> bytes:
    file = description.get(name)
    if not isinstance(file, str) or Path(file).name != file:
        raise CheckpointError(
            f"{folder / FRONT_FILE} names no file as {name}.", "Take the model's own text.json."
        )
    try:
        return gzip.decompress((folder / file).read_bytes())
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{folder / file} cannot be read: {error}.", "Download the model again."
        ) from error


def _rules(folder: Path, description: dict[str, Any]) -> dict[str, str]:
    lines = _content(folder, description, "letters").decode("utf-8", "replace").splitlines()
    return dict(line.partition(" ")[::2] for line in lines)
