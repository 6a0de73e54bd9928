"""The synthesisers that the built-in voice learns from: flite's voices, and Festival's HTS voices.

Debian's packages `flite`, `festival` and `festvox-us-slt-hts`. Both say where each phone ends, in one set of
names (CMU's, in small letters; `pau` is silence).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import soundfile
import torch

__all__ = ["Phones", "Said", "say"]

Phones = list[tuple[str, float]]
"""Each with its end in seconds."""
Said = tuple[torch.Tensor, int, Phones]
"""Samples float32 [N], their rate, and the phones."""

_VOICE = "(voice_{name})\n"
_UTTERANCE = """(let ((utt (utt.synth (Utterance Text {text}))))
  (utt.save.segs utt {phones})
  (utt.save.wave utt {sound} 'riff))
"""


def say(teacher: str, texts: Sequence[tuple[str, float]], scratch: Path) -> list[Said]:
    """Sentences as a teacher says them.

    Args:
        teacher: `flite/NAME` or `festival/NAME`.
        texts: letters and usual punctuation, each with how much slower than usual it is said; Festival's
            voices take no notice of that.
        scratch: the beginning of the names of files that are written and removed.
    """
    program, _, name = teacher.partition("/")
    paths = [scratch.with_name(f"{scratch.name}-{number}.wav") for number in range(len(texts))]
    try:
        if program == "flite":
            phones = [_flite(name, *each, path) for each, path in zip(texts, paths, strict=True)]
        else:
            phones = _festival(name, [text for text, _ in texts], paths)
        sounds = [soundfile.read(path, dtype="float32") for path in paths]
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
    return [(torch.from_numpy(sound), rate, each) for (sound, rate), each in zip(sounds, phones, strict=True)]


def _flite(name: str, text: str, stretch: float, path: Path) -> Phones:
    options = ["-voice", name, "--setf", f"duration_stretch={stretch:.3f}", "-psdur", "-o", str(path)]
    output = subprocess.run(
        ["flite", *options, "-t", text], capture_output=True, text=True, check=True
    ).stdout
    return [(phone, float(end)) for phone, end in (word.rsplit(":", 1) for word in output.split())]


def _festival(name: str, texts: Sequence[str], paths: Sequence[Path]) -> list[Phones]:
    # It takes longer to start than to say a sentence. A string of Scheme is one of JSON.
    program = _VOICE.format(name=name)
    for text, path in zip(texts, paths, strict=True):
        names = {"phones": str(path.with_suffix(".seg")), "sound": str(path), "text": text}
        program += _UTTERANCE.format(**{key: json.dumps(value) for key, value in names.items()})
    segments = [path.with_suffix(".seg") for path in paths]
    try:
        subprocess.run(["festival", "--pipe"], input=program, capture_output=True, text=True, check=True)
        return [_segments(path) for path in segments]
    finally:
        for path in segments:
            path.unlink(missing_ok=True)


def _segments(path: Path) -> Phones:
    rows = [line.split() for line in path.read_text().splitlines()]
    return [(row[2], float(row[0])) for row in rows if len(row) == 3]
