"""How text is said: the table of docs/normalisation.md's cases, and what holds for any text."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from csm_repl.text.normalise import normalise
from csm_repl.text.normalise.engine import Normalised, Replacement, joined

CASES = Path(__file__).with_name("cases.tsv")
LEFT_AS_TYPED: set[str] = set()
"""Texts of the table that are not written out although they should be. None is said wrongly."""


def cases() -> list[tuple[str, str, str]]:
    rows = []
    for line in CASES.read_text(encoding="utf-8").splitlines()[1:]:
        if line and not line.startswith("#"):
            kind, typed, said = line.split("\t")
            rows.append((kind, typed, said))
    return rows


def test_the_table_is_large_and_of_all_kinds() -> None:
    rows = cases()
    assert len(rows) >= 600
    assert len({kind for kind, _, _ in rows}) >= 30
    assert len({typed for _, typed, _ in rows}) == len(rows)
    assert len(LEFT_AS_TYPED) <= len(rows) / 100


@pytest.mark.parametrize(("kind", "typed", "said"), cases())
def test_a_case_of_the_table(kind: str, typed: str, said: str) -> None:
    assert normalise(typed).said == (typed if typed in LEFT_AS_TYPED else said), kind


@pytest.mark.parametrize(
    "text",
    [
        "She said that it was well worth the wait, didn't she?",
        "I see. May I come in? No. I said no.",
        "Mark my words; it's a long way to go - and back.",
        "“Well,” he said – and left…",
        "STOP SHOUTING AT ME!",
        "O'Neill's mother-in-law, Dr Who and the others",
        "",
        "   ",
        "Ça va très bien, merci. Das heißt schön.",
        "Привет, как дела? 你好。",
    ],
)
def test_a_text_without_digits_and_signs_stays_as_typed(text: str) -> None:
    assert normalise(text).replacements == ()


WORDS = """
    5 10 1990 2024 007 3.14 1,000 $5 €29.99 % km °C 1st 10:30 am p.m. May 25, Dr. St. Main No. #5 e.g.
    etc. vs. FBI US
    HTML CEOs Louis XIV Part I GPT-4 H2O CO₂ x² 2^6 + = - – — − ± ~ < > ≥ * ** _ __ ` [ ] ( ) ]( :) <3 😀
    👍🏽 ½ 3/4 1/2
    https://example.com/a1 a@b.co @ada foo_bar main.py /usr/bin v2.0 2.0.1 192.168.0.1 555-0100 +1 and
    the . , ! ? … ' ’
    " “ ” \n I A 's s -- ' 80s ft m s h in 5'11" & / \\ ™ •
"""
PIECES = st.sampled_from(WORDS.split())
TEXTS = st.lists(st.tuples(PIECES, st.sampled_from(["", " "])), max_size=14).map(
    lambda parts: "".join(piece + space for piece, space in parts)
)


@given(st.one_of(st.text(max_size=60), TEXTS))
@example("T Vs. US$5 5[1]6 M[x]r. Mr*. a**b**c")
@example("http://₀ 5٣ $٣.٤ ①²")
@example("*1* **2**3 1️⃣2️⃣ [1](2)")
@settings(max_examples=400)
def test_whatever_is_typed(text: str) -> None:
    found = normalise(text)
    # Nothing is lost or invented outside the spans, which are in order and apart.
    at, said = 0, ""
    for item in found.replacements:
        assert at <= item.start < item.end <= len(text)
        said += text[at : item.start] + item.said
        at = item.end
    assert found.said == said + text[at:]
    # What is said is said as it is.
    assert normalise(found.said).said == found.said


@given(st.data())
@settings(max_examples=300)
def test_two_replacings_are_joined_into_one(data: st.DataObject) -> None:
    def replacing(text: str) -> Normalised:
        cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
        spans = [pair for pair in itertools.pairwise(cuts) if data.draw(st.booleans())]
        words = st.sampled_from(["", "x", "yy", "zzz"])
        return Normalised(text, tuple(Replacement(start, end, data.draw(words)) for start, end in spans))

    first = replacing(data.draw(st.text("abcdef", max_size=20)))
    second = replacing(first.said)
    both = joined(first, second)
    assert both.said == second.said
    assert all(a.end <= b.start for a, b in itertools.pairwise(both.replacements))


def test_every_replacement_knows_what_it_stands_for() -> None:
    text = "On **May 25** Dr. Ray paid $5 [sighs] at 10:30 am."
    found = normalise(text)
    spans = [(text[item.start : item.end], item.said) for item in found.replacements]
    assert found.said == "On May twenty-fifth Doctor Ray paid five dollars at ten thirty A M."
    assert (" [sighs]", "") in spans
    assert ("$5", "five dollars") in spans
    assert any(typed.startswith("10:30") and said.startswith("ten thirty") for typed, said in spans)


@pytest.mark.parametrize(
    "piece",
    [
        "1",
        "a.",
        "[",
        "*",
        "1,",
        "1-",
        "http://",
        "@a",
        "`",
        "a@",
        "/a",
        "1.1.",
        "a-",
        "A.B.",
        "1/",
        "A1-",
        "-1",
        "(1)",
        " ",
    ],
)
def test_the_work_grows_with_the_length_and_no_faster(piece: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in tokens that are looked at; at each of them the patterns have limits of their own."""
    from csm_repl.text.normalise import engine

    looked_at = []
    usual = engine._rules
    monkeypatch.setattr(engine, "_rules", lambda *args: looked_at.append(1) or usual(*args))
    counts = []
    for n in (500, 2000):
        looked_at.clear()
        normalise(piece * n)
        counts.append(max(1, len(looked_at)))
    assert counts[1] <= 6 * counts[0]
