"""What every front end needs at a terminal: harmless text, rich's console, Ctrl-C at the right moment."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "defused",
    "defused_lines",
    "end_signal",
    "end_signals_as_interrupts",
    "held_interrupts",
    "make_libraries_harmless",
    "open_console",
    "prepare_streams",
    "settle_streams",
    "show",
    "show_json",
    "show_path",
    "tell",
]

_SPACES = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
# Control characters, halves of surrogate pairs, and marks that turn the direction of writing around.
_ARMED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_DUMB = {"dumb", "unknown"}


def defused(text: str) -> str:
    """`text` on one line, with everything escaped that would steer a terminal instead of being shown."""
    return _ARMED.sub(_escaped, _SPACES.sub(" ", text))


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def defused_lines(text: str) -> str:
    """As `defused`, but what is on several lines stays so: for tracebacks."""
    return "\n".join(map(defused, text.split("\n")))


def tell(text: str) -> None:
    """A message on stderr; nobody may be there to read it."""
    with contextlib.suppress(OSError):
        print(defused(text), file=sys.stderr, flush=True)


def show(text: str, file: TextIO | None = None) -> None:
    """A line for people on stdout, or in `file`."""
    print(defused(text), file=file, flush=True)


def show_path(path: str, file: TextIO | None = None) -> None:
    """A result on stdout, or in `file`. A program gets its very bytes, a terminal what can be shown."""
    file = sys.stdout if file is None else file
    print(defused(path) if file.isatty() else path, file=file, flush=True)


def show_json(value: Any, file: TextIO | None = None, indent: int | None = None) -> None:
    """`value` as JSON on stdout, or in `file`. What would steer a terminal is escaped: nothing is lost."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    # Outside of strings, JSON of this kind has no control character but the newline.
    text = _ARMED.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)
    print(text, file=file, flush=True)


def make_libraries_harmless() -> None:
    """What Python and libraries print goes through the filter too: warnings, log records, tracebacks.

    For whoever owns the process: it stays so until it ends.
    """
    format_warning = warnings.formatwarning

    def formatted(*arguments: Any, **named: Any) -> str:
        return defused_lines(format_warning(*arguments, **named))

    warnings.formatwarning = formatted
    logging.setLogRecordFactory(_Record)
    sys.excepthook = _show_trace
    threading.excepthook = lambda hit: _show_trace(hit.exc_type, hit.exc_value, hit.exc_traceback)
    sys.unraisablehook = lambda hit: _show_trace(hit.exc_type, hit.exc_value, hit.exc_traceback)


class _Record(logging.LogRecord):
    def getMessage(self) -> str:  # noqa: N802 - logging's own name
        return defused_lines(super().getMessage())


def _show_trace(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    with contextlib.suppress(OSError):
        text = "".join(traceback.format_exception(kind, error, trace)).rstrip("\n")
        print(defused_lines(text), file=sys.stderr, flush=True)


def open_console(color: str, file: TextIO | None = None) -> Console:
    """A rich console on stdout or `file`.

    Args:
        color: `never`: not one escape sequence for style. `always`: colours whatever the environment and
            the file say. `auto`: rich's own judgement, which heeds NO_COLOR, FORCE_COLOR and TERM.
    """
    from rich.console import Console

    system: Literal["auto", "standard"] | None = "auto"
    if color == "never":
        system = None
    elif color == "always" and os.environ.get("TERM", "").lower() in _DUMB:
        system = "standard"
    return Console(
        file=file,
        color_system=system,
        no_color=False if color == "always" else None,
        force_terminal=True if color == "always" else None,
        markup=False,
        emoji=False,
        highlight=False,
    )


@contextlib.contextmanager
def held_interrupts() -> Iterator[None]:
    """Holds Ctrl-C back until the block is over.

    For imports of libraries in C: an exception inside that of torch aborts the process, or is swallowed.
    """
    # A handler that was not set from Python is None, and could not be put back.
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is None:
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)


_END_SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_AGAIN_AFTER_S = 2.0
"""A terminal that closes and a service manager both send more than one, at once."""
_ended_by: signal.Signals | None = None


def end_signal() -> signal.Signals | None:
    """TERM or HUP, if one has come: whoever goes on after an interrupt leaves instead."""
    return _ended_by


@contextlib.contextmanager
def end_signals_as_interrupts() -> Iterator[None]:
    """TERM and HUP end the block as Ctrl-C does, in order; a second one, later, ends the process at once.

    One that is ignored, as HUP under nohup, stays so.
    """
    global _ended_by
    _ended_by = None
    came_at = 0.0

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal came_at
        global _ended_by
        now = time.monotonic()
        if _ended_by is None:
            _ended_by, came_at = signal.Signals(number), now
            if callable(signal.getsignal(signal.SIGINT)):
                signal.raise_signal(signal.SIGINT)
            else:  # ignored, as in a job in the background
                raise KeyboardInterrupt
        elif now - came_at > _AGAIN_AFTER_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for each in _END_SIGNALS:
            if signal.getsignal(each) == signal.SIG_DFL:
                before[each] = signal.signal(each, on_signal)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def prepare_streams() -> None:
    """Makes the standard streams safe to use, whatever the parent has done to them.

    A descriptor that it has closed would be that of the next file, and what is printed would go there. A
    character that a stream's encoding does not have is escaped; bytes of a file's name go out as they are.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stderr is None:
        # print() would take stdout instead.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - it stays open
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            is_utf8 = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def settle_streams() -> None:
    """Flushes stdout and stderr; what cannot be written by now is dropped.

    Python would complain once more, and change the exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                with contextlib.suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
