from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.session.numbers import LAST_LINE, TakeNumber

numbers = st.builds(TakeNumber, st.integers(1, LAST_LINE), st.integers(0, LAST_LINE))


@given(numbers)
def test_what_is_shown_and_what_files_are_called_is_read_back(number: TakeNumber) -> None:
    assert TakeNumber.parse(str(number)) == number
    assert TakeNumber.of_stem(number.stem) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", TakeNumber(7)), (" 7.2 ", TakeNumber(7, 2)), ("007", TakeNumber(7)), ("7.02", TakeNumber(7, 2))],
)
def test_numbers_as_they_are_typed(text: str, number: TakeNumber) -> None:
    assert TakeNumber.parse(text) == number


@pytest.mark.parametrize("stem", ["7", "007-", "007-0", "007-x", "000", "x007", "track-0", "٠٠٧", "0" * 5000])
def test_other_files_have_no_number(stem: str) -> None:
    assert TakeNumber.of_stem(stem) is None
