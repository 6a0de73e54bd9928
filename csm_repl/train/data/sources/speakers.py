"""Whose voice a clip is: from the folders it lies in to a name, and from all names to numbers.

anna/a.wav                              anna
3-anna/take2/a.wav, speaker3/a.wav      3
train-clean-100/1034/121119/a.wav       1034
wavs/a.wav, session1/a.wav, a.wav       nobody is named: 0
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from csm_repl.errors import UsageError
from csm_repl.voices.names import parse_name

__all__ = ["MAX_SPEAKER", "SPEAKERS_FILE", "number_speakers", "read_speakers", "speaker_of"]

MAX_SPEAKER = 999
"""The highest that the console can speak as."""
SPEAKERS_FILE = "speakers.json"
"""In a run's folder and in its results: an object from names to numbers."""


_NUMBERED = re.compile(r"(?P<number>[0-9]{1,3})-[^0-9].*|(?:speaker|spk)[-_ ]?(?P<counted>[0-9]{1,3})", re.I)
_BARE = re.compile(r"[0-9]{1,100}")

_SETS = r"(?:train|training|dev|test|val|valid|validation|validated|eval)"
_KINDS = r"(?:wav|flac|mp3|ogg|opus|audio|clip|sound|recording|segment|utterance|sample|file|data|dataset)s?"
_PARTS = (
    r"(?:session|part|chapter|dis[ck]|cd|day|week|take|batch|book|section|scene|episode|vol|volume|chunk)s?"
)
_NO_SPEAKER = re.compile(
    # LibriSpeech's train-clean-100; wavs, wav48_silence_trimmed; session 2; 2024-05-01; whole data sets.
    rf"{_SETS}(?:[-_ ](?:clean|other|set|split|data|full|all|[0-9]+))*"
    rf"|{_KINDS}(?:[-_ ]?[0-9]\w*)?(?:[-_ ]{_KINDS})?"
    rf"|{_PARTS}[-_ ]?[0-9]+\w*"
    r"|(?:19|20)[0-9]{2}[-_.]?[01][0-9](?:[-_.]?[0-3][0-9].*)?"
    r"|raw|processed|speech|voices?|speakers?|txt|text"
    r"|libri(?:tts|speech|light)(?:[-_]r)?|vctk(?:-corpus.*)?|ljspeech.*|cv-corpus.*",
    re.IGNORECASE,
)
_CHAPTER_FILE = re.compile(r"([0-9]+)[-_]([0-9]+)[-_][0-9].*")
"""LibriSpeech's and LibriTTS's names: speaker, chapter, number."""


def speaker_of(folders: Sequence[str], filename: str) -> str:
    """What names a clip's speaker; '' where nothing does.

    Args:
        folders: that it lies in, from the data's own folder (named by its last part) downwards.
        filename: of the clip.
    """
    for folder in folders:
        if _NUMBERED.fullmatch(folder) is not None:
            return folder
    chapter = _CHAPTER_FILE.fullmatch(filename)
    if chapter is not None and folders and folders[-1] == chapter[2]:
        return chapter[1]
    for folder in folders[1:]:
        if _NO_SPEAKER.fullmatch(folder) is None:
            return folder
    name = parse_name(filename)
    return "" if name is None else f"{name.speaker}-{name.name}" if name.name else str(name.speaker)


def number_speakers(names: Iterable[str], known: Mapping[str, int]) -> dict[str, int]:
    """A number from 0 to 999 for each name; the same names always get the same numbers.

    Names in `known`, from an earlier run, keep theirs. A name that says a number has that one, and '' has 0
    if that is nobody's. All others get the numbers that are free, in the order of the names. Bare numbers
    are names too where one of them is above 999, as in LibriTTS.

    Raises:
        UsageError: there are more names than numbers.
    """
    wanted = set(names)
    every = sorted(wanted | known.keys(), key=lambda name: (_sort_key(name), name))
    bare_count = all(int(name) <= MAX_SPEAKER for name in every if _BARE.fullmatch(name) is not None)
    known_folds = {_folded(name): number for name, number in known.items()}
    numbers: dict[str, int] = {}
    for name in every:
        number = known_folds.get(_folded(name))
        if number is None and (name or 0 not in known_folds.values()):
            number = _said(name, bare_count)
        if number is not None:
            numbers[name] = number
    taken = set(numbers.values())
    free = (number for number in range(MAX_SPEAKER + 1) if number not in taken)
    by_fold: dict[str, int] = {}
    for name in every:
        if name in numbers:
            continue
        fold = _folded(name)
        if fold not in by_fold:
            number = next(free, None)
            if number is None:
                raise UsageError(
                    f"The data have {len(every):,} speakers, and there are numbers for {MAX_SPEAKER + 1:,}.",
                    "Give a part of them.",
                )
            by_fold[fold] = number
        numbers[name] = by_fold[fold]
    return {name: numbers[name] for name in every if name in wanted}


def read_speakers(path: Path) -> dict[str, int]:
    """What a run has noted in SPEAKERS_FILE; nothing where there is no such file.

    Raises:
        UsageError: it cannot be read, or holds something else.
    """
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(noted, dict) or not all(type(n) is int for n in noted.values()):
            raise ValueError
        if not all(0 <= n <= MAX_SPEAKER for n in noted.values()):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}, which says whose number is whose, cannot be used.",
            'It must be an object such as {"anna": 0}; remove it to number all speakers anew.',
        ) from error
    return noted


def _said(name: str, bare_count: bool) -> int | None:
    if not name:
        return 0
    if _BARE.fullmatch(name) is not None:
        return int(name) if bare_count else None
    match = _NUMBERED.fullmatch(name)
    return None if match is None else int(match["number"] or match["counted"])


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def _sort_key(name: str) -> list[tuple[int, int, str]]:
    """Numbers in a name count as numbers: p9 comes before p10."""
    parts = re.split(r"([0-9]{1,30})", _folded(name))
    return [
        (0, int(part), "") if part.isascii() and part.isdecimal() else (1, 0, part) for part in parts if part
    ]
