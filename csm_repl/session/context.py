"""Which segments the model sees when it speaks the next turn: references first, then the conversation.

A pure function over plain numbers: who wants a stable context hands the last plan's `left_out` back in.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = [
    "EXTRA_CLIP",
    "HEADROOM",
    "NO_ROOM",
    "OLDEST_TURN",
    "UNUSED_VOICE",
    "ContextSpan",
    "Plan",
    "describe",
    "plan_context",
]

UNUSED_VOICE = "unused voice"
"""A reference of a voice that neither this line nor the kept conversation uses."""
OLDEST_TURN = "oldest turn"
"""The oldest turn, because something had to leave."""
HEADROOM = "headroom"
"""A further oldest turn, so that the next turns find room without another one leaving."""
EXTRA_CLIP = "extra clip"
"""A clip, beyond the first, of a voice that is in use."""
NO_ROOM = "no room"
"""The only clip left of a voice that is in use."""


@dataclass(frozen=True)
class ContextSpan:
    """One segment as the planner sees it."""

    key: Hashable
    """Identity of the segment; the planner only hands it back."""
    speaker: int
    n_positions: int
    pinned: bool
    """A reference clip."""
    turn: Hashable = None
    """The turn that this segment is a piece of; None: it is a turn of its own."""
    same_line: bool = False
    """It was said in the line that the plan is for, so that nobody has to be told when it leaves."""


@dataclass(frozen=True)
class Plan:
    """What stays in the context and what leaves it."""

    kept: tuple[ContextSpan, ...]
    """In the order given."""
    dropped: tuple[tuple[ContextSpan, str], ...]
    """What leaves now and why, in the order of leaving; what was out before is not news."""
    n_positions: int
    """Positions of `kept`, without the new turn's."""
    left_out: frozenset[Hashable] = frozenset()
    """Keys of all references that are out, for the next call."""


def plan_context(
    spans: Sequence[ContextSpan],
    *,
    needed: int,
    speakers: Collection[int],
    speaking: int | None = None,
    least: int | None = None,
    limit: int = 2048,
    headroom: float = 0.25,
    left_out: Collection[Hashable] = (),
) -> Plan:
    """What stays in the context beside a new turn of `needed` positions.

    If everything fits, everything stays. Otherwise segments leave until the rest fits:

    1. the references of voices that neither `speakers` nor the kept turns use; the last voice first, all its
       clips at once, so that what stands before it can stay in the prefix cache;
    2. the oldest turns, one by one; a turn that leaves can make a voice unused, which then leaves as in 1;
    3. only when no turn is left: clips of a voice beyond its first, the last one first, those of who speaks
       now after the others;
    4. the first clips of the others, the last one first;
    5. the first clip of who speaks now, when it does not fit beside `least` positions.

    When a turn had to leave, all kept turns are prefilled anew, because their positions move. So that this
    does not happen on every turn from then on, further oldest turns leave until `(1 - headroom) * limit`
    positions are used, `needed` included. The newest turn, the one that is being answered, never leaves for
    headroom, and neither does a reference.

    Args:
        spans: references first, then turns, each in their order.
        needed: positions of the new turn's text plus the room for its reply.
        speakers: who speaks in this line.
        speaking: who of them speaks now; None: nobody.
        least: positions of the new turn with the least room for its reply; `needed` without it.
        limit: positions of the context.
        headroom: share of the limit, 0 <= headroom < 1.
        left_out: keys of references that an earlier plan left out. They stay out while nobody uses their
            voice: coming back into room that turns just made would cost a prefill and be undone soon.

    Raises:
        ValueError: numbers out of range, or a reference after a turn.
    """
    least = needed if least is None else least
    _check(spans, needed, least, limit, headroom)
    room = limit - needed
    in_use = set(speakers) | {span.speaker for span in spans if not span.pinned}
    kept = [s for s in spans if not (s.pinned and s.key in left_out and s.speaker not in in_use)]
    dropped: list[tuple[ContextSpan, str]] = []
    size = sum(span.n_positions for span in kept)

    def leave(index: int, reason: str) -> None:
        nonlocal size
        span = kept.pop(index)
        size -= span.n_positions
        if span.key not in left_out:
            dropped.append((span, reason))

    turn_had_to_leave = False
    while size > room and kept:
        indices, reason = _next_to_leave(kept, speakers, speaking)
        if reason == NO_ROOM and kept[indices[0]].speaker == speaking and size <= limit - least:
            break
        for index in indices:
            leave(index, reason)
        turn_had_to_leave |= reason == OLDEST_TURN

    if turn_had_to_leave:
        target = int((1.0 - headroom) * limit) - needed
        n_turns = sum(not span.pinned for span in kept)
        first_turn = len(kept) - n_turns
        while size > target and n_turns > 1:
            leave(first_turn, HEADROOM)
            n_turns -= 1

    stays = {span.key for span in kept if span.pinned}
    return Plan(
        kept=tuple(kept),
        dropped=tuple(dropped),
        n_positions=size,
        left_out=frozenset(span.key for span in spans if span.pinned and span.key not in stays),
    )


def describe(
    left: Iterable[tuple[ContextSpan, str]], stay: Iterable[ContextSpan], names: Mapping[int, str]
) -> str:
    """One sentence on what has left the context for a line; empty if there is nothing to tell.

    Args:
        left: what each of its plans dropped.
        stay: what is still in the context.
        names: speaker -> voice name; a speaker without one is called by its number.
    """
    told = [(span, reason) for span, reason in left if not span.same_line]
    parts = [
        *_turns_that_left(told, stay),
        *_voices(told, UNUSED_VOICE, "the unused voice", "the unused voices", names),
        *_voices(told, EXTRA_CLIP, "further clips of", "further clips of", names),
        *_voices(told, NO_ROOM, "the reference of", "the references of", names),
    ]
    return f"Context is full: left out {_and(parts)}." if parts else ""


def _next_to_leave(
    kept: Sequence[ContextSpan], speakers: Collection[int], speaking: int | None
) -> tuple[list[int], str]:
    """Indices into `kept`, descending, and the reason; `kept` is not empty."""
    in_use = set(speakers) | {span.speaker for span in kept if not span.pinned}
    backwards = range(len(kept) - 1, -1, -1)
    for i in backwards:
        if kept[i].pinned and kept[i].speaker not in in_use:
            voice = kept[i].speaker
            return [j for j in backwards if kept[j].pinned and kept[j].speaker == voice], UNUSED_VOICE
    for i, span in enumerate(kept):
        if not span.pinned:
            return [i], OLDEST_TURN
    # Who speaks now comes last in both.
    by_turn = sorted(backwards, key=lambda i: kept[i].speaker == speaking)
    for i in by_turn:
        if any(span.speaker == kept[i].speaker for span in kept[:i]):
            return [i], EXTRA_CLIP
    return [by_turn[0]], NO_ROOM


def _check(spans: Sequence[ContextSpan], needed: int, least: int, limit: int, headroom: float) -> None:
    if min(needed, least, limit) < 0 or any(span.n_positions < 0 for span in spans):
        raise ValueError("positions cannot be negative")
    if least > needed:
        raise ValueError(f"the least room ({least}) is more than the room that is needed ({needed})")
    if not 0.0 <= headroom < 1.0:
        raise ValueError(f"headroom must be at least 0 and below 1, not {headroom}")
    if any(later.pinned and not earlier.pinned for earlier, later in pairwise(spans)):
        raise ValueError("references come before turns")


def _turns_that_left(told: Sequence[tuple[ContextSpan, str]], stay: Iterable[ContextSpan]) -> list[str]:
    left = {_turn(span) for span, reason in told if reason in (OLDEST_TURN, HEADROOM)}
    partly = left & {_turn(span) for span in stay if not span.pinned}
    n_whole = len(left) - len(partly)
    parts = []
    if n_whole:
        parts.append("the oldest turn" if n_whole == 1 else f"the {n_whole} oldest turns")
    if partly:
        parts.append("the beginning of the next one" if n_whole else "the beginning of the oldest turn")
    return parts


def _turn(span: ContextSpan) -> Hashable:
    return ("piece", span.turn) if span.turn is not None else ("whole", span.key)


def _voices(
    told: Sequence[tuple[ContextSpan, str]], reason: str, one: str, many: str, names: Mapping[int, str]
) -> list[str]:
    speakers = sorted({span.speaker for span, why in told if why == reason})
    if not speakers:
        return []
    words = [names.get(speaker) or f"speaker {speaker}" for speaker in speakers]
    return [f"{one if len(words) == 1 else many} {_and(words)}"]


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
