"""What to tell about a speaker without a voice, while others have one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import PurePath

from csm_repl.text.grammar import Turn
from csm_repl.voices import VoiceFolder

__all__ = ["voiceless_notice"]

_MOST_VOICES = 4
_LONGEST_OFFSET = 99


def voiceless_notice(turn: Turn, primary: int, voices: VoiceFolder) -> str:
    """Why nobody's voice is heard in a turn, and the way out; empty where there is nothing to say."""
    speaker = turn.speaker(primary)
    if not voices.speakers or speaker in voices.speakers:
        return ""
    bad = [clip.path.name for clip in voices.unusable if clip.speaker == speaker]
    if bad:
        return f"Speaker {speaker} speaks in a random voice: {bad[0]} cannot be used, and $VOICES$ says why."
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


def _who_has_one(voices: VoiceFolder) -> str:
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


def _clip_name(speaker: int) -> str:
    return f"reference{speaker or ''}.wav"
