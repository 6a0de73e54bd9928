"""Where a line is typed: prompt_toolkit's session, or a plain one where the terminal can do nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.cursor_shapes import DynamicCursorShapeConfig, ModalCursorShapeConfig
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding.vi_state import InputMode
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import is_dumb_terminal

from csm_repl.front.console.completer import CommandCompleter, begins_command
from csm_repl.front.console.history import PrivateHistory, history_file
from csm_repl.front.console.keys import key_bindings
from csm_repl.front.console.lexer import LineLexer, speaker_style
from csm_repl.front.console.toolbar import Toolbar
from csm_repl.front.jobs import TWICE_WITHIN_S
from csm_repl.front.printers.rich import speaker_label
from csm_repl.studio.commands import command_names

if TYPE_CHECKING:
    from csm_repl.studio import Studio

__all__ = ["LeftByInterruptError", "LinePrompt", "PlainPrompt", "Prompt", "open_prompt"]

LEAVE_HINT = "Ctrl-C again leaves."
_CLEARED_HINT = f"Line cleared. {LEAVE_HINT}"
_SIGNAL_WAIT_S = 0.2
_VI_KEY_WAIT_S = 0.2
"""Esc and Enter are two keys in vi, and Alt-Enter is the same two, only faster."""
_STYLE = {
    "separator": "bold",
    "offset": "bold underline",
    "command": "bold",
    "command-args": "italic",
    "impossible": "fg:ansired underline",
    "auto-suggestion": "fg:ansibrightblack",
    # Both colours are set, so that it can be read on a dark and on a light terminal.
    "bottom-toolbar": "noreverse bg:#303030 fg:#c8c8c8",
    "toolbar.hint": "fg:#909090",
    "toolbar.mode": "bold",
    "toolbar.message": "bold",
    "completion-menu": "bg:#303030 fg:#c8c8c8",
    "completion-menu.completion.current": "noreverse bg:#c8c8c8 fg:#202020",
    "completion-menu.meta.completion": "bg:#262626 fg:#909090",
    "completion-menu.meta.completion.current": "bg:#606060 fg:#ffffff",
}
_WITHOUT_COLORS = {
    "auto-suggestion": "italic",
    "bottom-toolbar": "reverse",
    "completion-menu.completion.current": "reverse",
}


class LeftByInterruptError(Exception):
    """Ctrl-C twice in a row."""


class Prompt(Protocol):
    def read(self) -> str:
        """The next line.

        Raises:
            EOFError: the user leaves.
            LeftByInterruptError: by Ctrl-C, twice.
            KeyboardInterrupt: Ctrl-C once, where the terminal itself has cleared the line.
        """
        ...


def open_prompt(studio: Studio, color: str, on_interrupt: Callable[[], bool]) -> Prompt:
    """The best prompt that the terminal can show.

    Args:
        studio: is read for names, completions and the toolbar.
        color: `auto`, `always` or `never`.
        on_interrupt: hears of a Ctrl-C at the prompt; True leaves.
    """
    if is_dumb_terminal():
        return PlainPrompt(studio)
    return LinePrompt(studio, color, on_interrupt, history=PrivateHistory(history_file()))


class PlainPrompt:
    """For terminals that only know lines. Ctrl-C arrives as a signal and is counted elsewhere."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def read(self) -> str:
        sys.stdout.write(f"{_label(self._studio)}> ")
        sys.stdout.flush()
        try:
            line = self._read_line()
        except KeyboardInterrupt:
            print(f"\n{LEAVE_HINT}")
            raise
        if not line:
            print()
            raise EOFError
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            # A signal that comes just before a read that blocks would only be heard after it.
            while not select.select([sys.stdin], [], [], _SIGNAL_WAIT_S)[0]:
                pass
            data = os.read(sys.stdin.fileno(), 65_536)
            if not data:
                break
            line += data
        return line


class LinePrompt:
    """prompt_toolkit's session."""

    def __init__(
        self,
        studio: Studio,
        color: str,
        on_interrupt: Callable[[], bool],
        *,
        history: History,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self._studio = studio
        self._on_interrupt = on_interrupt
        self._session: PromptSession[str] = PromptSession(
            message=self._message,
            lexer=LineLexer(command_names(), lambda: studio.primary, lambda: studio.settings.offsets == "on"),
            completer=CommandCompleter(studio),
            # Plain text is never interrupted by a menu.
            complete_while_typing=Condition(
                lambda: begins_command(self._session.default_buffer.document.text_before_cursor)
            ),
            history=history,
            auto_suggest=AutoSuggestFromHistory(),
            search_ignore_case=True,
            enable_suspend=True,
            key_bindings=key_bindings(self._interrupted, LeftByInterruptError),
            bottom_toolbar=lambda: self.toolbar(),
            style=_style(color),
            include_default_pygments_style=False,
            color_depth=_color_depth(color),
            cursor=DynamicCursorShapeConfig(lambda: ModalCursorShapeConfig() if self._vi else None),
            prompt_continuation=lambda width, number, wrapped: " " * width,
            input=input,
            output=output,
        )
        # A terminal that does not say where its cursor is works as well; no need to warn anybody.
        self._session.app.renderer.cpr_not_supported_callback = None
        self.toolbar = Toolbar(studio, lambda: self._session.output.get_size().columns, self._mode)

    def read(self) -> str:
        self.toolbar.message = ""
        self.toolbar.refresh()
        self._session.editing_mode = EditingMode.VI if self._vi else EditingMode.EMACS
        app = self._session.app
        app.timeoutlen = _VI_KEY_WAIT_S if self._vi else 1.0
        app.ttimeoutlen = _VI_KEY_WAIT_S / 2 if self._vi else 0.5
        # What is no UTF-8 arrives as halves of surrogate pairs, which nothing further on takes.
        return self._session.prompt().encode("utf-8", "replace").decode("utf-8")

    @property
    def _vi(self) -> bool:
        return self._studio.settings.editing_mode == "vi"

    def _mode(self) -> str:
        if not self._vi or get_app().vi_state.input_mode in {InputMode.INSERT, InputMode.INSERT_MULTIPLE}:
            return ""
        return get_app().vi_state.input_mode.name.lower().replace("navigation", "normal")

    def _message(self) -> StyleAndTextTuples:
        return [(speaker_style(self._studio.primary), _label(self._studio)), ("bold", "> ")]

    def _interrupted(self, had_text: bool) -> bool:
        if self._on_interrupt():
            return True
        self._show_for_a_while(_CLEARED_HINT if had_text else LEAVE_HINT)
        return False

    def _show_for_a_while(self, message: str) -> None:
        self.toolbar.message = message
        app = get_app()

        def clear() -> None:
            self.toolbar.message = ""
            app.invalidate()

        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_later(TWICE_WITHIN_S, clear)


def _label(studio: Studio) -> str:
    return speaker_label(studio.primary, studio.voice(studio.primary))


def _color_depth(color: str) -> ColorDepth | None:
    """None leaves it to prompt_toolkit, which knows NO_COLOR and TERM."""
    return {"never": ColorDepth.MONOCHROME, "always": ColorDepth.DEFAULT}.get(color)


def _style(color: str) -> Style:
    monochrome = (_color_depth(color) or ColorDepth.from_env()) == ColorDepth.MONOCHROME
    return Style.from_dict(_STYLE | (_WITHOUT_COLORS if monochrome else {}))
