"""Where a run's events go, and that what fails at its end costs nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from csm_repl.audio import write_audio
from csm_repl.audio.player import Player, Pull
from csm_repl.errors import OutputError
from csm_repl.events import Audio, LineDone, PlayFile
from csm_repl.front.pipe.listener import Listener
from csm_repl.front.printers import PlainPrinter


def test_tracks_that_fail_are_an_error_after_those_that_are_there() -> None:
    results, said = io.StringIO(), io.StringIO()
    listener = Listener(PlainPrinter(results, said), None, None)

    def tracks() -> Iterator[Path]:
        yield Path("track-0.wav")
        raise OutputError("The disk is full.", "Free some space.")

    listener.finish(tracks(), interrupted=False)
    assert results.getvalue() == "track-0.wav\n"
    assert said.getvalue().count("The disk is full. Free some space.") == 1
    assert listener.failed


class _Card:
    """A sound card that can be pulled out."""

    name = "fake card"
    latency_s = 0.0
    there = True

    def __init__(self, rate: int, pull: Pull) -> None:
        pass

    def runs(self) -> bool:
        return self.there

    def close(self) -> None:
        pass


@pytest.mark.parametrize("by_file", [False, True])
def test_an_output_that_is_gone_is_said_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_file: bool
) -> None:
    file = tmp_path / "001.wav"
    write_audio(file, torch.ones(480))
    results, said = io.StringIO(), io.StringIO()
    listener = Listener(PlainPrinter(results, said), None, Player(24_000, _Card))
    sound = PlayFile(file) if by_file else Audio(torch.ones(480), 24_000, 0.1, 0.1)
    listener.handle(sound, 1)
    assert said.getvalue() == ""
    monkeypatch.setattr(_Card, "there", False)
    for line in (2, 3):
        listener.handle(sound, line)
        listener.handle(LineDone(line, file, 0.1, ()), line)
    listener.finish([], interrupted=False)
    sentence = "The sound has stopped: fake card takes no more. The file goes on."
    assert said.getvalue().count(sentence) == 1
    assert results.getvalue() == f"{file}\n" * 2
    assert not listener.failed
