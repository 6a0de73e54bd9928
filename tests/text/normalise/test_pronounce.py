"""The user's own table."""

from __future__ import annotations

import pytest

from csm_repl.text.normalise import read_table


@pytest.mark.parametrize(
    ("table", "typed", "said"),
    [
        ("CSM = see ess em", "CSM, csm and CSMs.", "see ess em, csm and CSMs."),
        ("gif = jif", "A gif, a GIF, a Gif, gifs.", "A jif, a jif, a jif, gifs."),
        ("New York = Noo Yawk", "New  York and new york", "Noo Yawk and new york"),
        ("York = a\nNew York = b", "New York, York", "b, a"),
        ("C++ = see plus plus", "C++ and C.", "see plus plus and C."),
        ("a = b\nb = c", "a b", "b c"),
        ("Ada=Ayda", "Ada's", "Ayda's"),
        ("# comment\n\n\ufeffx = y", "x", "y"),
        ("", "x", "x"),
    ],
)
def test_whole_words_and_phrases_are_replaced(table: str, typed: str, said: str) -> None:
    found, complaints = read_table(table)
    assert found.applied(typed).said == said
    assert complaints == []


def test_a_broken_line_is_named_and_the_rest_counts() -> None:
    table, complaints = read_table(f"a\n= b\nc =\nd = e\nd = f\n{'x' * 300} = y\n")
    assert table.applied("d").said == "e"
    assert [complaint.split(" ")[1] for complaint in complaints] == ["1", "2", "3", "5", "6"]
