"""Ctrl-C while a take is made that would never end."""

from __future__ import annotations

from pathlib import Path

from tests.support.terminal import CTRL_C, UP, Start


def test_ctrl_c_stops_the_job_keeps_the_model_and_twice_leaves(
    start: Start, endless_checkpoint: Path, home: Path
) -> None:
    console = start(endless_checkpoint, "--max-seconds", "off")
    console.see(r"^0 anna>$")
    console.send("On and on.\r")
    console.see(r"0 anna  \d+\.\d s  RTF \d")
    console.send(CTRL_C)
    console.see(r"^Stopped\. Kept: \d+\.\d s of this one in 001\.wav, outside the context\.$", timeout_s=5)
    console.see_prompt(more_than=1)
    assert list(home.glob("outputs/*/001.wav"))
    # The live line leaves nothing behind.
    assert "Ctrl-C stops" not in console.text

    console.enter("$SET max-seconds 0.4$", r"^max-seconds: off -> 0\.4$")
    console.enter("Only a moment.", r"^  outputs/\S+/002\.wav$")
    assert console.raw.count(b"Ready in") == 1

    # A line was typed since the last Ctrl-C: this one is a first one again. What was typed ahead is not
    # spoken, and not lost; what the second Ctrl-C leaves behind is not the shell's.
    console.send("$SET max-seconds off$\r")
    console.see(r"^max-seconds: 0\.4 -> off$")
    console.send("On and on again.\r")
    console.see(r"0 anna  \d+\.\d s  RTF \d")
    console.send("One ahead.\r$SWAP$\rand half")
    console.send(CTRL_C)
    console.see(r"^Stopped\. Kept: \d+\.\d s of this one in 003\.wav")
    console.see(r"^Left out 2 lines that were still to come\. Up recalls them\.$")
    console.see(r"^0 anna> and half$")
    console.send(CTRL_C)
    console.see(r"^0 anna>$")
    console.send(UP)
    console.see(r"^0 anna> One ahead\.\n     2> \$SWAP\$$")
    console.send(CTRL_C + CTRL_C)
    assert console.exit_code() == 130
