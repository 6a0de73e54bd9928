"""Word error rate by pocketsphinx with its own US English model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import torch

from csm_repl.audio import SAMPLE_RATE
from csm_repl.audio.samples import resample, to_pcm16

__all__ = ["recognise", "recognise_all", "word_errors"]

_SPHINX_RATE = 16_000
_decoder = None


def recognise(x: torch.Tensor) -> str:
    """Samples [N] at 24 kHz -> what pocketsphinx understood."""
    global _decoder
    if _decoder is None:
        from pocketsphinx import Decoder

        _decoder = Decoder(samprate=_SPHINX_RATE, loglevel="FATAL")
    silence = torch.zeros(_SPHINX_RATE // 5)
    sound = torch.cat([silence, resample(x, SAMPLE_RATE, _SPHINX_RATE), silence])
    _decoder.start_utt()
    _decoder.process_raw(to_pcm16(sound), full_utt=True)
    _decoder.end_utt()
    hypothesis = _decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


def recognise_all(sounds: Sequence[torch.Tensor], processes: int = 2) -> list[str]:
    """`recognise` for each; spread over processes."""
    if processes == 1:
        return [recognise(x) for x in sounds]
    with ProcessPoolExecutor(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(recognise, sounds, chunksize=4))


def _words(text: str) -> list[str]:
    return re.sub(r"[^a-z' ]", " ", text.lower()).replace("'", "").split()


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Substitutions, insertions and deletions of the cheapest alignment, and the reference's words."""
    expected, heard = _words(reference), _words(hypothesis)
    row = list(range(len(heard) + 1))
    for i, word in enumerate(expected, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1], len(expected)
