"""Ctrl-C while a take is made that would never end."""

from __future__ import annotations

import time
from pathlib import Path

from csm_repl.front.jobs import TWICE_WITHIN_S
from tests.support.terminal import CTRL_C, Start


def test_ctrl_c_stops_the_job_keeps_the_model_and_twice_leaves(
    start: Start, endless_checkpoint: Path, home: Path
) -> None:
    console = start(endless_checkpoint, "--max-seconds", "off")
    console.see(r"^0 anna>$")
    console.send("On and on.\r")
    console.see(r"0 anna  \d+\.\d s  RTF \d")
    console.send(CTRL_C)
    stopped_at = time.monotonic()
    console.see(r"^Stopped\. Kept: \d+\.\d s of this one in 001\.wav, outside the context\.$", timeout_s=5)
    console.see_prompt(more_than=1)
    assert list(home.glob("outputs/*/001.wav"))
    # The live line leaves nothing behind.
    assert "Ctrl-C stops" not in console.text

    console.enter("$SET max-seconds 0.4$", r"^max-seconds: off -> 0\.4$")
    console.enter("Only a moment.", r"^  outputs/\S+/002\.wav$")
    assert console.raw.count(b"Ready in") == 1

    # Or the next Ctrl-C would be the second one already.
    time.sleep(max(0.0, stopped_at + TWICE_WITHIN_S + 0.1 - time.monotonic()))
    console.send("$SET max-seconds off$\r")
    console.see(r"^max-seconds: 0\.4 -> off$")
    console.send("On and on again.\r")
    console.see(r"0 anna  \d+\.\d s  RTF \d")
    console.send(CTRL_C)
    console.see(r"^Stopped\. Kept: \d+\.\d s of this one in 003\.wav")
    console.send(CTRL_C)
    assert console.exit_code() == 130
