"""One time-aligned file per speaker of a run: what that speaker said, and silence while others speak.

Holds a run's samples once, as 16 bit (2.9 MB a minute), whatever the number of speakers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from csm_repl.audio import open_sink, to_pcm16
from csm_repl.outputs.takes import TakeFolder

if TYPE_CHECKING:
    import torch

__all__ = ["Tracks"]

_BLOCK = 1 << 20
_BYTES_PER_SAMPLE = 2


class Tracks:
    """Collects the turns of a run in the order in which they are spoken.

    Args:
        rate: samples per second.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._chunks: list[tuple[Path, int, bytes]] = []
        self._voices: dict[int, str] = {}

    def add(self, file: Path, speaker: int, samples: torch.Tensor, voice: str = "") -> None:
        """Appends the turn in `file`: float32 [N]. The last name of a speaker's voice names the track."""
        self._chunks.append((file, speaker, to_pcm16(samples)))
        self._voices[speaker] = voice or self._voices.get(speaker, "")

    def withdraw(self, files: Collection[Path]) -> None:
        """Takes these turns out, and the time that they took."""
        self._chunks = [chunk for chunk in self._chunks if chunk[0] not in files]

    def write(self, takes: TakeFolder) -> list[Path]:
        """Writes a file per speaker, all equally long, beside the takes; none if nobody spoke.

        Raises:
            OutputError: a file could not be written; the ones before it are there.
        """
        if not any(pcm for *_, pcm in self._chunks):
            return []
        return [
            self._write(speaker, takes) for speaker in sorted({speaker for _, speaker, _ in self._chunks})
        ]

    def _write(self, speaker: int, takes: TakeFolder) -> Path:
        path = takes.track_path(speaker, self._voices[speaker])
        sink = open_sink(str(path), raw=False, rate=self._rate, replace=False)
        # As a `with` block the sink would keep what it has at Ctrl-C, a track shorter than the others.
        try:
            for block in self._blocks(speaker):
                sink.write(block)
        except BaseException:
            sink.abort()
            raise
        sink.close()
        return path

    def _blocks(self, speaker: int) -> Iterator[torch.Tensor]:
        """Float32 [N], at most `_BLOCK` samples each."""
        import numpy as np
        import torch

        for _, spoken_by, pcm in self._chunks:
            for start in range(0, len(pcm), _BLOCK * _BYTES_PER_SAMPLE):
                block = pcm[start : start + _BLOCK * _BYTES_PER_SAMPLE]
                if spoken_by == speaker:
                    yield torch.from_numpy(np.frombuffer(block, "<i2").astype(np.float32) / 32768)
                else:
                    yield torch.zeros(len(block) // _BYTES_PER_SAMPLE)
