"""The terminal while a job runs: keystrokes are not echoed into the live line and wait for the prompt."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

__all__ = ["silent_keys"]


@contextlib.contextmanager
def silent_keys() -> Iterator[None]:
    """No echo, and keys kept as they are; Ctrl-C and Ctrl-Z still work. Does nothing without a terminal."""
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):
        yield
        return
    except termios.error:
        yield
        return
    silent = termios.tcgetattr(descriptor)
    # Line by line, the terminal would swallow Backspace and Ctrl-D that are meant for the prompt.
    silent[3] &= ~(termios.ECHO | termios.ICANON)
    # TCSANOW, not TCSAFLUSH: what has been typed ahead is kept.
    with contextlib.suppress(termios.error):
        termios.tcsetattr(descriptor, termios.TCSANOW, silent)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
