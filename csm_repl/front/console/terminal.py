"""The terminal while a job runs: keystrokes are not echoed into the live line and wait for the prompt."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["kept_terminal", "silent_keys"]


@contextlib.contextmanager
def silent_keys() -> Iterator[None]:
    """No echo, and keys kept as they are; Ctrl-C and Ctrl-Z still work. Does nothing without a terminal."""
    with kept_terminal() as before:
        if before is not None:
            import termios

            silent = list(before)
            # Line by line, the terminal would swallow Backspace and Ctrl-D that are meant for the prompt.
            silent[3] &= ~(termios.ECHO | termios.ICANON)
            with contextlib.suppress(termios.error):
                # Not TCSAFLUSH: what has been typed ahead is kept.
                termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, silent)
        yield


@contextlib.contextmanager
def kept_terminal() -> Iterator[list[Any] | None]:
    """Leaves the terminal's modes as they were. Gives them; None where there are none."""
    try:
        import termios

        before = termios.tcgetattr(sys.stdin.fileno())
    except Exception:  # no termios, no terminal, no stdin
        yield None
        return
    try:
        yield before
    finally:
        with contextlib.suppress(termios.error, ValueError):
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, before)
