from __future__ import annotations

from typing import Any

import pytest
from prompt_toolkit.formatted_text import to_plain_text
from prompt_toolkit.utils import get_cwidth

from csm_repl.front.console.toolbar import Toolbar


def _shown(studio: Any, columns: int = 100) -> str:
    return to_plain_text(Toolbar(studio, lambda: columns)())


def test_it_says_what_the_next_take_is_made_with(studio: Any) -> None:
    studio.next_seed = 7
    studio.context_used = 214
    studio.set("temperature", 0.5)
    assert _shown(studio).startswith(" 0 anna  context 214/2048  cpu  seed 7  temp 0.5")


@pytest.mark.parametrize("columns", [1, 20, 40, 60, 80, 200])
def test_it_fits_any_width(studio: Any, columns: int) -> None:
    studio.voices.names[0] = "日本語" * 30
    assert get_cwidth(_shown(studio, columns).rstrip()) <= columns


def test_a_narrow_terminal_loses_what_weighs_least(studio: Any) -> None:
    assert _shown(studio, 54).rstrip() == " 0 anna  context 0/2048  cpu  seed random  temp 0.9"


def test_a_voice_without_a_name_is_not_numbered_twice(studio: Any) -> None:
    studio.primary = 7
    assert _shown(studio).startswith(" speaker 7  ")


def test_a_message_stands_alone(studio: Any) -> None:
    toolbar = Toolbar(studio, lambda: 60)
    toolbar.message = "Ctrl-C again leaves."
    assert to_plain_text(toolbar()) == " Ctrl-C again leaves. "
