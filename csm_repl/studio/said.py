"""How a turn's text is said: the user's table, the rules, and what the model's tokenizer can write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from csm_repl.errors import LineError
from csm_repl.text.grammar import Turn
from csm_repl.text.normalise import Normalised, PronounceTable, Replacement, normalise
from csm_repl.text.pauses import find_pauses, without_pauses

__all__ = ["SaidText", "said_text", "unwritable_notice"]

_SHOWN = 12


@dataclass(frozen=True)
class SaidText:
    """A turn's text as it is said."""

    said: str
    """As the model gets it, pauses in it."""
    replacements: tuple[Replacement, ...] = ()
    """What stands for which characters of the text as typed. These made, `said` is the rest without outer
    white space."""


def said_text(text: str, how: str, table: PronounceTable) -> SaidText:
    """How `text` is said.

    Args:
        how: `safe` or `off`, as the setting.
        table: the user's own, which wins over the rules.

    Raises:
        LineError: a pause that is too long.
    """
    pauses = find_pauses(text)
    if how == "off":
        return SaidText(text)
    if not pauses and not table:
        found = normalise(text)
        return SaidText(found.said.strip(), found.replacements) if found.replacements else SaidText(text)
    replacements: list[Replacement] = []
    at = 0
    for start, end in [*((start, end) for start, end, _ in pauses), (len(text), len(text))]:
        replacements += _moved(_written_out(text[at:start], table), at)
        at = end
    said = Normalised(text, tuple(replacements)).said
    # Where a turn's first or last words are left out.
    return SaidText(said.strip() if replacements else text, tuple(replacements))


def _written_out(text: str, table: PronounceTable) -> Iterator[Replacement]:
    at = 0
    for item in table.applied(text).replacements:
        yield from _moved(normalise(text[at : item.start]).replacements, at)
        # What the user has written is said as it stands.
        yield item
        at = item.end
    yield from _moved(normalise(text[at:]).replacements, at)


def _moved(items: Iterable[Replacement], by: int) -> Iterator[Replacement]:
    for item in items:
        yield Replacement(item.start + by, item.end + by, item.said)


def unwritable_notice(turns: list[tuple[Turn, str, str]]) -> str | None:
    """What to say about signs that the tokenizer cannot write.

    Args:
        turns: each with how it is said, pauses left out, and the characters of that which no id stands for.

    Raises:
        LineError: of a turn nothing is left.
    """
    for turn, said, unwritable in turns:
        left = any(char.isalnum() and char not in unwritable for char in said)
        is_silence = not said.strip() and without_pauses(turn.text) != turn.text
        if left or is_silence:
            continue
        where = f"Turn {turn.position + 1} has nothing that can be spoken: {turn.text[:40]!r}"
        if not any(char.isalnum() for char in said):
            raise LineError(
                f"{where} is a direction, an emoji or a mark.",
                "Write words, or leave the turn out; $SET normalize off$ takes text as typed.",
            )
        raise LineError(
            f"{where} is in signs that this model has no tokens for.", "Write it in its alphabet."
        )
    missing = "".join(dict.fromkeys("".join(unwritable for _, _, unwritable in turns)))
    if not missing:
        return None
    shown = " ".join(missing[:_SHOWN]) + (" …" if len(missing) > _SHOWN else "")
    return f"This model has no tokens for {shown}, and leaves them out."
