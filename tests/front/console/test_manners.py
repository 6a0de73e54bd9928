"""Sessions with other flags and other terminals, a start each."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import soundfile

from tests.support.paths import ROOT
from tests.support.terminal import CTRL_C, CTRL_D, ENTER, Start, paste

pytestmark = pytest.mark.slow(reason="starts the program for every test")


def test_a_dumb_terminal_gets_a_plain_prompt(start: Start, quick_checkpoint: Path) -> None:
    console = start(quick_checkpoint, TERM="dumb")
    console.enter("Hello there.", r"^  outputs/")
    assert "0 anna  Hello there." in console.lines
    assert b"\x1b" not in console.raw
    console.send("half a" + CTRL_C)
    console.see(r"^Ctrl-C again leaves\.$")
    console.see_prompt()
    console.send(CTRL_D)
    assert console.exit_code() == 0


def test_a_paste_into_a_dumb_terminal_loses_nothing(start: Start, quick_checkpoint: Path) -> None:
    console = start(quick_checkpoint, TERM="dumb")
    console.see(r"^0 anna>$")
    console.send("One.\r$SWAP$\rTwo.\rhalf")
    console.see(r"(?s)^0 anna  One\..*^Primary speaker 1.*^1 ben  Two\..*^1 ben> half$")
    console.send(" more.\r")
    console.see(r"^1 ben  half more\.$")
    assert b"\x1b" not in console.raw


def test_a_dumb_terminal_is_left_with_ctrl_c_twice(start: Start, quick_checkpoint: Path) -> None:
    console = start(quick_checkpoint, TERM="dumb")
    console.see(r"^0 anna>$")
    console.send(CTRL_C)
    console.see(r"^Ctrl-C again leaves\.$")
    console.send(CTRL_C)
    assert console.exit_code() == 130


def test_json_on_a_terminal(start: Start, quick_checkpoint: Path, home: Path) -> None:
    console = start(quick_checkpoint, "--json", "-q", columns=4000)
    console.see(r"^0 anna>$")
    found = console.enter("Hello.||You.", r'^(\{"type": "line".*\})$')
    line = json.loads(found[1])
    assert [turn["speaker"] for turn in line["turns"]] == [0, 1]
    assert (home / line["file"]).is_file()
    console.enter("$FOO$", r"^csm-repl: There is no command \$FOO\$")


def test_the_whole_run_in_one_file_and_tracks(start: Start, quick_checkpoint: Path, home: Path) -> None:
    console = start(quick_checkpoint, "-o", "run.wav", "--tracks", "--seed", "3")
    console.see(r"^0 anna>$")
    first = console.enter("Hello.||You.", r"^  (\S+/001\.wav)$")[1]
    second = console.enter("Again.", r"^  (\S+/002\.wav)$")[1]
    console.send(CTRL_D)
    console.see(r"^  \S+/track-1-ben\.wav$")
    assert console.exit_code() == 0
    n_samples = sum(soundfile.info(home / path).frames for path in (first, second))
    assert soundfile.info(home / "run.wav").frames == n_samples


def test_keys_typed_during_a_job_wait_for_the_prompt(start: Start, endless_checkpoint: Path) -> None:
    console = start(endless_checkpoint, "--max-seconds", "20")
    console.see(r"^0 anna>$")
    console.send("Take your time.\r")
    console.see(r"0 anna  \d+\.\d s  RTF")
    console.send("typpo\x7f\x7f\x1b[1;1Red ahead")
    console.see(r"^0 anna> typed ahead$")
    assert b"typpo" not in console.raw
    assert "[1;1R" not in console.text


def test_a_terminal_that_says_late_where_its_cursor_is(start: Start, quick_checkpoint: Path) -> None:
    console = start(quick_checkpoint)
    console.see(r"^0 anna>$")
    late: list[str] = []
    console.screen.write_process_input = late.append
    for line in ("One.", "Two."):
        console.send(line + ENTER)
        console.see(rf"^0 anna  {line}$")
        console.send(late.pop(0) if late else "")
    console.see_prompt(more_than=2)
    console.send("Three")
    console.see(r"^0 anna> Three$")
    console.send("".join(late) + CTRL_C + CTRL_C)
    assert console.exit_code() == 130
    assert "R" not in "".join(line for line in console.lines if "RTF" not in line).replace("Ready", "")


def test_ctrl_z_gives_the_shell_a_usable_terminal_and_nothing_to_run(
    start: Start, endless_checkpoint: Path
) -> None:
    console = start(endless_checkpoint, "--max-seconds", "off", shell="bash")
    console.see(r"^0 anna>$")
    console.send("On and on.\r")
    console.see(r"0 anna  \d+\.\d s  RTF")
    console.send("touch typed\r$SWAP$\rahead")
    console.send("\x1a")
    console.see(r"Stopped")
    console.send("stty -a | grep -o ' -*echo ' ; ls typed\r")
    console.see(r"^ echo$")
    console.see(r"cannot access 'typed'")
    console.send("fg\r")
    console.see(r"(?s)^\$ fg$.*0 anna  \d+\.\d s  RTF")
    console.send(CTRL_C)
    console.see(r"^Left out 2 lines that were still to come\. Up recalls them\.$")
    console.see(r"^0 anna> ahead$")
    console.send("\x1a")
    console.see(r"(?s)^\[1\]\+ .*^\[1\]\+ .*^\$$")
    console.send("fg\r")
    console.see(r"(?s)^\$ fg$.*^\$ fg$.*^0 anna> ahead$")
    console.send(CTRL_C + CTRL_C)
    console.see(r"^\$ $|^\$$")
    console.send("echo left with $?\r")
    console.see(r"^left with 130$")
    console.send("exit\r")
    console.exit_code()


def test_the_editor_writes_the_line(start: Start, quick_checkpoint: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "and ben.\\n\\044SWAP\\044\\n" >> "$1"\n')
    editor.chmod(0o755)
    console = start(quick_checkpoint, VISUAL=str(editor))
    console.see(r"^0 anna>$")
    console.send("Anna \x18\x05")
    console.see(r"^0 anna> Anna and ben\.\n     2> \$SWAP\$$")
    console.enter("", r"^Primary speaker 1: the voice of ben\.$")


@pytest.mark.parametrize("flags", [(), ("--bell",)])
def test_the_bell_rings_when_a_long_line_is_ready(
    start: Start, quick_checkpoint: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import csm_repl.front.console.app as a; a.BELL_AFTER_S = 0\n")
    console = start(quick_checkpoint, *flags, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    console.see(r"^0 anna>$")
    console.enter("Hello.", r"^  outputs/")
    console.enter("$STATUS$", r"^bell +o")
    assert (b"\a" in console.raw) is bool(flags)


def test_a_terminal_may_change_its_size(start: Start, endless_checkpoint: Path) -> None:
    console = start(endless_checkpoint, "--max-seconds", "20")
    console.see(r"^0 anna>$")
    console.send("A line that is made while the window changes.\r")
    console.see(r"0 anna  \d+\.\d s  RTF")
    console.resize(50, 40)
    console.see(r"^  outputs/\S+")
    console.see_prompt()
    console.see(r"^ 0 anna  context \d+/2048  cpu  seed random *$")
    console.resize(100, 40)
    console.see(r"Ctrl-D leaves$")


def test_a_signal_at_the_prompt_is_a_ctrl_c(start: Start, quick_checkpoint: Path) -> None:
    console = start(quick_checkpoint)
    console.see(r"^0 anna>$")
    console.send("abc")
    console.see(r"^0 anna> abc$")
    os.kill(console.pid, signal.SIGINT)
    console.see(r"^0 anna>$")
    os.kill(console.pid, signal.SIGINT)
    assert console.exit_code() == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("kind", ["xterm-256color", "dumb"])
def test_term_and_hup_at_the_prompt_end_in_order(
    start: Start, quick_checkpoint: Path, home: Path, number: int, code: int, kind: str
) -> None:
    console = start(quick_checkpoint, "--tracks", TERM=kind, ignore_sighup=False)
    console.see(r"^0 anna>$")
    console.enter("Hello.", r"^  outputs/")
    console.send("half a line")
    console.see(r"^0 anna> half a line$")
    os.kill(console.pid, number)
    console.see(r"^  \S+/track-0-anna\.wav$")
    assert console.exit_code() == code
    assert "Ctrl-C again" not in console.text


def test_term_during_a_take_keeps_what_was_heard(start: Start, endless_checkpoint: Path) -> None:
    console = start(endless_checkpoint, "--max-seconds", "off")
    console.see(r"^0 anna>$")
    console.send(paste("On and on.\nNever.") + ENTER)
    console.see(r"0 anna  \d+\.\d s  RTF")
    os.kill(console.pid, signal.SIGTERM)
    console.see(r"^Stopped\. Kept: \d+\.\d s of this one in \S+\.wav")
    assert console.exit_code() == 143
    assert "anna  Never." not in console.text


def test_a_model_that_cannot_be_had_is_one_paragraph(start: Start, tmp_path: Path) -> None:
    console = start(tmp_path)
    console.see(r"^csm-repl: .*config\.json")
    assert console.exit_code() == 3
    assert "Traceback" not in console.text


def test_a_state_folder_that_cannot_be_written_stops_nothing(
    start: Start, quick_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    console = start(quick_checkpoint, XDG_STATE_HOME=str(tmp_path / "state"))
    console.see(r"^0 anna>$")
    console.enter("Hello.", r"^  outputs/")
    console.send(CTRL_D)
    assert console.exit_code() == 0


def test_a_terminal_that_goes_away_ends_the_program(start: Start, quick_checkpoint: Path) -> None:
    console = start(quick_checkpoint)
    console.see(r"^0 anna>$")
    assert console.hang_up() == 0


def test_color_never_styles_nothing(start: Start, quick_checkpoint: Path) -> None:
    console = start(quick_checkpoint, "--color", "never")
    console.see(r"^0 anna>$")
    console.enter("Hello.", r"^  outputs/")
    console.enter("$HELP$", r"^Commands$")
    codes = {code for match in re.findall(rb"\x1b\[([0-9;]*)m", console.raw) for code in match.split(b";")}
    assert not {code for code in codes if re.fullmatch(rb"3[0-8]|4[0-8]|9[0-7]|10[0-7]", code)}


def test_an_unforeseen_error_is_one_paragraph_and_the_model_stays(
    start: Start, quick_checkpoint: Path, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import csm_repl.studio.commands as c\n"
        "def broken(studio, args):\n"
        "    raise KeyError('a fault\\nof ours')\n"
        "    yield\n"
        "c.COMMANDS['STATUS'] = c.CommandSpec('STATUS', '', 'breaks', broken)\n"
    )
    paths = f"{tmp_path}{os.pathsep}{ROOT}"
    console = start(quick_checkpoint, PYTHONPATH=paths, columns=200)
    console.see(r"^0 anna>$")
    console.enter("$STATUS$", r"^Unexpected error: KeyError: .*csm-repl\.log")
    assert "Traceback" not in console.text
    (log,) = home.rglob("csm-repl.log")
    assert "a fault" in log.read_text()
    console.enter("Hello.", r"^  outputs/")
    debugging = start(quick_checkpoint, "--debug", PYTHONPATH=paths, columns=200)
    debugging.see(r"^0 anna>$")
    debugging.enter("$STATUS$", r"^Traceback")


def test_ctrl_c_while_libraries_are_imported_leaves_in_order(start: Start, quick_checkpoint: Path) -> None:
    """An exception inside the import of torch aborts the process, or is swallowed: about one try in seven."""
    for wait_s in (0.0, 0.2, 0.5, 0.9):
        console = start(quick_checkpoint)
        console.see(r"Starting\.")
        time.sleep(wait_s)
        console.send(CTRL_C)
        assert console.exit_code() == 130


def test_something_is_on_the_screen_at_once(start: Start, quick_checkpoint: Path) -> None:
    console = start(quick_checkpoint)
    # torch alone takes longer to import than this.
    console.see(r"Starting\.", timeout_s=1.5)
    console.send(CTRL_C)
    assert console.exit_code() == 130
