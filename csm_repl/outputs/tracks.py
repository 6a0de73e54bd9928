"""One time-aligned file per speaker of a run: what that speaker said, and silence while others speak.

The sound is read from the takes again when the tracks are written, so that hours of it take no memory.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from csm_repl.audio import open_sink, read_audio
from csm_repl.errors import ClipError, OutputError
from csm_repl.outputs.takes import TakeFolder
from csm_repl.paths import is_plain_file

if TYPE_CHECKING:
    import torch

__all__ = ["Tracks"]

_BLOCK = 1 << 20
"""Samples of silence that are written at a time."""
_MOST_NAMES = 10


@dataclass(frozen=True)
class _Turn:
    file: Path
    speaker: int
    n_samples: int


class Tracks:
    """Collects the turns of a run in the order in which they are spoken.

    Args:
        rate: samples per second.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._turns: list[_Turn] = []
        self._voices: dict[int, str] = {}

    def add(self, file: Path, speaker: int, n_samples: int, voice: str = "") -> None:
        """Appends the turn in the WAV `file`. The last name of a speaker's voice names the track."""
        if n_samples:
            self._turns.append(_Turn(file, speaker, n_samples))
            self._voices[speaker] = voice or self._voices.get(speaker, "")

    def withdraw(self, files: Collection[Path]) -> None:
        """Takes these turns out, and the time that they took."""
        self._turns = [turn for turn in self._turns if turn.file not in files]

    def write(self, takes: TakeFolder) -> Iterator[Path]:
        """Writes a file per speaker, all equally long, beside the takes; none if nobody spoke.

        Yields:
            Each as soon as it is there.

        Raises:
            OutputError: one could not be written; or, when all are there, takes had been removed or changed
                during the run, and there is silence in their place.
        """
        if self._turns and not any(is_plain_file(turn.file) for turn in self._turns):
            raise OutputError(
                f"There are no tracks: the takes are not in {self._turns[0].file.parent} any more.",
                "Leave them there until the run is over.",
            )
        lost: list[Path] = []
        for speaker in sorted({turn.speaker for turn in self._turns}):
            yield self._write(speaker, takes, lost)
        if lost:
            names = ", ".join(file.name for file in lost[:_MOST_NAMES])
            more = f" and {len(lost) - _MOST_NAMES} more" if len(lost) > _MOST_NAMES else ""
            raise OutputError(
                f"The tracks are silent in place of {names}{more}, which cannot be read any more.",
                "Leave takes where they are, and as they are, until the run is over.",
            )

    def _write(self, speaker: int, takes: TakeFolder, lost: list[Path]) -> Path:
        path = takes.track_path(speaker, self._voices[speaker])
        sink = open_sink(str(path), raw=False, rate=self._rate, replace=False)
        # As a `with` block the sink would keep what it has at Ctrl-C, a track shorter than the others.
        try:
            for block in self._blocks(speaker, lost):
                sink.write(block)
        except BaseException:
            sink.abort()
            raise
        sink.close()
        return path

    def _blocks(self, speaker: int, lost: list[Path]) -> Iterator[torch.Tensor]:
        """Float32 [N]; adds to `lost` the files that are not what they were."""
        import torch

        for turn in self._turns:
            if turn.speaker == speaker:
                samples = self._read(turn)
                if samples is not None:
                    yield samples
                    continue
                lost.append(turn.file)
            for start in range(0, turn.n_samples, _BLOCK):
                yield torch.zeros(min(_BLOCK, turn.n_samples - start))

    def _read(self, turn: _Turn) -> torch.Tensor | None:
        try:
            samples, rate = read_audio(turn.file)
        except ClipError:
            return None
        is_as_written = rate == self._rate and samples.shape == (1, turn.n_samples)
        return samples[0] if is_as_written else None
