"""What to tell about the speakers of a line: who has no voice, and what looks like a name and is none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path, PurePath
from typing import Protocol

from csm_repl.text.formats import number_in
from csm_repl.text.grammar import Line, Turn
from csm_repl.text.voice_names import name_typed

__all__ = ["SpeakerHints", "voiceless_notice"]

_MOST_VOICES = 4
_LONGEST_OFFSET = 99


class _BadClip(Protocol):
    @property
    def speaker(self) -> int: ...
    @property
    def path(self) -> Path: ...


class _Voices(Protocol):
    """What a `VoiceFolder` knows of its speakers."""

    @property
    def root(self) -> Path: ...
    @property
    def speakers(self) -> Mapping[int, str | None]: ...
    @property
    def unusable(self) -> Sequence[_BadClip]: ...


class SpeakerHints:
    """Tells everything once."""

    def __init__(self) -> None:
        self._voiceless: set[int] = set()
        """Speakers of whom the user knows that they have no voice."""
        self._names: set[str] = set()

    def about(self, line: Line, primary: int, voices: _Voices) -> list[str]:
        """What is new about the speakers of a line.

        Args:
            line: none of its speakers is below 0.
            primary: the speaker that its offsets count from.
            voices: as they are now.
        """
        self._voiceless -= voices.speakers.keys()
        told = []
        for turn in line.turns:
            speaker = turn.speaker(primary)
            if speaker not in self._voiceless and (notice := voiceless_notice(turn, primary, voices)):
                self._voiceless.add(speaker)
                told.append(notice)
            name = name_typed(turn.text) if turn.voice is None else ""
            if name and name not in self._names:
                self._names.add(name)
                told.append(_no_such_voice(name, voices))
        return told


def _no_such_voice(name: str, voices: _Voices) -> str:
    known = {each.casefold(): each for each in voices.speakers.values() if each}
    near = get_close_matches(name.casefold(), known, n=1)
    if near:
        return f"No voice is called {name}, so the name is spoken. Did you mean {known[near[0]]}?"
    if number_in(name) is not None:
        return f"No voice is called {name}, so the name is spoken. --format names gives such lines a speaker."
    clip = _clip_name(_free_speaker(voices.speakers), name)
    return f"No voice is called {name}, so the name is spoken. A clip called {clip} would be {name}'s voice."


def _free_speaker(speakers: Collection[int]) -> int:
    return next(number for number in range(len(speakers) + 1) if number not in speakers)


def voiceless_notice(turn: Turn, primary: int, voices: _Voices) -> str:
    """Why nobody's voice is heard in a turn, and the way out; empty where there is nothing to say."""
    speaker = turn.speaker(primary)
    if not voices.speakers or speaker in voices.speakers:
        return ""
    bad = [clip.path.name for clip in voices.unusable if clip.speaker == speaker]
    if bad:
        return f"Speaker {speaker} speaks in a random voice: {bad[0]} cannot be used, and $VOICES$ says why."
    if turn.voice is not None:
        clip = _clip_name(speaker, turn.voice.name)
        return (
            f"{turn.voice.name} (speaker {speaker}) has no clip and speaks in a random voice. "
            f"To give it one, put {clip} into {PurePath(voices.root)}."
        )
    sentences = [
        f"Speaker {speaker} has no clip and speaks in a random voice.",
        _who_has_one(voices),
        *_ways_to_another(turn, primary, voices.speakers),
        f"To give speaker {speaker} a voice, put {_clip_name(speaker)} into {PurePath(voices.root)}.",
    ]
    if turn.written:
        sentences.append(
            f"To have the {turn.offset} spoken, put a full stop after it, or use $SET offsets off$."
        )
    return " ".join(sentences)


def _who_has_one(voices: _Voices) -> str:
    have = sorted(voices.speakers)
    told = [
        f"speaker {speaker}" + (f" is {name}" if (name := voices.speakers[speaker]) else "")
        for speaker in have[:_MOST_VOICES]
    ]
    if len(have) > _MOST_VOICES:
        told.append(f"{len(have) - _MOST_VOICES} more")
    elif len(have) == 1 and not voices.speakers[have[0]]:
        return f"Only speaker {have[0]} has one."
    text = ", ".join(told)
    return f"{text[0].upper()}{text[1:]}."


def _ways_to_another(turn: Turn, primary: int, speakers: Collection[int]) -> Iterator[str]:
    wanted = min(speakers, key=lambda speaker: (abs(speaker - turn.speaker(primary)), speaker))
    step = wanted - primary
    ways = []
    if turn.offset == 0 and step in (1, -1):
        ways.append("$SWAP$" if step == 1 else "$BACK$")
    if abs(step) <= _LONGEST_OFFSET:
        ways.append(f"the offset {step} at the end of the turn")
    if turn.offset == 0:
        ways.append(f"$SET speaker {wanted}$ (at the start: --speaker {wanted})")
    if ways:
        *most, last = ways
        yield f"To speak as speaker {wanted}, use {', '.join(most)}{' or ' if most else ''}{last}."


def _clip_name(speaker: int, name: str = "") -> str:
    called = "-".join(name.lower().replace("/", " ").split())
    return f"reference{speaker or ''}{'-' if called else ''}{called}.wav"
