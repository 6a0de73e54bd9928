"""Who speaks in somebody else's script: names and numbers there, speakers here."""

from __future__ import annotations

from collections.abc import Collection

from csm_repl.errors import LineError
from csm_repl.text.voice_names import NOBODY, Roster, VoiceName, folded_name

__all__ = ["Cast"]


class Cast:
    """Gives every name of a script a speaker, and keeps to it.

    A voice of that name has it. Other names get, in the order in which they come, the speakers whose clips
    have no name, then those without a clip. Numbers that count from 1 are one more than the speakers', unless
    clips are there for just the numbers as they stand.

    Args:
        numbers: all that the script calls speakers by, as far as they are known.
    """

    def __init__(self, numbers: Collection[int] = ()) -> None:
        self._numbers = set(numbers)
        self._base: int | None = None
        """The number that is speaker 0."""
        self._voices = NOBODY
        self._given: dict[str, VoiceName] = {}
        self._news: list[str] = []

    def look(self, voices: Roster) -> None:
        """Takes up the voices that there are now; what was given away stays, unless a voice has that name."""
        self._voices = voices

    def news(self) -> list[str]:
        """Who has become which speaker since the last time, in a sentence or none."""
        told, self._news = self._news, []
        return [f"{told[0].upper()}{told[1:]}." for told in [", ".join(told)] if told]

    def known(self, name: str) -> VoiceName | None:
        """A speaker whom the script may call so without further ado."""
        return self._voices.find(name) or self._given.get(folded_name(name))

    def speaker(self, name: str, number: int | None) -> VoiceName:
        """Who is called so.

        Args:
            name: as the script has it.
            number: that it calls the speaker by, if it does.
        """
        known = self.known(name)
        if known is not None:
            return known
        speaker = self._next_free() if number is None else self._of(number)
        return self._give(name, speaker)

    def numbered(self, speaker: int) -> VoiceName:
        """The speaker of this very number."""
        return VoiceName(self._voices.speakers.get(speaker) or f"speaker {speaker}", speaker)

    def _give(self, name: str, speaker: int) -> VoiceName:
        voice = VoiceName(name, speaker)
        self._given[folded_name(name)] = voice
        whose = self._voices.speakers.get(speaker)
        if whose or folded_name(name) != f"speaker {speaker}":
            self._news.append(f"{name} is speaker {speaker}" + (f", {whose}" if whose else ""))
        return voice

    def _of(self, number: int) -> int:
        self._numbers.add(number)
        if self._base is None:
            have = self._voices.speakers.keys()
            as_they_stand = self._numbers <= have and not {each - 1 for each in self._numbers} <= have
            self._base = 0 if 0 in self._numbers or as_they_stand else 1
            self._numbers = {each for each in self._numbers if each >= self._base}
        if number < self._base:
            raise LineError(
                f"Speaker {number} comes after others that count from {self._base}; nothing was spoken.",
                "Give the script as a file, so that it can be read before it is spoken, or count from 1.",
            )
        return number - self._base

    def _next_free(self) -> int:
        taken = {voice.speaker for voice in self._given.values()} | {
            each.speaker for each in self._voices.voices
        }
        taken |= {self._of(number) for number in tuple(self._numbers)}
        unnamed = sorted(self._voices.speakers.keys() - taken)
        if unnamed:
            return unnamed[0]
        speaker = 0
        while speaker in taken:
            speaker += 1
        return speaker
