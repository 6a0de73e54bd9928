"""The synthesisers that the built-in voice learns from: flite's voices, and Festival's HTS voices.

Debian's packages `flite`, `festival` and `festvox-us-slt-hts`. Both say where each phone ends, in one set of
names (CMU's, in small letters; `pau` is silence).
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import soundfile
import torch

__all__ = ["Phones", "say"]

Phones = list[tuple[str, float]]
"""Each with its end in seconds."""

_FESTIVAL = """
(voice_{name})
(let ((utt (utt.synth (Utterance Text {text}))))
  (utt.save.segs utt {phones})
  (utt.save.wave utt {sound} 'riff))
"""


def say(teacher: str, text: str, scratch: Path, *, stretch: float = 1.0) -> tuple[torch.Tensor, int, Phones]:
    """A sentence as the teacher says it: samples float32 [N], their rate, and the phones.

    Args:
        teacher: `flite/NAME` or `festival/NAME`.
        text: letters and usual punctuation.
        scratch: a file to be written and removed.
        stretch: how much slower than usual; Festival's voices take no notice.
    """
    program, _, name = teacher.partition("/")
    try:
        phones = (_flite if program == "flite" else _festival)(name, text, scratch, stretch)
        sound, rate = soundfile.read(scratch, dtype="float32")
    finally:
        scratch.unlink(missing_ok=True)
    return torch.from_numpy(sound), rate, phones


def _flite(name: str, text: str, path: Path, stretch: float) -> Phones:
    options = ["-voice", name, "--setf", f"duration_stretch={stretch:.3f}", "-psdur", "-o", str(path)]
    output = subprocess.run(
        ["flite", *options, "-t", text], capture_output=True, text=True, check=True
    ).stdout
    return [(phone, float(end)) for phone, end in (word.rsplit(":", 1) for word in output.split())]


def _festival(name: str, text: str, path: Path, _: float) -> Phones:
    # A string of Scheme is one of JSON.
    segments = path.with_suffix(".seg")
    program = _FESTIVAL.format(
        name=name, text=json.dumps(text), phones=json.dumps(str(segments)), sound=json.dumps(str(path))
    )
    subprocess.run(["festival", "--pipe"], input=program, capture_output=True, text=True, check=True)
    try:
        rows = [line.split() for line in segments.read_text().splitlines()]
    finally:
        segments.unlink(missing_ok=True)
    return [(row[2], float(row[0])) for row in rows if len(row) == 3]
