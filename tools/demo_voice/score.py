"""Scores a model on the held-out sentences of the corpus, or on everyday ones that no corpus has.

    python -m tools.demo_voice.score MODEL CORPUS [--set everyday] [--sentences 100] [--temperature 0.9]
                                     [--top-k 50] [--quantize int8] [--own-voice] [--codec-only] [--json FILE]

Every sentence is spoken after one reference clip of the voice that the synthesiser used for it; once more
after a clip of another voice; and once more after both, under two speaker numbers (only the first with
--own-voice). Reported: word error rate by pocketsphinx for
(a) the synthesiser's own sound, (b) that sound through the codec, (c) the model; takes that end by themselves
within 0.6-1.6 times the synthesiser's length; takes whose nearest voice is the reference's (see
similarity.py); speed.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import soundfile
import torch

from csm_repl import Segment, load_csm_1b
from csm_repl.api import Generator
from tools.demo_voice.recognise import recognise_all, word_errors
from tools.demo_voice.similarity import VoiceMeasure

CENTRE_CLIPS = 25
REFERENCE_S = (2.5, 6.0)
LENGTH_RANGE = (0.6, 1.6)
GUARD = 2.5
"""A take is stopped at this many times the synthesiser's length."""
Utterance = dict[str, Any]


def read_corpus(folder: Path, limit: int | None = None) -> list[Utterance]:
    lines = (folder / "utterances.jsonl").read_text().splitlines()[:limit]
    return [{**json.loads(line), "folder": folder} for line in lines]


def by_voice(utterances: list[Utterance]) -> dict[str, list[Utterance]]:
    found: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        found.setdefault(utterance["voice"], []).append(utterance)
    return found


def references_of(utterances: list[Utterance]) -> dict[str, Utterance]:
    """Of each voice the first clip of a reference's length."""
    low, high = REFERENCE_S
    return {
        voice: next(u for u in clips if low <= u["seconds"] <= high)
        for voice, clips in by_voice(utterances).items()
    }


def another_voice(names: list[str], voice: str) -> str:
    """Of the sorted names the one four further on: another flite voice, in another size."""
    return names[(names.index(voice) + 4) % len(names)]


def sound(utterance: Utterance) -> torch.Tensor:
    samples, _ = soundfile.read(utterance["folder"] / utterance["audio"], dtype="float32")
    return torch.from_numpy(samples)


def error_rate(texts: list[str], sounds: list[torch.Tensor], processes: int) -> float:
    counts = [
        word_errors(text, heard) for text, heard in zip(texts, recognise_all(sounds, processes), strict=True)
    ]
    return sum(wrong for wrong, _ in counts) / sum(words for _, words in counts)


class Scorer:
    def __init__(
        self, generator: Generator, corpus: Path, which: str, n_sentences: int, processes: int
    ) -> None:
        self.generator, self.processes = generator, processes
        self.tests = read_corpus(corpus / which, n_sentences)
        spoken = read_corpus(corpus, 3000)
        self.references = references_of(spoken)
        self.measure = VoiceMeasure(
            {
                voice: [sound(u) for u in utterances if u["seconds"] > 1.8][:CENTRE_CLIPS]
                for voice, utterances in by_voice(spoken).items()
            }
        )

    def codec(self) -> dict[str, float]:
        texts = [u["text"] for u in self.tests]
        originals = [sound(u) for u in self.tests]
        codec = self.generator.codec
        decoded = [codec.decode(codec.encode(x)) for x in originals]
        voices = [u["voice"] for u in self.tests]
        return {
            "a: word error rate, synthesiser": error_rate(texts, originals, self.processes),
            "b: word error rate, through the codec": error_rate(texts, decoded, self.processes),
            "a: voice recognised": self._hits(originals, voices),
            "b: voice recognised": self._hits(decoded, voices),
        }

    def model(self, temperature: float, top_k: int, *, own_only: bool) -> dict[str, float]:
        texts = [u["text"] for u in self.tests]
        own = [u["voice"] for u in self.tests]
        names = sorted(self.references)
        other = [another_voice(names, voice) for voice in own]
        kinds = {"": (own, [[voice] for voice in own])}
        if not own_only:
            kinds[", reference swapped"] = (other, [[voice] for voice in other])
            # The other one speaks under another number, sometimes before and sometimes after.
            pairs = [list(pair) for pair in zip(own, other, strict=True)]
            kinds[", two references"] = (own, [pair[:: (1, -1)[n % 2]] for n, pair in enumerate(pairs)])
        scores: dict[str, float] = {}
        for label, (voices, heard) in kinds.items():
            takes, ended, elapsed_s = self._speak(voices, heard, temperature, top_k)
            seconds = [len(take) / self.generator.sample_rate for take in takes]
            low, high = LENGTH_RANGE
            in_range = [
                end and low <= length / u["seconds"] <= high
                for end, length, u in zip(ended, seconds, self.tests, strict=True)
            ]
            scores[f"c: word error rate, model{label}"] = error_rate(texts, takes, self.processes)
            scores[f"takes of 0.6-1.6 times the length that end{label}"] = sum(in_range) / len(takes)
            scores[f"takes that end{label}"] = sum(ended) / len(takes)
            scores[f"voice recognised{label}"] = self._hits(takes, voices)
            if len(heard[0]) == 2:
                scores[f"voice nearer to the own reference{label}"] = self._nearer(takes, own, other)
            scores[f"real-time factor{label}"] = elapsed_s / sum(seconds)
        return scores

    def _hits(self, sounds: list[torch.Tensor], voices: list[str]) -> float:
        hits = [self.measure.nearest(x) == voice for x, voice in zip(sounds, voices, strict=True)]
        return sum(hits) / len(hits)

    def _nearer(self, sounds: list[torch.Tensor], own: list[str], other: list[str]) -> float:
        distances = [self.measure.distances(x) for x in sounds]
        return sum(d[a] < d[b] for d, a, b in zip(distances, own, other, strict=True)) / len(sounds)

    def _speak(
        self, voices: list[str], heard: list[list[str]], temperature: float, top_k: int
    ) -> tuple[list[torch.Tensor], list[bool], float]:
        """Takes of all sentences, whether each ended by itself, and the seconds they took.

        Args:
            voices: whose number says each sentence.
            heard: the voices whose references are heard before, each under a number of its own.
            temperature: of the draws.
            top_k: of the draws.
        """
        takes, ended, started = [], [], time.perf_counter()
        for number, utterance in enumerate(self.tests):
            speakers = {voice: (number + 3 * (voice != voices[number])) % 10 for voice in heard[number]}
            context = [
                Segment(speaker, self.references[voice]["text"], sound(self.references[voice]))
                for voice, speaker in speakers.items()
            ]
            guard_ms = GUARD * utterance["seconds"] * 1000
            take = self.generator.generate(
                utterance["text"], number % 10, context, guard_ms, temperature, top_k, seed=number
            )
            n_guard = int(guard_ms / 1000 * self.generator.sample_rate)
            ended.append(len(take) < n_guard - 2 * 1920)
            takes.append(take if len(take) > 1920 else torch.zeros(2400))
        return takes, ended, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--set", default="test", choices=("test", "everyday"), help="which sentences")
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=0.9)
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--quantize", default="none", help="none, int8 or int4")
    parser.add_argument("--own-voice", action="store_true", help="after the own voice's clip only")
    parser.add_argument("--codec-only", action="store_true")
    parser.add_argument("--processes", type=int, default=2, help="of the recogniser")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    generator = load_csm_1b(
        device="cpu", dtype="float32", quantize=arguments.quantize, model=str(arguments.model)
    )
    scorer = Scorer(generator, arguments.corpus, arguments.set, arguments.sentences, arguments.processes)
    scores: dict[str, float] = {}
    if not arguments.codec_only:
        scores |= scorer.model(arguments.temperature, arguments.top_k, own_only=arguments.own_voice)
    if not arguments.own_voice:
        scores |= scorer.codec()
    for name, value in scores.items():
        print(f"{value:7.3f}  {name}")
    if arguments.json:
        arguments.json.write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
