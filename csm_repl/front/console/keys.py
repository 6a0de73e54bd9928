"""The console's own keys. Everything else is prompt_toolkit's emacs or vi."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.document import Document
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import (
    emacs_insert_mode,
    has_focus,
    vi_insert_mode,
)
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.bindings.search import start_reverse_incremental_search
from prompt_toolkit.key_binding.key_processor import KeyPressEvent
from prompt_toolkit.key_binding.vi_state import InputMode
from prompt_toolkit.keys import Keys

from csm_repl.front.console.block import pasted
from csm_repl.front.console.completer import closed_command, is_left_open
from csm_repl.front.console.editor import edited

__all__ = ["Keyboard", "key_bindings"]


class Keyboard(Protocol):
    """Who answers the keys."""

    def interrupted(self, had_text: bool) -> bool:
        """Hears of a Ctrl-C, and whether there was text to clear; True leaves the prompt."""
        ...

    def help(self) -> None:
        """Shows the help above the prompt."""
        ...

    def no_editor(self) -> None:
        """Says that no editor could be run."""
        ...


def key_bindings(keyboard: Keyboard, leave: type[BaseException]) -> KeyBindings:
    """The console's own keys.

    Args:
        keyboard: answers them.
        leave: raised where Ctrl-C leaves.
    """
    keys = KeyBindings()

    @keys.add(Keys.ControlC, filter=has_focus(DEFAULT_BUFFER))
    @keys.add(Keys.SIGINT)
    def _interrupt(event: KeyPressEvent) -> None:
        buffer = event.app.layout.get_buffer_by_name(DEFAULT_BUFFER)
        assert buffer is not None
        if keyboard.interrupted(bool(buffer.text)):
            event.app.exit(exception=leave, style="class:aborting")
            return
        buffer.reset()
        event.app.vi_state.input_mode = InputMode.INSERT

    @keys.add(Keys.Escape, Keys.Enter, filter=emacs_insert_mode | vi_insert_mode)
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add(Keys.BracketedPaste)
    def _paste(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        buffer.insert_text(pasted(event.data, at_end=buffer.document.is_cursor_at_the_end))

    @keys.add(Keys.Enter, filter=has_focus(DEFAULT_BUFFER))
    def _accept(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if _chosen(buffer) and is_left_open(buffer.text):
            buffer.complete_state = None
            buffer.start_completion()
            return
        if (closed := closed_command(buffer.text)) != buffer.text:
            buffer.document = Document(closed, len(closed))
        buffer.validate_and_handle()

    @keys.add(Keys.F1, filter=has_focus(DEFAULT_BUFFER))
    def _help(event: KeyPressEvent) -> None:
        run_in_terminal(keyboard.help)

    @keys.add(Keys.ControlX, Keys.ControlE, filter=has_focus(DEFAULT_BUFFER))
    def _edit(event: KeyPressEvent) -> None:
        event.app.create_background_task(_in_editor(event.current_buffer, keyboard.no_editor))

    # The emacs keys have it; vi's do not, and who types a line does not care in which mode.
    keys.add(Keys.ControlR, filter=vi_insert_mode)(start_reverse_incremental_search)
    return keys


async def _in_editor(buffer: Buffer, failed: Callable[[], None]) -> None:
    text = await run_in_terminal(lambda: edited(buffer.text), in_executor=True)
    if text is None:
        failed()
    else:
        buffer.document = Document(text, len(text))


def _chosen(buffer: Buffer) -> bool:
    return buffer.complete_state is not None and buffer.complete_state.current_completion is not None
