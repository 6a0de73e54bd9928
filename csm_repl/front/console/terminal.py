"""The terminal between two prompts: keystrokes are not echoed and wait for the next prompt."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from csm_repl import clock

__all__ = ["drop_typed", "echoing_keys", "orderly_suspend", "silent_keys", "take_held"]

_SHOW_CURSOR = b"\x1b[?25h"
_READ_BYTES = 65_536

_held = bytearray()
"""Typed ahead of a suspend, and kept from the shell."""


@contextlib.contextmanager
def silent_keys() -> Iterator[None]:
    """No echo, and keys kept as they are; Ctrl-C and Ctrl-Z still work. Does nothing without a terminal."""
    with _kept_modes():
        _silence()
        yield


@contextlib.contextmanager
def echoing_keys() -> Iterator[None]:
    """The terminal's own line editing, for whoever reads whole lines from it."""
    with _kept_modes():
        _change_flags(on=("ECHO", "ICANON"), off=("NOFLSH",))
        yield


@contextlib.contextmanager
def orderly_suspend() -> Iterator[None]:
    """Ctrl-Z gives the shell its terminal back as it was, and `fg` makes it silent again.

    Shells differ: some put the modes back themselves, for themselves or for the program, and some do not.
    """
    modes = _modes()
    in_main_thread = threading.current_thread() is threading.main_thread()
    if modes is None or not in_main_thread or not hasattr(signal, "SIGTSTP"):
        yield
        return

    def suspend(number: int, frame: FrameType | None) -> None:
        _held.extend(_waiting())
        _set_modes(modes)
        if os.environ.get("TERM", "dumb") != "dumb":
            # A live line hides it. Not through sys.stdout, which may be in the middle of a write.
            with contextlib.suppress(OSError):
                os.write(sys.stdout.fileno(), _SHOW_CURSOR)
        clock.suspend()
        # Here the program goes on, in the foreground or behind the shell.
        if _in_foreground():
            _silence()

    before = signal.signal(signal.SIGTSTP, suspend)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


def take_held() -> bytes:
    """What was typed before Ctrl-Z and has not been read: the shell would have run it."""
    held = bytes(_held)
    _held.clear()
    return held


def drop_typed() -> None:
    """Throws away what was typed and has not been read; else the shell would run it."""
    with contextlib.suppress(Exception):  # no termios, no terminal, no stdin
        import termios

        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


def _waiting() -> bytes:
    data = b""
    with contextlib.suppress(OSError, ValueError):
        while select.select([sys.stdin], [], [], 0)[0]:
            more = os.read(sys.stdin.fileno(), _READ_BYTES)
            if not more:
                break
            data += more
    return data


def _silence() -> None:
    # Line by line, the terminal would swallow Backspace and Ctrl-D that are meant for the prompt; and
    # without NOFLSH, Ctrl-C would throw away what has been typed ahead.
    _change_flags(on=("NOFLSH",), off=("ECHO", "ICANON"))


def _change_flags(*, on: tuple[str, ...] = (), off: tuple[str, ...] = ()) -> None:
    modes = _modes()
    if modes is None:
        return
    import termios

    for name in on:
        modes[3] |= getattr(termios, name)
    for name in off:
        modes[3] &= ~getattr(termios, name)
    _set_modes(modes)


@contextlib.contextmanager
def _kept_modes() -> Iterator[None]:
    before = _modes()
    try:
        yield
    finally:
        if before is not None:
            _set_modes(before)


def _modes() -> list[Any] | None:
    try:
        import termios

        return termios.tcgetattr(sys.stdin.fileno())
    except Exception:  # no termios, no terminal, no stdin
        return None


def _set_modes(modes: list[Any]) -> None:
    import termios

    with contextlib.suppress(termios.error, ValueError):
        # Not TCSAFLUSH: what has been typed ahead is kept.
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSANOW, modes)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
