"""How a turn's text is said: the user's table, the rules, and what the model's tokenizer can write."""

from __future__ import annotations

from csm_repl.errors import LineError
from csm_repl.text.grammar import Turn
from csm_repl.text.normalise import PronounceTable, normalise

__all__ = ["said_text", "unwritable_notice"]

_SHOWN = 12


def said_text(text: str, how: str, table: PronounceTable) -> str:
    """`text` as it is said.

    Args:
        how: `safe` or `off`, as the setting.
        table: the user's own, which wins over the rules.
    """
    if how == "off":
        return text
    said, at = "", 0
    for item in table.applied(text).replacements:
        # What the user has written is said as it stands.
        said += normalise(text[at : item.start]).said + item.said
        at = item.end
    said += normalise(text[at:]).said
    # Where a turn's first or last words are left out.
    return said.strip() if said != text else text


def unwritable_notice(turns: list[tuple[Turn, str, str]]) -> str | None:
    """What to say about signs that the tokenizer cannot write.

    Args:
        turns: each with how it is said and the characters of that which no id stands for.

    Raises:
        LineError: of a turn nothing is left.
    """
    for turn, said, unwritable in turns:
        left = [char for char in said if char.isalnum() and char not in unwritable]
        if left:
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
