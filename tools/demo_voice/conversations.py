"""Puts the corpus's utterances together to what the model is trained on.

    python -m tools.demo_voice.conversations CORPUS [--seed 0]

Writes two manifests for `csm-repl train` beside the utterances: `singles.jsonl`, each utterance alone, on
which reading is learnt first; and `conversations.jsonl`, where each utterance occurs once, in a conversation
of one to three voices. Speaker numbers are drawn anew for every conversation, so a number means nothing but
"who spoke under it before"; and who speaks next is drawn too, so nothing but the number tells.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

N_SPEAKERS = 10
MAX_SECONDS = 20.0
"""Of one conversation."""
N_VOICES = (1, 1, 1, 2, 2, 2, 2, 2, 2, 3)
MAX_RETURNS = 3
"""Turns after everyone's first one."""
Utterance = dict[str, Any]


def turn(utterance: Utterance, speaker: int) -> dict[str, Any]:
    return {"audio": utterance["audio"], "text": utterance["text"], "speaker": speaker}


def single_items(utterances: list[Utterance], rng: random.Random) -> list[dict[str, Any]]:
    return [{"turns": [turn(utterance, rng.randrange(N_SPEAKERS))]} for utterance in utterances]


def conversation_items(utterances: list[Utterance], rng: random.Random) -> list[dict[str, Any]]:
    by_voice: dict[str, list[Utterance]] = {}
    for utterance in rng.sample(utterances, len(utterances)):
        by_voice.setdefault(utterance["voice"], []).append(utterance)
    items = []
    while by_voice:
        n_voices = min(rng.choice(N_VOICES), len(by_voice))
        voices = rng.sample(sorted(by_voice), n_voices)
        speakers = rng.sample(range(N_SPEAKERS), n_voices)
        n_returns = rng.randint(0 if n_voices == 1 else 1, MAX_RETURNS)
        turns: list[dict[str, Any]] = []
        seconds = 0.0
        for which in [*range(n_voices), *rng.choices(range(n_voices), k=n_returns)]:
            waiting = by_voice.get(voices[which])
            if not waiting or seconds + waiting[-1]["seconds"] > MAX_SECONDS:
                break
            utterance = waiting.pop()
            seconds += utterance["seconds"]
            turns.append(turn(utterance, speakers[which]))
        by_voice = {voice: waiting for voice, waiting in by_voice.items() if waiting}
        if turns:
            items.append({"turns": turns})
    return items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lines = (arguments.corpus / "utterances.jsonl").read_text().splitlines()
    utterances = [json.loads(line) for line in lines]
    for name, make in (("singles", single_items), ("conversations", conversation_items)):
        items = make(utterances, random.Random(arguments.seed))
        path = arguments.corpus / f"{name}.jsonl"
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
        print(f"{path}: {len(items)} items, {sum(len(item['turns']) for item in items)} utterances")


if __name__ == "__main__":
    main()
