"""The program on a pseudo-terminal, and what its screen shows."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte

CTRL_C, CTRL_D, CTRL_R = "\x03", "\x04", "\x12"
F1 = "\x1bOP"
UP, TAB, ENTER, ALT_ENTER = "\x1b[A", "\t", "\r", "\x1b\r"
TIMEOUT_S = 30.0


def paste(text: str) -> str:
    """What a terminal sends for a bracketed paste."""
    return f"\x1b[200~{text}\x1b[201~"


class Terminal:
    """Starts a command; a screen that scrolls is avoided by making it high."""

    def __init__(
        self,
        command: list[str],
        *,
        cwd: Path,
        env: dict[str, str],
        columns: int = 100,
        rows: int = 60,
        ignore_sighup: bool = True,
    ) -> None:
        self._child = pexpect.spawn(
            command[0],
            command[1:],
            cwd=str(cwd),
            env=env,
            dimensions=(rows, columns),
            ignore_sighup=ignore_sighup,
        )
        self._child.delaybeforesend = None
        self.screen = pyte.Screen(columns, rows)
        # prompt_toolkit asks where the cursor is.
        self.screen.write_process_input = self._child.send
        self._stream = pyte.ByteStream(self.screen)
        self._ended = False
        self.raw = b""
        """Everything that the program has written."""

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def send(self, keys: str) -> None:
        self._child.send(keys.encode())

    def see(self, pattern: str, *, timeout_s: float = TIMEOUT_S) -> re.Match[str]:
        """Waits until the screen matches."""
        deadline = time.monotonic() + timeout_s
        while True:
            match = re.search(pattern, self.text, re.MULTILINE)
            if match:
                return match
            waits = not self._ended and time.monotonic() < deadline
            assert waits, f"never saw {pattern!r} in\n{self.text}"
            self._read()

    def enter(self, line: str, then: str) -> re.Match[str]:
        """Types a line; waits until the screen below it matches `then` and a new prompt is there."""
        before = self._n_prompts()
        self.send(line + ENTER)
        self.see(then)
        self.see_prompt(more_than=before)
        return self.see(then)

    def see_prompt(self, *, more_than: int = 0) -> None:
        """Waits until so many prompts are there, the last one empty."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            prompts = [line for line in self.lines if _PROMPT.match(line)]
            if len(prompts) > more_than and prompts[-1].endswith(">"):
                return
            assert time.monotonic() < deadline, f"no new prompt in\n{self.text}"
            self._read()

    def clear(self) -> None:
        """Forgets what is on the screen but the prompt: Ctrl-L."""
        self.send("\x0c")
        deadline = time.monotonic() + TIMEOUT_S
        while self._n_prompts() != 1 or not _PROMPT.match(self.lines[0]):
            assert time.monotonic() < deadline, f"never cleared\n{self.text}"
            self._read()

    def resize(self, columns: int, rows: int) -> None:
        self.screen.resize(rows, columns)
        self._child.setwinsize(rows, columns)

    def exit_code(self) -> int | None:
        """Waits for the end of the program."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self._ended:
            assert time.monotonic() < deadline, f"never ended\n{self.text}"
            self._read()
        self._child.wait()
        return self._child.exitstatus

    @property
    def pid(self) -> int:
        return self._child.pid

    def hang_up(self) -> int:
        """Closes the terminal under a program that ignores SIGHUP; its exit code."""
        os.close(self._child.child_fd)
        self._ended = self._child.closed = self._child.ptyproc.closed = True
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        if not self._child.closed:
            self._child.close(force=True)

    def _n_prompts(self) -> int:
        return sum(_PROMPT.match(line) is not None for line in self.lines)

    def _read(self) -> None:
        try:
            data = self._child.read_nonblocking(65_536, timeout=0.1)
        except pexpect.TIMEOUT:
            return
        except pexpect.EOF:
            self._ended = True
            return
        self.raw += data
        self._stream.feed(data)


_PROMPT = re.compile(r"(speaker \d+|\d+ \S+)>")


Start = Callable[..., Terminal]
"""Starts the program in a terminal (see the fixture `start`)."""


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "csm_repl", "--whisper-model", "off", *arguments]
