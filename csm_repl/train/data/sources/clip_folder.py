"""A folder of clips: `NAME.wav` with its words in `NAME.txt`, in any depth of folders.

Whose voice: a folder called `1` or `1-anna` above the clip says it (the nearest one counts), else a file
name like a reference clip's (`reference1-anna.wav`), else it is speaker 0.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from csm_repl.errors import UsageError
from csm_repl.train.data.manifest import Manifest, ManifestEntry, Problem, Utterance, nothing_left
from csm_repl.train.data.sounds import FileSound
from csm_repl.voices.names import ENDINGS, parse_name

__all__ = ["read_folder", "speaker_of"]

_SPEAKER_FOLDER = re.compile(r"([0-9]{1,3})(?:-.*)?")


def read_folder(root: Path) -> Manifest:
    """All clips under `root`, by path. UsageError where there are none."""
    entries: list[ManifestEntry] = []
    problems: list[Problem] = []

    def unreadable(error: OSError) -> None:
        problems.append(Problem(str(error.filename), f"The folder cannot be read: {error.strerror}."))

    for folder, subfolders, names in os.walk(root, onerror=unreadable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        _read_names(root, Path(folder), sorted(names), entries, problems)
    if not entries:
        kinds = ", ".join(ENDINGS)
        if not root.is_dir():
            raise UsageError(f"There is no folder {root}.", "Check its name.")
        raise nothing_left(root, problems, f"Put clips ({kinds}) and their words (.txt) into it.")
    return Manifest(tuple(entries), tuple(problems))


def speaker_of(path: Path) -> int:
    """The speaker that a clip's path, relative to the data's folder, names."""
    for folder in reversed(path.parts[:-1]):
        match = _SPEAKER_FOLDER.fullmatch(folder)
        if match is not None:
            return int(match[1])
    name = parse_name(path.name)
    return 0 if name is None else name.speaker


def _read_names(
    root: Path, folder: Path, names: list[str], entries: list[ManifestEntry], problems: list[Problem]
) -> None:
    texts = {Path(name).stem: name for name in names if name.lower().endswith(".txt")}
    owners: dict[str, str] = {}
    for name in names:
        stem, ending = os.path.splitext(name)  # noqa: PTH122 - ten times as fast, and there may be 100,000
        if ending.lower() not in ENDINGS or name.startswith("."):
            continue
        path = folder / name
        relative = path.relative_to(root)
        shown = relative.as_posix()
        owner = owners.setdefault(stem, name)
        if owner != name:
            problems.append(Problem(shown, f"It has the same transcript file as {owner}.", "Rename it."))
            continue
        txt = folder / texts.get(stem, f"{stem}.txt")
        entries.append(
            ManifestEntry(shown, (Utterance(shown, FileSound(path), None, speaker_of(relative), txt),))
        )
