"""What a model makes of its context: how well it knows a held-out sentence's sound by who was heard before.

    python -m tools.demo_voice.context MODEL CODEC CORPUS [--sentences 60]

Printed is the mean cross entropy (nats) of codebooks 1..K-1, which tell the voice where codebook 0 tells the
phones. *hears itself*: of all frames; *first frame*: of the first one, which has only the context to go by;
*hears codebook 0*: of all frames when the model hears nothing else of its own take, so that all it knows of
the voice comes from the context. A model that heeds speaker numbers is better with the right number than with
the wrong one; a model that heeds its context is better after its own voice than after another.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from csm_repl.engine import spoken_text
from tools.demo_voice.redraw import Heard, Speaker
from tools.demo_voice.score import Utterance, another_voice, read_corpus, references_of, sound

SAYS, OTHER = 3, 7
CONTEXTS = {
    "own voice": [("own", SAYS)],
    "another voice": [("another", SAYS)],
    "own, then another": [("own", SAYS), ("another", OTHER)],
    "another, then own": [("another", OTHER), ("own", SAYS)],
    "own under the other's number, then another under its own": [("own", OTHER), ("another", SAYS)],
    "another under its own number, then own under the other's": [("another", SAYS), ("own", OTHER)],
}
"""Who is heard, under which number, before number 3 speaks."""
COLUMNS = ("hears itself", "first frame", "hears codebook 0")


@torch.inference_mode()
def measure(
    speaker: Speaker, tests: list[Utterance], references: dict[str, Utterance]
) -> dict[str, list[float]]:
    """Of each context the three columns."""
    heard = {voice: speaker.codec.encode(sound(clip)) for voice, clip in references.items()}
    names = sorted(references)

    def turn(voice: str, number: int) -> Heard:
        return speaker.tokenizer.encode(spoken_text(number, references[voice]["text"])), heard[voice]

    sums = {name: [0.0] * len(COLUMNS) for name in CONTEXTS}
    for test in tests:
        voices = {"own": test["voice"], "another": another_voice(names, test["voice"])}
        codes = speaker.codec.encode(sound(test))
        ids = speaker.tokenizer.encode(spoken_text(SAYS, test["text"]))
        for name, turns in CONTEXTS.items():
            context = [turn(voices[who], number) for who, number in turns]
            plain, blind = (
                _cross_entropies(speaker, context, ids, codes, hears_itself=hears_itself)
                for hears_itself in (True, False)
            )
            for column, value in enumerate((plain.mean(), plain[0], blind.mean())):
                sums[name][column] += float(value) / len(tests)
    return sums


def _cross_entropies(
    speaker: Speaker, context: list[Heard], ids: Sequence[int], codes: torch.Tensor, *, hears_itself: bool
) -> torch.Tensor:
    """Of each frame the mean over the codebooks, [T]."""
    states = speaker.states_before_frames(context, ids, codes, hears_itself=hears_itself)
    logits = speaker.network.depth_logits(states, codes.T)
    return F.cross_entropy(logits.transpose(1, 2), codes.T[:, 1:], reduction="none").mean(dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--sentences", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    speaker = Speaker(arguments.model, arguments.codec, temperature=1.0)
    tests = read_corpus(arguments.corpus / "test", arguments.sentences)
    found = measure(speaker, tests, references_of(read_corpus(arguments.corpus, 3000)))
    print("  ".join(COLUMNS))
    for name, values in found.items():
        print(
            "  ".join(f"{value:{len(column)}.3f}" for column, value in zip(COLUMNS, values, strict=True)),
            name,
        )


if __name__ == "__main__":
    main()
