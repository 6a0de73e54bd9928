"""The rows of a list of utterances: JSONL, a JSON array, or a table (CSV, TSV, columns with `|`).

UTF-8, or UTF-16 by its mark; line ends of any system. Everything is bounded: a file may be gigabytes of
anything, one line or a million, nested ten thousand deep.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from csm_repl.errors import UsageError

__all__ = ["AUDIO_KEYS", "SPEAKER_KEYS", "TEXT_KEYS", "Row", "read_lines", "read_rows"]

AUDIO_KEYS = (
    "audio", "path", "audio_filepath", "file_name", "audio_file", "audio_path", "wav_filename", "filename",
    "file", "wav",
)  # fmt: skip
"""The first one that is there counts. NeMo: audio_filepath; AudioFolder: file_name; Common Voice: path."""
TEXT_KEYS = ("text", "sentence", "transcription", "transcript", "normalized_text", "raw_text")
SPEAKER_KEYS = ("speaker", "speaker_id", "speaker_name", "client_id")

_MOST_BYTES = 1 << 30
_MOST_LINE = 1 << 20
"""Characters. An utterance takes some hundred, a conversation some thousand."""
_MOST_ROWS = 2_000_000
_BETWEEN = re.compile(r"[\s,\ufeff]*")
_FOREIGN = re.compile("[\0\udc80-\udcff]")
"""Bytes that are not UTF-8, and the zeros of UTF-16 without its mark."""
_SAMPLE_ROWS = 200
"""From which the columns of a table without a header are told."""


@dataclass(frozen=True)
class Row:
    """One object of a list."""

    where: str
    """`line 3` or `object 3`."""
    value: Any
    """As JSON has it; of a table, a dict from column to text."""
    fault: str = ""
    """Half a sentence on why there is no value."""


def read_rows(path: Path) -> Iterator[Row]:
    """The file's rows, as they come.

    Raises:
        UsageError: it cannot be read, or is too large.
    """
    try:
        n_bytes = path.stat().st_size
        if n_bytes > _MOST_BYTES:
            raise UsageError(
                f"{path} has {n_bytes / 1e9:.1f} GB, which is no list of utterances, or too long a one.",
                f"Split it into files of at most {_MOST_BYTES / 2**30:.0f} GiB.",
            )
        with _opened(path) as file:
            for number, row in enumerate(_rows(file, path)):
                if number >= _MOST_ROWS:
                    raise UsageError(f"{path} has more than {_MOST_ROWS:,} rows.", "Split it.")
                yield row
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.", "Check its name and permissions."
        ) from error
    except UnicodeError as error:
        raise UsageError(f"{path} begins like UTF-16 and is something else.", "Save it as UTF-8.") from error


def read_lines(path: Path) -> Iterator[tuple[int, str | None, str]]:
    """The lines of a text that are not blank: number, text without its end, and half a sentence where there
    is no text.

    Raises:
        OSError, UnicodeError: it cannot be read.
    """
    with _opened(path) as file:
        yield from _lines(file)


def _opened(path: Path) -> TextIO:
    with path.open("rb") as file:
        start = file.read(4)
    encoding = "utf-8-sig"
    if start in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        encoding = "utf-32"
    elif start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
    return path.open(encoding=encoding, errors=errors)


def _lines(file: TextIO) -> Iterator[tuple[int, str | None, str]]:
    n_read = 0
    for number in itertools.count(1):
        line = file.readline(_MOST_LINE)
        if not line:
            return
        n_read += len(line)
        too_long = len(line) == _MOST_LINE and not line.endswith("\n")
        while too_long and (rest := file.readline(_MOST_LINE)):
            n_read += len(rest)
            if rest.endswith("\n") or n_read > _MOST_BYTES:
                break
        if n_read > _MOST_BYTES:  # it grows while it is read
            return
        text = line.strip("\n").removeprefix("\ufeff")
        if too_long:
            yield number, None, f"is longer than {_MOST_LINE:,} characters"
        elif _FOREIGN.search(text) is not None:
            yield number, None, "is not UTF-8"
        elif text.strip():
            yield number, text, ""


def _rows(file: TextIO, path: Path) -> Iterator[Row]:
    start = file.read(_MOST_LINE).removeprefix("\ufeff").lstrip()
    file.seek(0)
    if start.startswith("[") or (start.startswith("{") and _is_spread(start)):
        return _json_stream(file)
    if start.startswith(("{", '"')) or path.suffix.lower() in (".json", ".jsonl"):
        return _json_lines(file)
    return _table(file, path)


# --- JSON -----------------------------------------------------------------------------------------------


def _is_spread(start: str) -> bool:
    """Whether an object takes several lines, as in a file made for reading."""
    first, _, rest = start.partition("\n")
    if not rest or _parsed(first)[1] == "":
        return False
    try:
        json.JSONDecoder().raw_decode(start)
    except (ValueError, RecursionError):
        return False
    return True


def _json_lines(file: TextIO) -> Iterator[Row]:
    for number, line, fault in _lines(file):
        value = None
        if line is not None:
            value, fault = _parsed(line)
        yield Row(f"line {number}", value, fault)


def _parsed(text: str) -> tuple[Any, str]:
    try:
        return json.loads(text), ""
    except RecursionError:
        return None, "is not JSON that can be read: it is nested too deep"
    except ValueError as error:
        return None, f"is not JSON: {error}"


def _json_stream(file: TextIO) -> Iterator[Row]:
    """The elements of an array, or objects one after the other, each of which may take several lines."""
    decoder = json.JSONDecoder()
    text, at, n_read = "", 0, 0
    at_end = in_array = False
    for number in itertools.count(1):
        while True:
            at = _end_of(_BETWEEN, text, at)
            if text.startswith("[", at) and not in_array:
                in_array, at = True, at + 1
                continue
            if text.startswith("]", at) and in_array:
                return
            fault = ""
            if at < len(text):
                try:
                    value, end = decoder.raw_decode(text, at)
                    # A number may go on in what has not been read yet.
                    if end < len(text) or at_end:
                        break
                except RecursionError:
                    fault, at_end = "is not JSON that can be read: it is nested too deep", True
                except ValueError as error:
                    fault = f"is not JSON: {error}"
            if at_end or len(text) - at > _MOST_LINE:
                if at < len(text):
                    yield Row(f"object {number}", None, f"{fault}; nothing after it is read")
                return
            more = file.read(_MOST_LINE)
            n_read += len(more)
            at_end = not more or n_read > _MOST_BYTES
            text, at = text[at:] + more, 0
        yield Row(f"object {number}", value)
        at = end


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


# --- tables ---------------------------------------------------------------------------------------------


def _table(file: TextIO, path: Path) -> Iterator[Row]:
    cells = _cells(file, path)
    sample = list(itertools.islice(cells, _SAMPLE_ROWS))
    whole = [row for _, row, _ in sample if row is not None]
    if not whole:
        return (Row(f"line {number}", None, fault) for number, _, fault in itertools.chain(sample, cells))
    header = [cell.strip().casefold() for cell in whole[0]]
    has_header = not set(header).isdisjoint(AUDIO_KEYS)
    names = header if has_header else _column_names(whole)
    rows = itertools.chain(sample, cells)
    return _named(rows, names, skip_first=has_header)


def _named(
    rows: Iterable[tuple[int, list[str] | None, str]], names: Sequence[str], *, skip_first: bool
) -> Iterator[Row]:
    for number, row, fault in rows:
        where = f"line {number}"
        if row is None:
            yield Row(where, None, fault)
        elif skip_first:
            skip_first = False
        elif not names:
            yield Row(where, None, "is no table of sound files and words that is known here")
        elif len(row) > len(names):
            yield Row(where, None, f"has {len(row)} columns, and the others have {len(names)}")
        else:
            # An empty cell is none.
            yield Row(where, {name: cell for name, cell in zip(names, row, strict=False) if cell.strip()})


def _column_names(rows: Sequence[Sequence[str]]) -> list[str]:
    """What the columns of a table without a header are; [] where that cannot be told.

    LJSpeech has file, words, words as they are said; others have the speaker in the middle or at the end.
    """
    n_columns = Counter(map(len, rows)).most_common(1)[0][0]
    if n_columns == 2:
        return ["audio", "text"]
    if n_columns != 3:
        return []
    middle, last = ([row[column].strip() for row in rows if len(row) == 3] for column in (1, 2))
    if _are_labels(middle, last):
        return ["audio", "speaker", "text"]
    if _are_labels(last, middle):
        return ["audio", "text", "speaker"]
    return ["audio", "raw_text", "text"]


def _are_labels(cells: Sequence[str], others: Sequence[str]) -> bool:
    """Whether `cells` are speakers, and `others` the words."""
    if any(" " in cell or not cell for cell in cells) or not any(" " in cell for cell in others):
        return False
    return len(set(cells)) < len(cells) or all(cell.isdecimal() for cell in cells)


def _cells(file: TextIO, path: Path) -> Iterator[tuple[int, list[str] | None, str]]:
    """Line number, cells, and half a sentence where there are none."""
    lines = _lines(file)
    first = next(((number, line, fault) for number, line, fault in lines if line is not None), None)
    if first is None:
        return
    every = itertools.chain([first], lines)
    start = first[1] or ""
    if path.suffix.lower() == ".tsv" or ("\t" in start and "|" not in start):
        delimiter = "\t"
    elif "|" in start:
        delimiter = "|"
    else:
        delimiter = ";" if ";" in start and "," not in start else ","
    if delimiter in "\t|":  # whoever uses these does not quote; LJSpeech has quotation marks in its words
        for number, line, fault in every:
            yield number, None if line is None else [_unquoted(cell) for cell in line.split(delimiter)], fault
        return
    yield from _quoted_cells(every, delimiter)


def _unquoted(cell: str) -> str:
    """A cell without the quotation marks that pandas and spreadsheets put around one with such marks."""
    inner = cell[1:-1]
    if len(cell) > 2 and cell[0] == cell[-1] == '"' and '""' in inner and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _quoted_cells(
    lines: Iterable[tuple[int, str | None, str]], delimiter: str
) -> Iterator[tuple[int, list[str] | None, str]]:
    number, faults = 0, []

    def texts() -> Iterator[str]:
        nonlocal number
        for number, line, fault in lines:
            if line is None:
                faults.append((number, fault))
            else:
                yield f"{line}\n"

    # It refuses a cell of more than 128 kB, as where a quotation mark is not closed.
    reader = csv.reader(texts(), delimiter=delimiter, skipinitialspace=True)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            row = None
        except csv.Error as error:
            yield number, None, f"is no row of a table: {error}"
            continue
        yield from ((at, None, fault) for at, fault in faults)
        faults.clear()
        if row is None:
            return
        yield number, row, ""
