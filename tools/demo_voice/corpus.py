"""Speaks the corpus with flite and Festival.

    python -m tools.demo_voice.corpus FOLDER [--sentences 24000] [--test 120] [--seed 0]

Writes `wav/NNNNN.wav` (24 kHz mono), `utterances.jsonl` (path, voice, text, seconds, phones with their ends
in seconds), and the same for the held-out sentences under `test/`, where each is spoken by one voice.
Needs flite, festival, festvox-us-slt-hts, and Debian's fortunes, bible-kjv and bible-kjv-text.
"""

from __future__ import annotations

import argparse
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import soundfile
import torch

from csm_repl.audio import SAMPLE_RATE
from csm_repl.audio.samples import amplify, resample, speech_level
from csm_repl.voices.prepare import TARGET_DBFS
from tools.demo_voice.sentences import sentence_pool
from tools.demo_voice.teachers import Phones, say
from tools.demo_voice.voices import VOICES, Voice

__all__ = ["speak"]

LEAD_S, TAIL_S = 0.06, 0.10
"""Silence that is left around an utterance; flite's own varies with the voice."""


def speak(text: str, voice: Voice, path: Path, *, tempo: float = 1.0) -> tuple[float, Phones]:
    """Writes `text` spoken by `voice` as 24 kHz 16-bit WAV; returns its seconds and its phones' ends.

    Args:
        tempo: above 1 is faster.
    """
    sound, rate, phones = say(voice.teacher, text, path.with_suffix(".raw.wav"), stretch=voice.size / tempo)
    x = resample(sound, round(rate * voice.size), SAMPLE_RATE)
    phones = [(name, end / voice.size) for name, end in phones]
    start_s = max(0.0, (phones[0][1] if phones[0][0] == "pau" else 0.0) - LEAD_S)
    last = phones[-2][1] if len(phones) > 1 and phones[-1][0] == "pau" else phones[-1][1]
    end_s = min(last + TAIL_S, len(x) / SAMPLE_RATE)
    x = x[round(start_s * SAMPLE_RATE) : round(end_s * SAMPLE_RATE)]
    level = speech_level(x)
    assert level is not None, text
    x = amplify(x, TARGET_DBFS - level)
    soundfile.write(path, x.numpy(), SAMPLE_RATE, subtype="PCM_16")
    seconds = len(x) / SAMPLE_RATE
    return seconds, [(name, round(min(end - start_s, seconds), 3)) for name, end in phones]


def _make(folder: Path, texts: list[str], seed: int, *, vary: bool) -> None:
    (folder / "wav").mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    # Of the held-out sentences every voice has as many.
    voices = [voice for voice in VOICES for _ in range(voice.share if vary else 1)]
    jobs = [
        (index, text, voices[index % len(voices)], rng.uniform(0.92, 1.12) if vary else 1.0)
        for index, text in enumerate(texts)
    ]

    def run(job: tuple[int, str, Voice, float]) -> dict[str, Any]:
        index, text, voice, tempo = job
        path = folder / "wav" / f"{index:05d}.wav"
        seconds, phones = speak(text, voice, path, tempo=tempo)
        return {
            "audio": f"wav/{path.name}", "voice": voice.name, "text": text, "seconds": round(seconds, 3),
            "phones": phones,
        }  # fmt: skip

    total_s = 0.0
    with ThreadPoolExecutor(2) as pool, (folder / "utterances.jsonl").open("w") as file:
        for record in pool.map(run, jobs):
            file.write(json.dumps(record) + "\n")
            total_s += record["seconds"]
    print(f"{folder}: {len(jobs)} utterances, {total_s / 3600:.2f} h")


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
    train = sentence_pool(arguments.sentences, arguments.seed, held_out=False)
    _make(arguments.folder, train, arguments.seed, vary=True)


if __name__ == "__main__":
    main()
