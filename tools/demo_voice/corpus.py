"""Speaks the corpus with flite and Festival.

    python -m tools.demo_voice.corpus FOLDER [--sentences 24000] [--test 120] [--seed 0]

Writes `wav/NNNNN.wav` (24 kHz mono), `utterances.jsonl` (path, voice, text, seconds, phones with their ends
in seconds), and the same for the held-out sentences under `test/` and for those of `everyday_test.txt` under
`everyday/`, where each is spoken by one voice.
Needs flite, festival, festvox-us-slt-hts, and Debian's fortunes, bible-kjv and bible-kjv-text.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any

import soundfile
import torch

from csm_repl.audio import SAMPLE_RATE
from csm_repl.audio.samples import amplify, resample, speech_level
from csm_repl.voices.prepare import TARGET_DBFS
from tools.demo_voice.sentences import everyday_test, sentence_pool
from tools.demo_voice.teachers import Phones, Said, say
from tools.demo_voice.voices import VOICES, Voice

__all__ = ["speak"]

AT_A_TIME = 40
"""Sentences that a teacher says before the next chunk is taken."""
LEAD_S, TAIL_S = 0.06, 0.10
"""Silence that is left around an utterance; flite's own varies with the voice."""


def speak(
    texts: Sequence[tuple[str, float]], voice: Voice, paths: Sequence[Path]
) -> list[tuple[float, Phones]]:
    """Writes texts spoken by `voice` as 24 kHz 16-bit WAV; returns their seconds and their phones' ends.

    Args:
        texts: each with its tempo: above 1 is faster.
        paths: one for each.
    """
    slower = [(text, voice.size / tempo) for text, tempo in texts]
    said = say(voice.teacher, slower, paths[0].with_suffix(".raw"))
    return [_write(each, voice, path) for each, path in zip(said, paths, strict=True)]


def _write(said: Said, voice: Voice, path: Path) -> tuple[float, Phones]:
    sound, rate, phones = said
    x = resample(sound, round(rate * voice.size), SAMPLE_RATE)
    phones = [(name, end / voice.size) for name, end in phones]
    start_s = max(0.0, (phones[0][1] if phones[0][0] == "pau" else 0.0) - LEAD_S)
    last = phones[-2][1] if len(phones) > 1 and phones[-1][0] == "pau" else phones[-1][1]
    end_s = min(last + TAIL_S, len(x) / SAMPLE_RATE)
    x = x[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
    level = speech_level(x)
    assert level is not None, path
    x = amplify(x, TARGET_DBFS - level)
    soundfile.write(path, x.numpy(), SAMPLE_RATE, subtype="PCM_16")
    seconds = len(x) / SAMPLE_RATE
    return seconds, [(name, round(min(end - start_s, seconds), 3)) for name, end in phones]


def _make(folder: Path, texts: list[str], seed: int, *, vary: bool) -> None:
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    # Of the sentences to be scored every voice has as many.
    voices = [voice for voice in VOICES for _ in range(voice.share if vary else 1)]
    jobs: dict[str, list[tuple[int, str, float]]] = {voice.name: [] for voice in VOICES}
    for index, text in enumerate(texts):
        tempo = rng.uniform(0.92, 1.12) if vary else 1.0
        jobs[voices[index % len(voices)].name].append((index, text, tempo))
    chunks = [
        (voice, jobs[voice.name][at : at + AT_A_TIME])
        for voice in VOICES
        for at in range(0, len(jobs[voice.name]), AT_A_TIME)
    ]

    def run(chunk: tuple[Voice, list[tuple[int, str, float]]]) -> list[tuple[int, dict[str, Any]]]:
        voice, items = chunk
        paths = [folder / "wav" / f"{index:05d}.wav" for index, _, _ in items]
        spoken = speak([(text, tempo) for _, text, tempo in items], voice, paths)
        return [
            (
                index,
                {
                    "audio": f"wav/{path.name}",
                    "voice": voice.name,
                    "text": text,
                    "seconds": round(seconds, 3),
                    "phones": phones,
                },
            )
            for (index, text, _), path, (seconds, phones) in zip(items, paths, spoken, strict=True)
        ]

    with ThreadPoolExecutor(2) as pool:
        records = sorted((record for found in pool.map(run, chunks) for record in found), key=itemgetter(0))
    with (folder / "utterances.jsonl").open("w") as file:
        file.writelines(json.dumps(record) + "\n" for _, record in records)
    total_s = sum(record["seconds"] for _, record in records)
    print(f"{folder}: {len(records)} utterances, {total_s / 3600:.2f} h", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sentences", type=int, default=24_000)
    parser.add_argument("--test", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    test = sentence_pool(20 * arguments.test, arguments.seed, held_out=True)
    # Sentences of one or two words say little about intelligibility.
    test = [text for text in test if 5 <= len(text.split()) <= 12][: arguments.test]
    _make(arguments.folder / "test", test, arguments.seed, vary=False)
    _make(arguments.folder / "everyday", everyday_test(), arguments.seed, vary=False)
    train = sentence_pool(arguments.sentences, arguments.seed, held_out=False)
    _make(arguments.folder, train, arguments.seed, vary=True)


if __name__ == "__main__":
    main()
