"""Ctrl-C and Alt-Enter. Everything else is prompt_toolkit's emacs or vi."""

from __future__ import annotations

from collections.abc import Callable

from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import emacs_insert_mode, has_focus, vi_insert_mode
from prompt_toolkit.key_binding import KeyBindings
from prompt_toolkit.key_binding.bindings.search import start_reverse_incremental_search
from prompt_toolkit.key_binding.key_processor import KeyPressEvent
from prompt_toolkit.key_binding.vi_state import InputMode
from prompt_toolkit.keys import Keys

__all__ = ["key_bindings"]


def key_bindings(on_interrupt: Callable[[bool], bool], leave: type[BaseException]) -> KeyBindings:
    """The console's own keys.

    Args:
        on_interrupt: hears of a Ctrl-C, and whether there was text to clear; True leaves the prompt.
        leave: raised then.
    """
    keys = KeyBindings()

    @keys.add(Keys.ControlC, filter=has_focus(DEFAULT_BUFFER))
    @keys.add(Keys.SIGINT)
    def _interrupt(event: KeyPressEvent) -> None:
        buffer = event.app.layout.get_buffer_by_name(DEFAULT_BUFFER)
        assert buffer is not None
        if on_interrupt(bool(buffer.text)):
            event.app.exit(exception=leave, style="class:aborting")
            return
        buffer.reset()
        event.app.vi_state.input_mode = InputMode.INSERT

    @keys.add(Keys.Escape, Keys.Enter, filter=emacs_insert_mode | vi_insert_mode)
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    # The emacs keys have it; vi's do not, and who types a line does not care in which mode.
    keys.add(Keys.ControlR, filter=vi_insert_mode)(start_reverse_incremental_search)
    return keys
