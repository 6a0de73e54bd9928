"""Where a run's events go, and that what fails at its end costs nothing else."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from csm_repl.errors import OutputError
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
