"""Which items are held out, and which single utterances make up a conversation. The seed decides both."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from csm_repl.train.data.items import EncodedTurn, Item

__all__ = ["group_turns", "split_held_out"]


def split_held_out(items: Sequence[Item], share: float, seed: int) -> tuple[list[Item], list[Item]]:
    """Items to train on and items held out, both in their order.

    Every item decides for itself, by its name, its words and the seed: more data never move an item from
    one side to the other. Two exceptions: at least one item is held out (if there are two, and `share` is
    not 0), and a speaker's only item is not, so that no voice is lost.
    """
    if share <= 0 or len(items) < 2:
        return list(items), []
    draws = [_draw(item, seed) for item in items]
    left = Counter(speaker for item in items for speaker in _speakers(item))
    held_out: set[int] = set()
    for index in sorted(range(len(items)), key=draws.__getitem__):
        if draws[index] >= share and held_out:
            break
        speakers = _speakers(items[index])
        if all(left[speaker] > 1 for speaker in speakers):
            held_out.add(index)
            left.subtract(speakers)
    if not held_out:
        # Each speaker has one item only.
        held_out.add(min(range(len(items)), key=draws.__getitem__))
    train = [item for index, item in enumerate(items) if index not in held_out]
    return train, [item for index, item in enumerate(items) if index in held_out]


def group_turns(
    items: Iterable[Item],
    *,
    n_turns: int,
    n_voices: int,
    seed: int,
    n_positions: Callable[[EncodedTurn], int],
    max_positions: int,
    renumber: bool = False,
) -> list[Item]:
    """Single utterances as conversations; items that are conversations stay as they are, and come first.

    Every utterance is used once. A conversation is shorter than `n_turns` where the utterances run out,
    or where it would take more than `max_positions`.

    Args:
        items: single utterances and conversations.
        n_turns: turns of a conversation.
        n_voices: speakers of a conversation at most; in random order.
        seed: the same items and seed give the same conversations.
        n_positions: how many positions a turn takes.
        max_positions: of a conversation.
        renumber: speakers become 0, 1, ... in each conversation, at random.
    """
    grouped: list[Item] = []
    pools: dict[int, list[Item]] = {}
    for item in items:
        if len(item.turns) == 1:
            pools.setdefault(item.turns[0].speaker, []).append(item)
        else:
            grouped.append(item)
    chance = random.Random(seed)
    for speaker in sorted(pools):
        chance.shuffle(pools[speaker])
    while pools:
        voices = _some_voices(pools, n_voices, chance)
        numbers = dict(zip(voices, chance.sample(range(n_voices), len(voices)), strict=True))
        taken: list[Item] = []
        room = max_positions
        while len(taken) < n_turns:
            speaking = [voice for voice in voices if pools.get(voice)]
            if not speaking:
                break
            voice = chance.choice(speaking)
            needed = n_positions(pools[voice][-1].turns[0])
            if taken and needed > room:
                break
            room -= needed
            taken.append(pools[voice].pop())
            if not pools[voice]:
                del pools[voice]
        turns = [item.turns[0] for item in taken]
        if renumber:
            turns = [
                EncodedTurn(numbers[turn.speaker], turn.text, turn.codes, turn.in_loss) for turn in turns
            ]
        grouped.append(Item(" + ".join(item.name for item in taken), tuple(turns)))
    return grouped


def _some_voices(pools: dict[int, list[Item]], n_voices: int, chance: random.Random) -> list[int]:
    """Different speakers, the likelier the more they have left, so none is left over alone at the end."""
    left = {speaker: len(pool) for speaker, pool in sorted(pools.items())}
    chosen: list[int] = []
    while left and len(chosen) < n_voices:
        [voice] = chance.choices(list(left), list(left.values()))
        chosen.append(voice)
        del left[voice]
    return chosen


def _speakers(item: Item) -> set[int]:
    return {turn.speaker for turn in item.turns if turn.in_loss}


def _draw(item: Item, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but the item's name and words and the seed."""
    text = json.dumps([seed, item.name, *(turn.text for turn in item.turns)])
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
