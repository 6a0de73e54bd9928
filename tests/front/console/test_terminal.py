"""One session of the console on a pseudo-terminal, and a second one that remembers it."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from tests.support.terminal import ALT_ENTER, CTRL_C, CTRL_D, ENTER, F1, TAB, UP, Start, Terminal, paste


@pytest.fixture(scope="module")
def session(start: Start, quick_checkpoint: Path) -> Terminal:
    terminal = start(quick_checkpoint, "--seed", "1")
    terminal.see(r"^0 anna>$")
    return terminal


@pytest.fixture
def console(session: Terminal) -> Terminal:
    """The same session for all tests, with an empty screen."""
    session.clear()
    return session


def _wavs(home: Path) -> set[str]:
    return {path.name for path in home.glob("outputs/*/*.wav")}


def test_the_banner_names_model_and_voices(session: Terminal) -> None:
    assert re.search(r"^csm-repl .*: csm-random-quick on cpu, bfloat16$", session.text, re.M)
    assert "Voices: 0 anna, 1 ben" in session.lines


def test_a_line_is_spoken_and_its_file_is_named(console: Terminal, home: Path) -> None:
    found = console.enter("Hello there.", r"^  (outputs/\S+\.wav)$")
    assert (home / found[1]).is_file()
    assert "0 anna  Hello there." in console.lines
    assert re.search(r"^  \d+\.\d\d s of audio in \d+\.\d\d s \(RTF .*seed \d+\)$", console.text, re.M)


def test_the_seeds_example_is_echoed_as_0_1_0(console: Terminal) -> None:
    console.enter(
        "Yeah, they're real cool.||I see that Yala! How rare are they?||I dunno, they're a pwii.0",
        r"^  outputs/\S+/\d\d\d\.wav$",
    )
    echo = console.lines[1:4]
    assert echo == [
        "0 anna  Yeah, they're real cool.",
        "1 ben   I see that Yala! How rare are they?",
        "0 anna  I dunno, they're a pwii.",
    ]
    assert len(re.findall(r"^  \d\d\d-[123]\.wav  \d", console.text, re.M)) == 3


def test_tab_completes_a_command_and_it_runs(console: Terminal) -> None:
    console.send("$cle")
    console.see(r"^ +\$CLEAR\$ +forgets the conversation")
    console.send(TAB)
    console.see(r"^0 anna> \$CLEAR\$$")
    console.enter("", r"^Forgot \d+ turns?\. References and primary speaker stay\.$")


def test_a_command_in_lower_case_works(console: Terminal) -> None:
    console.enter("$clear$", r"^Forgot 0 turns\.")


def test_a_mistyped_command_is_answered_and_never_spoken(console: Terminal, home: Path) -> None:
    before = _wavs(home)
    console.enter("$FOO$", r"^There is no command \$FOO\$; nothing was spoken\.")
    assert _wavs(home) == before


def test_a_speaker_below_0_is_an_error_and_the_prompt_comes_back(console: Terminal, home: Path) -> None:
    before = _wavs(home)
    console.enter("Hello!-1", r"^Turn 1 .* would be spoken by speaker -1")
    assert _wavs(home) == before


def test_the_prompt_shows_the_primary_speaker(console: Terminal) -> None:
    console.enter("$SWAP$", r"^1 ben>$")
    console.enter("$BACK$", r"^0 anna>$")


def test_a_command_that_needs_more_is_completed_before_it_is_submitted(console: Terminal) -> None:
    console.send("$se")
    console.see(r"^ +\$SET name value\$ ")
    console.send("\x1b[B")
    console.see(r"^0 anna> \$SET $|^0 anna> \$SET$")
    console.send(ENTER)
    console.see(r"^ +temperature +sampling temperature")
    console.enter("seed 1", r"^seed: \S+ -> 1$")


def test_a_paste_of_several_lines_runs_line_by_line(console: Terminal) -> None:
    console.send(paste("From anna.\r\n\r\n$SWAP$\r\nAnd ben.||And two.\r\n$BACK$\r\n$FOO$\r\n"))
    console.see(r"^     3> \$SWAP\$$")
    console.see(r"^ 5 lines: Enter runs them, Ctrl-C drops them$")
    console.send(ENTER)
    console.see(r"^5 lines, one after the other: 2 to speak, 3 commands\. Ctrl-C stops them\.$")
    console.see(r"^There is no command \$FOO\$; nothing was spoken\.")
    console.see_prompt(more_than=1)
    shown = [line for line in console.lines if re.match(r"\d/5|\d \w+ +(From|And)|speaker 2|Primary", line)]
    assert shown == [
        "1/5",
        "0 anna  From anna.",
        "2/5  $SWAP$",
        "Primary speaker 1: the voice of ben.",
        "3/5",
        "1 ben      And ben.",
        "speaker 2  And two.",
        "4/5  $BACK$",
        "Primary speaker 0: the voice of anna.",
        "5/5  $FOO$",
    ]


def test_a_paste_that_the_terminal_does_not_mark_gives_the_same(console: Terminal) -> None:
    console.send("One is typed.\r$SWAP$\rTwo is ben.\r$BACK$\rAnd half")
    console.see(r"^0 anna> And half$")
    shown = [line for line in console.lines if re.match(r"\d \w+  |Primary", line)]
    assert shown == [
        "0 anna  One is typed.",
        "Primary speaker 1: the voice of ben.",
        "1 ben  Two is ben.",
        "Primary speaker 0: the voice of anna.",
    ]
    console.send(CTRL_C)
    console.see(r"^0 anna>$")


def test_a_turn_can_name_its_voice_and_the_name_is_completed(console: Terminal, home: Path) -> None:
    console.send("Hello.||be" + TAB)
    console.see(r"^0 anna> Hello\.\|\|ben: ?$")
    console.enter("Hi. [pause 0.2] Anna?||ANNA: Yes, 2.", r"^0 anna +Hello\.$")
    shown = [line for line in console.lines if re.match(r"\d \w+  ", line)]
    assert shown[-3:] == ["0 anna  Hello.", "1 ben   Hi. [pause 0.2] Anna?", "0 anna  Yes, 2."]


def test_a_comment_does_nothing_and_a_heading_is_confirmed(console: Terminal, home: Path) -> None:
    before = _wavs(home)
    console.enter("# nothing to say", r"^0 anna>$")
    console.enter("## Act one", r"^Part: Act one$")
    assert _wavs(home) == before


def test_a_block_in_another_notation_is_read_as_a_script_would_be(console: Terminal) -> None:
    console.send(paste("[S1] From the first. [S2] From the second.\n[S1] And again.\n"))
    console.send(ENTER)
    console.see(r"--format tags")
    console.see_prompt(more_than=1)
    shown = [line for line in console.lines if re.match(r"\d \w+  ", line)]
    assert shown == ["0 anna  From the first.", "1 ben   From the second.", "0 anna  And again."]


def test_alt_enter_begins_a_new_line(console: Terminal) -> None:
    console.send("Above" + ALT_ENTER)
    console.see(r"^0 anna> Above$")
    console.enter("below.", r"^0 anna  below\.$")
    assert "0 anna  Above" in console.lines


def test_a_bare_word_is_answered_and_not_spoken(console: Terminal, home: Path) -> None:
    before = _wavs(home)
    console.enter("exit", r"^Nothing was spoken\. .*\$EXIT\$\.")
    console.enter("?", r"^Commands$")
    assert _wavs(home) == before
    console.enter("Exit.", r"^0 anna  Exit\.$")


def test_f1_shows_the_help_above_what_is_typed(console: Terminal) -> None:
    console.send("Half a line" + F1)
    console.see(r"(?s)^Commands$.*^0 anna> Half a line$")
    console.send(CTRL_C)
    console.see(r"^0 anna>$")


def test_escape_sequences_are_shown_and_not_obeyed(console: Terminal) -> None:
    raw_before = len(console.raw)
    console.send(paste("Not \x1b]0;title\x07 [bold]red[/bold]."))
    console.enter("", r"^0 anna  Not \\x1b\]0;title\\x07 \[bold\]red\[/bold\]\.$")
    assert b"\x1b]0;title" not in console.raw[raw_before:]


def test_the_toolbar_says_speaker_context_device_and_seed(console: Terminal) -> None:
    console.see(r"^ 0 anna  context \d+/2048  cpu  seed \d+  temp 0\.9  .*\Z")


def test_ctrl_c_clears_the_line(console: Terminal) -> None:
    console.send("Half a tho")
    console.see(r"^0 anna> Half a tho$")
    console.send(CTRL_C)
    console.see(r"^ Line cleared\. Ctrl-C again leaves\.$")
    console.see(r"^0 anna>$")


def test_the_suggestion_from_the_history_is_taken_with_right(console: Terminal) -> None:
    console.enter("A rather long line.", r"^0 anna  A rather long line\.$")
    console.send("A rath")
    console.see(r"^0 anna> A rather long line\.$")
    console.send("\x1b[C")
    console.enter("", r"(?s)(A rather long line\..*){4}")


def test_vi_keys_can_be_switched_on(console: Terminal) -> None:
    console.enter("$SET editing-mode vi$", r"^editing-mode: emacs -> vi$")
    console.send("ello\x1b")
    console.see(r"^ normal ")
    console.send("IH")
    console.enter("", r"^0 anna  Hello$")
    console.enter("$SET editing-mode emacs$", r"^editing-mode: vi -> emacs$")


def test_only_the_user_may_read_the_history(session: Terminal, home: Path) -> None:
    (path,) = home.rglob("history")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.is_relative_to(home / "state")


def test_exit_leaves_and_a_second_process_recalls_the_line(
    session: Terminal, start: Start, quick_checkpoint: Path
) -> None:
    session.enter("The last line.", r"^0 anna  The last line\.$")
    session.send("$EXIT$" + ENTER)
    assert session.exit_code() == 0
    # Sixty columns and no colours, in the same start: each costs seconds.
    second = start(quick_checkpoint, columns=60, rows=40, NO_COLOR="1")
    second.see(r"^0 anna>$")
    _recall(second, "The last line.")
    # Cleared, the prompt stands behind the newest line again.
    second.send(CTRL_C)
    second.see(r"^0 anna>$")
    _recall(second, "The last line.")
    second.enter("", r"^  outputs/")
    _assert_tidy_at_60_columns(second)
    second.send(CTRL_D)
    assert second.exit_code() == 0
    assert not _color_codes(second.raw)


def _recall(terminal: Terminal, line: str) -> None:
    # The history is read beside the prompt: once a key is shown, it is there.
    terminal.send("Go")
    terminal.see(r"^0 anna> Go$")
    terminal.send(UP + UP)
    terminal.see(f"^0 anna> {re.escape(line)}$")


def _assert_tidy_at_60_columns(terminal: Terminal) -> None:
    assert "0 anna  The last line." in terminal.lines
    terminal.see(r"^ 0 anna  context \d+/2048  cpu  seed random  temp 0\.9(  \$HELP\$)?\Z")
    terminal.enter("$VOICES$", r"^  The second voice\.$|  The second voice\.$")


def _color_codes(raw: bytes) -> list[str]:
    """Colours among the style sequences; back to the default one (39, 49) is none."""
    codes = [code for match in re.findall(rb"\x1b\[([0-9;]*)m", raw) for code in match.decode().split(";")]
    return [code for code in codes if re.fullmatch(r"3[0-8]|4[0-8]|9[0-7]|10[0-7]", code)]
