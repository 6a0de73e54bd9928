"""What stands in for the codec and for Whisper in the folder's tests, and clips for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch

from csm_repl.voices import Change, VoiceFolder

Open = Callable[..., VoiceFolder]
RATE = 24_000


class Codec:
    """Counts what it encodes. One frame is 1920 samples; the codes tell clips apart."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        assert samples.dtype == torch.float32
        self.calls += 1
        return torch.full((4, -(-samples.shape[0] // 1_920)), samples.shape[0] % 2_000)


class Listener:
    """A transcriber that hears the clip's length; `words` overrides."""

    name = "fake"
    listens = True

    def __init__(self, words: str | Exception | None = None) -> None:
        self.words = words
        self.calls = 0
        self.closed = 0

    def transcribe(self, samples: torch.Tensor, rate: int) -> str:
        self.calls += 1
        if isinstance(self.words, Exception):
            raise self.words
        return f"I am {samples.shape[0] / rate:.1f} seconds." if self.words is None else self.words

    def close(self) -> None:
        self.closed += 1


def record(path: Path, seconds: float = 1.0, text: str | None = "Hello.", rate: int = RATE) -> Path:
    """A clip of noise, with its transcript unless `text` is None."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate))
    soundfile.write(path, noise, rate)
    if text is not None:
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def messages(changes: list[Change]) -> list[tuple[str, str]]:
    return [(change.kind, change.message) for change in changes]


def the_problem(folder: VoiceFolder, changes: list[Change]) -> str:
    """The one unusable clip's sentences, which must have been told as well."""
    (unusable,) = folder.unusable
    assert [change.kind for change in changes] == ["unusable"]
    assert changes[0].message == f"{unusable.path.name} cannot be used. {unusable.cause} {unusable.remedy}"
    assert unusable.cause.endswith(".")
    assert unusable.remedy.endswith(".")
    return f"{unusable.cause} {unusable.remedy}"
