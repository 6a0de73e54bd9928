"""What a script will be, before a line of it is spoken: for the progress at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csm_repl.errors import LineError
from csm_repl.front.pipe.rehearsal import Rehearsal
from csm_repl.front.pipe.scripts import STDIN, script_rows
from csm_repl.settings import Settings
from csm_repl.voices.listing import ListedVoices

__all__ = ["expected_lines"]


def expected_lines(settings: Settings, scripts: Sequence[str]) -> dict[int | str, float] | None:
    """Place of an input line (see `ScriptRow`) -> about how many seconds of sound.

    Commands and empty lines are left out. A line that will fail is there with 0 seconds.
    None: a script can be read only once.
    """
    if not all(script != STDIN and Path(script).is_file() for script in scripts):
        return None
    rehearsal = Rehearsal(settings, ListedVoices(settings.references))
    found: dict[int | str, float] = {}
    for row in script_rows(scripts, settings.format):
        try:
            seconds = rehearsal.read(row.reader, row.text).seconds
        except LineError:
            found[row.place] = 0.0
            continue
        if seconds:
            found[row.place] = seconds
        if rehearsal.quit:
            break
    return found
