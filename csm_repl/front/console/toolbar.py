"""The line at the bottom: who speaks, how full the context is, and what the next take is made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.utils import get_cwidth

from csm_repl.front.console.lexer import speaker_style
from csm_repl.front.printers.rich import speaker_label

if TYPE_CHECKING:
    from csm_repl.studio import Studio

__all__ = ["Toolbar"]

_GAP = "  "
_HINTS = ("$HELP$", "Alt-Enter newline", "Ctrl-D leaves")


class Toolbar:
    """Drawn at every keystroke, so what costs time is measured once a prompt, by `refresh`.

    Args:
        studio: is read, never changed.
        columns: width of the terminal at this moment.
        mode: what the editor is in, such as vi's normal mode; empty: nothing special.
    """

    def __init__(
        self, studio: Studio, columns: Callable[[], int], mode: Callable[[], str] = lambda: ""
    ) -> None:
        self._studio = studio
        self._columns = columns
        self._mode = mode
        self._context = ""
        self.message = ""
        """Stands in for everything else while it is not empty."""
        self.refresh()

    def refresh(self) -> None:
        """To be called before each prompt."""
        studio = self._studio
        self._context = f"context {studio.context_used}/{studio.engine.max_positions}"

    def __call__(self) -> StyleAndTextTuples:
        if self.message:
            return [("class:toolbar.message", f" {self.message} ")]
        result: StyleAndTextTuples = [("", " ")]
        left = self._columns() - 1
        for style, text in self._segments():
            width = get_cwidth(text)
            if width > left:
                break
            result += [(f"class:toolbar {style}", text), ("", _GAP)]
            left -= width + len(_GAP)
        return result

    def _segments(self) -> list[tuple[str, str]]:
        """In the order of their weight: a narrow terminal loses the last ones."""
        studio, settings = self._studio, self._studio.settings
        speaker = studio.primary
        segments = [
            (speaker_style(speaker), speaker_label(speaker, studio.voice(speaker))),
            ("", self._context),
            ("", studio.model.device),
            ("", f"seed {'random' if studio.next_seed is None else studio.next_seed}"),
            ("", f"temp {settings.temperature:g}"),
        ]
        if mode := self._mode():
            segments.insert(0, ("class:toolbar.mode", mode))
        return segments + [("class:toolbar.hint", hint) for hint in _HINTS]
