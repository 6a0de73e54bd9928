"""Completes `$COMMANDS$`, their first argument, a setting's value, and the name that a turn begins with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from csm_repl.front.printers import defused
from csm_repl.settings import SettingSpec, spec
from csm_repl.studio.commands import COMMANDS
from csm_repl.text.grammar import SEPARATOR
from csm_repl.text.voice_names import folded_name

if TYPE_CHECKING:
    from csm_repl.studio import Studio

__all__ = ["CommandCompleter", "begins_command", "closed_command", "is_left_open"]

_NAME = re.compile(r"\s*\$([^\W\d_]*)\Z")
_ARGUMENTS = re.compile(r"\s*\$([^\W\d_]+)\$?\s+([^$]*)\Z")
_OPEN = re.compile(r"\s*\$([^\W\d_]+)([ \t][^$|\n]*)?\Z")
_VALUE_WORDS = ("on", "off", "auto", "random", "emacs", "vi")
"""Settings take these words or none; each is offered where the setting's own parser accepts it."""


def begins_command(text: str) -> bool:
    """Whether what has been typed so far can only become a command."""
    return _NAME.match(text) is not None or _ARGUMENTS.match(text) is not None


def is_left_open(text: str) -> bool:
    """Whether a completion has left `text` as a command whose arguments are still to come."""
    return begins_command(text) and text.endswith(" ")


def closed_command(text: str) -> str:
    """`text` with the dollar sign that ends a command, where only that is missing."""
    match = _OPEN.match(text)
    return f"{text.rstrip()}$" if match and match[1].upper() in COMMANDS else text


class CommandCompleter(Completer):
    """Reads the registry of commands.

    Args:
        studio: is asked for what may stand as an argument.
    """

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        typed = document.text_before_cursor
        if match := _NAME.match(typed):
            yield from _names(match[1])
        elif match := _ARGUMENTS.match(typed):
            yield from self._arguments(match[1].upper(), match[2], closed=document.text_after_cursor != "")
        elif not document.text_after_cursor.lstrip().startswith(":"):
            yield from self._voices(typed.rpartition("\n")[2].rpartition(SEPARATOR)[2].lstrip())

    def _voices(self, typed: str) -> Iterator[Completion]:
        begun = folded_name(typed)
        if not begun:
            return
        for voice in self._studio.roster.voices:
            if folded_name(voice.name).startswith(begun):
                yield Completion(
                    f"{voice.name}: ",
                    start_position=-len(typed),
                    display=defused(voice.name),
                    display_meta=f"speaker {voice.speaker}",
                )

    def _arguments(self, name: str, typed: str, *, closed: bool) -> Iterator[Completion]:
        command = COMMANDS.get(name)
        if command is None or command.complete is None:
            return
        end = "" if closed else "$"
        first, space, value = typed.partition(" ")
        if name == "SET" and space:
            yield from self._values(first, value.lstrip(), end)
            return
        if space:
            return
        for word in command.complete(self._studio):
            if not word.lower().startswith(first.lower()):
                continue
            setting = _setting(word) if name == "SET" else None
            yield Completion(
                word + (" " if setting else end),
                start_position=-len(first),
                display=defused(word),
                display_meta=setting.help if setting else "",
            )

    def _values(self, name: str, typed: str, end: str) -> Iterator[Completion]:
        setting = _setting(name)
        if setting is None or not setting.live:
            return
        for word in _VALUE_WORDS:
            if word.startswith(typed.lower()) and _accepts(setting, word):
                yield Completion(word + end, start_position=-len(typed), display=word)


def _names(typed: str) -> Iterator[Completion]:
    for name, command in COMMANDS.items():
        if name.startswith(typed.upper()):
            # One that needs arguments is left open for them.
            needs_arguments = command.args and not command.args.startswith("[")
            yield Completion(
                f"${name} " if needs_arguments else f"${name}$",
                start_position=-len(typed) - 1,
                display=command.usage,
                display_meta=command.help,
            )


def _setting(name: str) -> SettingSpec | None:
    try:
        return spec(name)
    except KeyError:
        return None


def _accepts(setting: SettingSpec, word: str) -> bool:
    try:
        setting.parse(word)
    except ValueError:
        return False
    return True
