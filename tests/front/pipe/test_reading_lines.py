"""Scripts in whatever form editors and machines leave them."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.errors import LineError
from csm_repl.front.pipe.lines import MAX_LINE_BYTES, first_unreadable, read_lines

TEXT = "Zoë: 你好||Yes.1\n\nlast 🙂"
LINES = [(1, "Zoë: 你好||Yes.1"), (2, ""), (3, "last 🙂")]


class Slow:
    """Bytes in chunks of some sizes."""

    def __init__(self, data: bytes, sizes: Iterator[int]) -> None:
        self._file, self._sizes = io.BytesIO(data), sizes

    def read1(self, size: int, /) -> bytes:
        return self._file.read(min(size, next(self._sizes)))


def every(size: int) -> Iterator[int]:
    while True:
        yield size


def lines(data: bytes, size: int = 7) -> list[tuple[int, str]]:
    found = list(read_lines(Slow(data, every(size))))
    return [(number, text if isinstance(text, str) else f"! {text.cause}") for number, text in found]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"]
)
def test_every_marked_encoding_and_line_end_gives_the_same_lines(encoding: str, end: str, size: int) -> None:
    mark = "" if encoding.startswith("utf-8") else "\ufeff"
    assert lines((mark + TEXT.replace("\n", end)).encode(encoding), size) == LINES


@given(st.text(alphabet="ab\r\n"), st.lists(st.integers(1, 5), min_size=1))
def test_lines_are_those_of_python_however_they_arrive(text: str, sizes: list[int]) -> None:
    def again() -> Iterator[int]:
        while True:
            yield from sizes

    found = [line for _, line in read_lines(Slow(text.encode(), again()))]
    assert found == io.StringIO(text, newline=None).read().splitlines()


def test_a_line_that_ends_in_cr_is_handed_out_at_once() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        found = read_lines(file)
        os.write(writing, b"one\r")
        assert next(found) == (1, "one")
        os.write(writing, b"\ntwo\r\n")
        assert next(found) == (2, "two")
        os.close(writing)
        assert list(found) == []


def test_a_line_in_another_encoding_is_an_error_and_the_next_ones_are_read() -> None:
    assert lines(b"one\nZo\xeb\nthree") == [(1, "one"), (2, "! This line is not UTF-8."), (3, "three")]


def test_utf_16_without_its_mark_is_named() -> None:
    (number, text), *_ = lines("Hello.\nYes.\n".encode("utf-16-le"))
    assert number == 1
    assert "UTF-16 without its mark" in text


@pytest.mark.parametrize("cut", [b"\x00\xd8x\x00", b"x"])
def test_broken_utf_16_is_the_last_line(cut: bytes) -> None:
    found = lines("\ufeffone\n".encode("utf-16-le") + cut)
    assert found[0] == (1, "one")
    assert "UTF-16" in found[-1][1]


@pytest.mark.parametrize("data", [b"\0", b"x", b"\xff"])
def test_input_without_line_ends_is_read_up_to_the_bound(data: bytes) -> None:
    class Endless:
        n_read = 0

        def read1(self, size: int, /) -> bytes:
            self.n_read += size
            return data * size

    endless = Endless()
    tracemalloc.start()
    [(number, text)] = list(read_lines(endless))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert number == 1
    assert isinstance(text, LineError)
    assert endless.n_read < 2 * MAX_LINE_BYTES
    assert peak < 10 * MAX_LINE_BYTES


def test_a_file_is_looked_through_without_being_moved(tmp_path: Path) -> None:
    path = tmp_path / "script.txt"
    path.write_bytes(b"one\ntwo\nZo\xeb\n")
    with path.open("rb") as file:
        found = first_unreadable(file.fileno())
        assert found is not None
        assert found[0] == 3
        assert file.read() == path.read_bytes()
    path.write_bytes(b"one\ntwo\n")
    with path.open("rb") as file:
        assert first_unreadable(file.fileno()) is None


def test_a_pipe_is_not_looked_through() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"\xff\n")
    assert first_unreadable(reading) is None
    os.close(writing)
    assert os.read(reading, 9) == b"\xff\n"
    os.close(reading)
