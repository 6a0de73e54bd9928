"""Text in, plain data out: the grammar of a line, sentences, and how long a text takes to say."""

from csm_repl.text.duration import ceiling_seconds, expected_seconds
from csm_repl.text.grammar import (
    SEPARATOR,
    Command,
    Line,
    Span,
    SpanKind,
    Turn,
    closest,
    parse,
    render,
    spans,
)
from csm_repl.text.sentences import split_sentences

__all__ = [
    "SEPARATOR",
    "Command",
    "Line",
    "Span",
    "SpanKind",
    "Turn",
    "ceiling_seconds",
    "closest",
    "expected_seconds",
    "parse",
    "render",
    "spans",
    "split_sentences",
]
