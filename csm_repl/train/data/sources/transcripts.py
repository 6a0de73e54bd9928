"""Where the words of a clip stand, in the layouts that data sets have.

a.txt                                   beside a.wav
a.normalized.txt, a.original.txt        LibriTTS
84-121123.trans.txt                     LibriSpeech: a line for each clip of the folder
txt/p225/p225_001.txt                   VCTK, beside wav48_silence_trimmed/p225/p225_001_mic1.flac
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from csm_repl.train.data.sources.locate import Folders
from csm_repl.train.data.sources.rows import read_lines

__all__ = ["TranscriptFinder", "without_microphone"]

_ENDINGS = (".txt", ".normalized.txt", ".original.txt")
_MICROPHONE = re.compile(r"(.+)_mic[0-9]")
_SOUND_FOLDER = re.compile(r"(?:wav|flac|audio)s?(?:[0-9]\w*)?", re.IGNORECASE)
_TEXT_FOLDERS = ("txt", "text")
_MOST_BYTES = 1 << 26


class TranscriptFinder:
    """Finds the words of clips.

    Args:
        folders: shared with whoever looks into the same ones.
    """

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._lines: dict[Path, dict[str, str]] = {}

    def find(self, path: Path) -> tuple[str | None, Path, bool]:
        """The words of the clip at `path` where they are a line of a file, else the file they stand in, and
        whether there is one; if not, where it should be."""
        stems = [path.stem]
        if (plain := without_microphone(path.stem)) is not None:
            stems.append(plain)
        folder = path.parent
        for place in (folder, *self._text_folders(folder)):
            for stem in stems:
                for ending in _ENDINGS:
                    name = self._folders.find(place, stem + ending)
                    if name is not None:
                        return None, place / name, True
        words = self._line(folder, path.stem)
        return words, path.with_name(f"{path.stem}.txt"), words is not None

    def _text_folders(self, folder: Path) -> list[Path]:
        """`txt/p225` for `wav48/p225`."""
        found: list[Path] = []
        parts = folder.parts
        for depth in range(len(parts) - 1, max(0, len(parts) - 4), -1):
            if _SOUND_FOLDER.fullmatch(parts[depth]) is not None:
                above = Path(*parts[:depth])
                for name in _TEXT_FOLDERS:
                    real = self._folders.find(above, name)
                    if real is not None:
                        found.append(Path(above, real, *parts[depth + 1 :]))
        return found

    def _line(self, folder: Path, stem: str) -> str | None:
        if folder not in self._lines:
            self._lines[folder] = {}
            for name in self._folders.ending_with(folder, ".trans.txt"):
                self._lines[folder].update(_read_trans(folder / name))
        return self._lines[folder].get(stem)


def without_microphone(stem: str) -> str | None:
    """`p225_001` of `p225_001_mic1`; None for other names."""
    match = _MICROPHONE.fullmatch(stem)
    return None if match is None else match[1]


def _read_trans(path: Path) -> dict[str, str]:
    """`84-121123-0000 GO DO YOU HEAR`, a line for each clip. What cannot be read is not there."""
    words: dict[str, str] = {}
    try:
        if not path.is_file() or os.path.getsize(path) > _MOST_BYTES:  # noqa: PTH202
            return {}
        for _, line, _ in read_lines(path):
            key, _, text = (line or "").strip().partition(" ")
            if text.strip():
                words[key] = " ".join(text.split())
    except (OSError, UnicodeError):
        pass
    return words
