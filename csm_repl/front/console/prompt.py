"""Where a line is typed: prompt_toolkit's session, or a plain one where the terminal can do nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
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
from prompt_toolkit.input.typeahead import get_typeahead, store_typeahead
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyPress
from prompt_toolkit.key_binding.vi_state import InputMode
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import ColorDepth, Output
from prompt_toolkit.styles import Style
from prompt_toolkit.utils import is_dumb_terminal

from csm_repl.front.console.block import lines_of, pasted
from csm_repl.front.console.completer import CommandCompleter, begins_command
from csm_repl.front.console.history import PrivateHistory, history_file
from csm_repl.front.console.keys import key_bindings
from csm_repl.front.console.lexer import LineLexer, speaker_style
from csm_repl.front.console.terminal import echoing_keys, take_held
from csm_repl.front.console.toolbar import Toolbar
from csm_repl.front.jobs import TWICE_WITHIN_S, Interrupts
from csm_repl.front.printers import defused
from csm_repl.front.printers.rich import speaker_label
from csm_repl.studio.commands import command_names
from csm_repl.terminal import end_signal

if TYPE_CHECKING:
    from csm_repl.studio import Studio

__all__ = ["LeftByInterruptError", "LinePrompt", "PlainPrompt", "Prompt", "open_prompt"]

LEAVE_HINT = "Ctrl-C again leaves."
_CLEARED_HINT = f"Line cleared. {LEAVE_HINT}"
_SIGNAL_WAIT_S = 0.2
_WAITING_S = 0.03
"""A terminal that sends what was typed ahead makes no longer pauses."""
_READ_BYTES = 65_536
_ENDS = {Keys.Enter, Keys.ControlJ}
_VI_KEY_WAIT_S = 0.2
"""Esc and Enter are two keys in vi, and Alt-Enter is the same two, only faster."""
_STYLE = {
    "separator": "bold",
    "continuation": "fg:ansibrightblack",
    "name": "bold",
    "offset": "bold underline",
    "comment": "fg:ansibrightblack italic",
    "heading": "bold",
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
    "comment": "italic",
    "auto-suggestion": "italic",
    "bottom-toolbar": "reverse",
    "completion-menu.completion.current": "reverse",
}


class LeftByInterruptError(Exception):
    """Ctrl-C twice in a row."""


class Prompt(Protocol):
    def read(self) -> str:
        """What was typed or pasted until Enter: usually a line, without its end.

        Raises:
            EOFError: the user leaves.
            LeftByInterruptError: by Ctrl-C, twice.
            KeyboardInterrupt: Ctrl-C once, where the terminal itself has cleared the line.
        """
        ...

    def take_waiting(self) -> list[str]:
        """Takes the whole lines that were typed ahead; what was typed after them stays."""
        ...

    def remember(self, text: str) -> None:
        """Makes `text` the one that Up recalls."""
        ...

    def take_problem(self) -> str:
        """What does not work, as one sentence, once; empty: nothing."""
        ...


def open_prompt(
    studio: Studio,
    color: str,
    interrupts: Interrupts,
    *,
    on_interrupt: Callable[[], None],
    on_help: Callable[[], None],
) -> Prompt:
    """The best prompt that the terminal can show.

    Args:
        studio: is read for names, completions and the toolbar.
        color: `auto`, `always` or `never`.
        interrupts: counts Ctrl-C.
        on_interrupt: hears of a Ctrl-C at the prompt.
        on_help: shows the help.
    """
    if is_dumb_terminal():
        return PlainPrompt(studio, interrupts)
    history = PrivateHistory(history_file())
    return LinePrompt(studio, color, interrupts, history, on_interrupt=on_interrupt, on_help=on_help)


class PlainPrompt:
    """For terminals that only know lines. Ctrl-C arrives as a signal and is counted elsewhere."""

    def __init__(self, studio: Studio, interrupts: Interrupts) -> None:
        self._studio = studio
        self._interrupts = interrupts
        self._begun = ""
        """Typed ahead, without an end yet."""

    def read(self) -> str:
        label = f"{_label(self._studio)}> "
        if waiting := self.take_waiting():
            print(label + "\n".join(map(defused, waiting)))
            return "\n".join(waiting)
        begun, self._begun = self._begun, ""
        sys.stdout.write(label + defused(begun))
        sys.stdout.flush()
        try:
            with echoing_keys():
                line = self._read_line()
        except KeyboardInterrupt:
            print(f"\n{LEAVE_HINT}" if end_signal() is None else "")
            raise
        if not line:
            print()
            raise EOFError
        self._interrupts.forget()
        return begun + pasted(line.decode("utf-8", "replace"))

    def take_waiting(self) -> list[str]:
        data = take_held()
        while select.select([sys.stdin], [], [], _WAITING_S)[0]:
            more = os.read(sys.stdin.fileno(), _READ_BYTES)
            if not more:
                break
            data += more
        whole, _, self._begun = (self._begun + _typed(_keys(data))).rpartition("\n")
        return lines_of(whole)

    def remember(self, text: str) -> None:
        pass  # it has no history

    def take_problem(self) -> str:
        return ""

    def _read_line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            # A signal that comes just before a read that blocks would only be heard after it.
            while not select.select([sys.stdin], [], [], _SIGNAL_WAIT_S)[0]:
                pass
            data = os.read(sys.stdin.fileno(), _READ_BYTES)
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
        interrupts: Interrupts,
        history: History,
        *,
        on_interrupt: Callable[[], None],
        on_help: Callable[[], None],
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self._studio = studio
        self._interrupts = interrupts
        self._history = history
        self._on_interrupt = on_interrupt
        self._just_interrupted = False
        self.help = on_help
        self._session: PromptSession[str] = PromptSession(
            message=self._message,
            lexer=LineLexer(
                command_names(),
                lambda: studio.primary,
                lambda: studio.settings.offsets == "on",
                lambda: studio.roster,
            ),
            completer=CommandCompleter(studio),
            # Plain text is never interrupted by a menu.
            complete_while_typing=Condition(
                lambda: begins_command(self._session.default_buffer.document.text_before_cursor)
            ),
            history=history,
            auto_suggest=AutoSuggestFromHistory(),
            search_ignore_case=True,
            enable_suspend=True,
            key_bindings=key_bindings(self, LeftByInterruptError),
            bottom_toolbar=self._bottom,
            style=_style(color),
            include_default_pygments_style=False,
            color_depth=_color_depth(color),
            cursor=DynamicCursorShapeConfig(lambda: ModalCursorShapeConfig() if self._vi else None),
            prompt_continuation=_continuation,
            input=input,
            output=output,
        )
        # A terminal that does not say where its cursor is works as well; no need to warn anybody.
        self._session.app.renderer.cpr_not_supported_callback = None
        self._session.app.key_processor.after_key_press += self._after_key
        self.toolbar = Toolbar(studio, lambda: self._session.output.get_size().columns, self._mode)

    def read(self) -> str:
        self.toolbar.message = ""
        self.toolbar.refresh()
        self._session.editing_mode = EditingMode.VI if self._vi else EditingMode.EMACS
        app = self._session.app
        app.timeoutlen = _VI_KEY_WAIT_S if self._vi else 1.0
        app.ttimeoutlen = _VI_KEY_WAIT_S / 2 if self._vi else 0.5
        self._feed_held()
        # What is no UTF-8 arrives as halves of surrogate pairs, which nothing further on takes.
        return self._session.prompt().encode("utf-8", "replace").decode("utf-8")

    def take_waiting(self) -> list[str]:
        self._feed_held()
        keys = get_typeahead(self._session.input)
        with self._session.input.raw_mode():
            while more := self._session.input.read_keys():
                keys += more
                time.sleep(_WAITING_S)
        keys += self._session.input.flush_keys()
        ends = [number for number, press in enumerate(keys, 1) if press.key in _ENDS]
        n_whole = ends[-1] if ends else 0
        store_typeahead(self._session.input, keys[n_whole:])
        return lines_of(_typed(keys[:n_whole]))

    def _feed_held(self) -> None:
        store_typeahead(self._session.input, _keys(take_held()))

    def remember(self, text: str) -> None:
        self._history.append_string(text)

    def take_problem(self) -> str:
        return self._history.take_problem() if isinstance(self._history, PrivateHistory) else ""

    @property
    def _vi(self) -> bool:
        return self._studio.settings.editing_mode == "vi"

    def _mode(self) -> str:
        if not self._vi or get_app().vi_state.input_mode in {InputMode.INSERT, InputMode.INSERT_MULTIPLE}:
            return ""
        return get_app().vi_state.input_mode.name.lower().replace("navigation", "normal")

    def _message(self) -> StyleAndTextTuples:
        return [(speaker_style(self._studio.primary), _label(self._studio)), ("bold", "> ")]

    def _bottom(self) -> StyleAndTextTuples:
        n_lines = len(lines_of(self._session.default_buffer.text))
        if n_lines < 2 or self.toolbar.message:
            return self.toolbar()
        wide = self._session.output.get_size().columns >= 60
        keys = "Enter runs them, Ctrl-C drops them" if wide else "Enter runs them"
        return [("class:toolbar.message", f" {n_lines} lines: {keys} ")]

    # --- what the keys ask for: a `Keyboard` -----------------------------------------------------------

    def interrupted(self, had_text: bool) -> bool:
        self._just_interrupted = True
        self._on_interrupt()
        if self._interrupts.note() or end_signal() is not None:
            return True
        self._show_for_a_while(_CLEARED_HINT if had_text else LEAVE_HINT)
        return False

    def no_editor(self) -> None:
        self._show_for_a_while("No editor could be run: set VISUAL or EDITOR.")

    def _after_key(self, sender: object) -> None:
        if not self._just_interrupted:
            self._interrupts.forget()
        self._just_interrupted = False

    def _show_for_a_while(self, message: str) -> None:
        self.toolbar.message = message
        app = get_app()

        def clear() -> None:
            self.toolbar.message = ""
            app.invalidate()

        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_later(TWICE_WITHIN_S, clear)


def _keys(data: bytes) -> list[KeyPress]:
    keys: list[KeyPress] = []
    Vt100Parser(keys.append).feed(data.decode("utf-8", "surrogateescape"))
    return keys


def _typed(keys: Sequence[KeyPress]) -> str:
    """The text that keys would have typed, as far as they type any."""
    text = ""
    for press in keys:
        if press.key in _ENDS:
            text += "\n"
        elif press.key == Keys.BracketedPaste:
            text += pasted(press.data, at_end=False)
        elif press.key == Keys.Backspace:
            text = text[:-1]
        elif not isinstance(press.key, Keys):
            text += press.key
    return text


def _continuation(width: int, number: int, wraps: int) -> StyleAndTextTuples:
    """Every row is a line of its own, and numbered; one that the width has wrapped is not."""
    text = "" if wraps else f"{number + 1}> "
    return [("class:continuation", text.rjust(width))]


def _label(studio: Studio) -> str:
    return speaker_label(studio.primary, studio.voice(studio.primary))


def _color_depth(color: str) -> ColorDepth | None:
    """None leaves it to prompt_toolkit, which knows NO_COLOR and TERM."""
    return {"never": ColorDepth.MONOCHROME, "always": ColorDepth.DEFAULT}.get(color)


def _style(color: str) -> Style:
    monochrome = (_color_depth(color) or ColorDepth.from_env()) == ColorDepth.MONOCHROME
    return Style.from_dict(_STYLE | (_WITHOUT_COLORS if monochrome else {}))
