"""Where the sound files lie that a list names, perhaps on another system or in another place."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from csm_repl.voices.names import ENDINGS

__all__ = ["Folders", "SoundFinder"]

_SUBFOLDERS = ("wavs", "clips", "wav", "audio")
"""Where LJSpeech, Common Voice and others keep what their lists name without a folder."""
_DRIVE = re.compile(r"[A-Za-z]:[\\/]*")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class Folders:
    """Finds files whatever case and Unicode form their names have. Each folder is listed once."""

    def __init__(self) -> None:
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, folder: str | Path, name: str) -> str | None:
        """The name as the folder has it: exactly so if there is such a file, else the only similar one."""
        alike = self._names(os.fspath(folder)).get(_folded(name), [])
        if name in alike:
            return name
        return alike[0] if len(alike) == 1 else None

    def ending_with(self, folder: str | Path, ending: str) -> list[str]:
        """Names with this ending, whatever its case."""
        names = self._names(os.fspath(folder))
        return sorted(name for fold, alike in names.items() if fold.endswith(ending) for name in alike)

    def _names(self, folder: str) -> dict[str, list[str]]:
        if folder not in self._listed:
            names: dict[str, list[str]] = {}
            try:
                for name in os.listdir(folder):  # noqa: PTH208 - quicker, and there may be 100,000
                    names.setdefault(_folded(name), []).append(name)
            except (OSError, ValueError):
                pass
            self._listed[folder] = names
        return self._listed[folder]


class SoundFinder:
    """Finds the files that a list in `folder` names.

    Args:
        folder: what paths are relative to.
        folders: shared with whoever looks into the same ones.
    """

    def __init__(self, folder: Path, folders: Folders) -> None:
        self._folder = folder
        self._folders = folders
        self.n_moved = 0
        """How many had another machine's path, and were found beside the list."""

    def find(self, name: str) -> Path | None:
        """The file that `name` means; where it would be, if it is not there; None if it cannot be a path."""
        try:
            os.fsencode(name)
        except UnicodeError:
            return None
        name = name.strip()
        found = self._at(name)
        if found is not None:
            return found
        plain = _DRIVE.sub("", name).replace("\\", "/") if "\\" in name or _DRIVE.match(name) else name
        parts = [part for part in plain.split("/") if part not in ("", ".")]
        if not parts or parts[-1] == "..":
            return None
        if plain != name:
            found = self._at("/".join(parts))
        if found is None and (_DRIVE.match(name) or plain.startswith("/")):
            # A list that was made where the data lay in another place: the longest end that is here.
            ends = ("/".join(parts[start:]) for start in range(len(parts)))
            found = next((path for end in ends if (path := self._at(end)) is not None), None)
            self.n_moved += found is not None
        return found or Path(os.path.join(self._folder, plain))  # noqa: PTH118 - quicker

    def _at(self, name: str) -> Path | None:
        folders = ("",) if name.startswith("/") else ("", *_SUBFOLDERS)
        for folder in folders:
            path = os.path.join(self._folder, folder, name)  # noqa: PTH118 - quicker, and may be 100,000
            if os.path.isfile(path):  # noqa: PTH113
                return Path(path)
            head, tail = os.path.split(path)
            endings = ("",) if tail.lower().endswith(ENDINGS) else ("", *ENDINGS)
            for ending in endings:
                real = self._folders.find(head, tail + ending)
                if real is not None and os.path.isfile(os.path.join(head, real)):  # noqa: PTH113, PTH118
                    return Path(head, real)
        return None
