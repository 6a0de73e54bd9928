"""Word error rate of a model on sentences with numbers, as typed and written out in words.

    python -m tools.demo_voice.numbers [--model demo] [--seeds 1]

The sentences are those of `tests/text/normalise/sentences_with_numbers.txt`, which come with how a person
reads them. Each is spoken after the repository's first reference clip, once with `normalize="off"` and once
with `safe`, with the same seeds; pocketsphinx listens.
"""

from __future__ import annotations

import argparse

import soundfile
import torch

from csm_repl import Segment, load_csm_1b
from tests.support.paths import ROOT
from tools.demo_voice.recognise import recognise_all, word_errors

SENTENCES = ROOT / "tests" / "text" / "normalise" / "sentences_with_numbers.txt"
REFERENCE = ROOT / "references" / "reference-ada.wav"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2, help="of the recogniser")
    arguments = parser.parse_args()
    rows = [line.split("\t") for line in SENTENCES.read_text(encoding="utf-8").splitlines() if line]
    samples, _ = soundfile.read(REFERENCE, dtype="float32")
    context = [Segment(0, REFERENCE.with_suffix(".txt").read_text().strip(), samples)]
    generator = load_csm_1b(model=arguments.model, device="cpu")
    for how in ("off", "safe"):
        sounds: list[torch.Tensor] = []
        wanted = []
        for seed in range(arguments.seeds):
            for typed, spoken in rows:
                sounds.append(generator.generate(typed, 0, context, 15_000, seed=seed, normalize=how))
                wanted.append(spoken)
        heard = recognise_all(sounds, arguments.processes)
        counts = [word_errors(right, found) for right, found in zip(wanted, heard, strict=True)]
        wrong, total = (sum(column) for column in zip(*counts, strict=True))
        print(f"{how}: {wrong} of {total} words wrong, {100 * wrong / total:.1f} %", flush=True)


if __name__ == "__main__":
    main()
