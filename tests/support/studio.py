"""A real studio on a tiny model, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from csm_repl.events import Event
from csm_repl.settings import load_settings
from csm_repl.studio import Studio, open_studio
from csm_repl.studio.reading import run_line

__all__ = ["MakeStudio", "of_type", "open_with", "say"]

MakeStudio = Callable[..., Studio]


def open_with(flags: dict[str, Any]) -> Studio:
    """A studio whose voices have been looked at once."""
    studio = open_studio(load_settings(flags, environ={}, dotenv=None))
    list(studio.refresh_voices())
    return studio


def say(studio: Studio, text: str) -> list[Event]:
    """All events of one input line."""
    return list(run_line(studio, text))


def of_type(events: Iterable[Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]
