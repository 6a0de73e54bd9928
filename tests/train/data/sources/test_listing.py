"""Lists of utterances, and what is said about their faults."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.errors import UsageError
from csm_repl.train.data.manifest import Manifest
from csm_repl.train.data.sounds import FileSound
from csm_repl.train.data.sources import rows
from csm_repl.train.data.sources.listing import read_list
from csm_repl.train.data.sources.speakers import number_speakers
from tests.support.speech import write_clip


def jsonl(path: Path, *lines: Any) -> Path:
    """A file with each line as JSON, or as it is where it is text or bytes."""
    encoded = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def told(manifest: Manifest) -> list[tuple[str, str]]:
    return [(problem.name, problem.cause) for problem in manifest.problems]


def test_utterances_parts_and_conversations_of_a_jsonl_file(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "data.jsonl",
        {"audio": "x/a.wav", "text": "  One\n two. ", "speaker": 3},
        {"audio": "/abs/b.wav"},
        {"audio": "long.wav", "start": 1.5, "end": 2, "text": "Part."},
        {"turns": [{"audio": "a.wav", "text": "A", "in_loss": False}, {"audio": "b.wav", "speaker": 1}]},
    )
    manifest = read_list(path)
    assert not manifest.problems
    one, two, part, talk = manifest.entries
    assert (one.turns[0].text, one.turns[0].speaker) == ("One two.", "3")
    assert one.turns[0].sound == FileSound(tmp_path / "x/a.wav")
    assert two.turns[0].sound == FileSound(Path("/abs/b.wav"))
    assert (two.turns[0].text, two.turns[0].txt) == (None, Path("/abs/b.txt"))
    assert part.turns[0].sound == FileSound(tmp_path / "long.wav", 1.5, 2.0)
    assert part.name == "long.wav 1.5-2 s"
    assert [(turn.speaker, turn.in_loss) for turn in talk.turns] == [("", False), ("1", True)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        (b"\xff\xfe", "is not UTF-8"),
        ("[" * 100_000, "is not JSON"),
        ("3", "is not an object"),
        ({}, "has no audio"),
        ({"audio": ""}, "has no audio"),
        ({"audio": 3}, "has no audio"),
        ({"audio": "a\0.wav"}, "has no audio"),
        ({"audio": "a.wav", "text": " "}, "has an empty text"),
        ({"audio": "a.wav", "text": 3}, "has a text that is not a string"),
        ({"audio": "a.wav", "speaker": -1}, "a speaker that is neither a number from 0 to 999 nor a name"),
        ({"audio": "a.wav", "speaker": True}, "has a speaker"),
        ({"audio": "a.wav", "speaker": 1.5}, "has a speaker"),
        ({"audio": "a.wav", "speaker": ["anna"]}, "has a speaker"),
        ({"audio": "/", "text": "A"}, "has an audio that is not the path of a sound file"),
        ({"audio": ".", "text": "A"}, "has an audio that is not the path"),
        ({"audio": "x/..", "text": "A"}, "has an audio that is not the path"),
        ({"audio": "C:\\", "text": "A"}, "has an audio that is not the path"),
        ('{"audio": "\\ud800.wav"}', "has an audio that is not the path"),
        ({"audio": {"path": "a.wav"}, "text": "A"}, "has no audio"),
        ({"audio": None, "text": "A"}, "has no audio"),
        ('{"audio": "a.wav", "text": "\\ud800"}', "half a character"),
        ({"audio": "a.wav", "text": "a" * 6_000}, "has a text of 6,000 characters"),
        ('{"audio": "a.wav", "text": "' + "a" * 2_000_000 + '"}', "is longer than 1,048,576 characters"),
        ('{"audio":' + "[" * 10_000 + "]" * 10_000 + "}", "nested too deep"),
        ('{"audio": "a.wav", "text": "A", "start": 1e400}', "has a start that is not a number"),
        ({"audio": "a.wav", "text": "A", "start": "soon"}, "has a start that is not a number"),
        ({"audio": "a.wav", "text": "A", "offset": [1]}, "has an offset that is not a number"),
        (
            {"audio": "a.wav", "text": "A", "offset": 1, "duration": 0},
            "has an end that is not after its start",
        ),
        ({"audio": "a.wav", "in_loss": 1}, "has an in_loss"),
        ({"audio": "a.wav", "in_loss": False}, "nothing to learn"),
        ({"audio": "a.wav", "text": "A", "start": -1}, "has a start that is not a number of seconds"),
        ({"audio": "a.wav", "text": "A", "start": 2, "end": 2}, "has an end that is not after its start"),
        ('{"audio": "a.wav", "text": "A", "end": NaN}', "has an end that is not a number of seconds"),
        ({"audio": "a.wav", "start": 2}, "has no text, which a part of a file needs"),
        ({"turns": []}, "has turns that are not a list, or an empty one"),
        ({"turns": "a.wav"}, "has turns that are not a list"),
        ({"turns": [{"audio": "a.wav"}, 3]}, "has a turn 2 that is not an object"),
        ({"turns": [{"audio": "a.wav"}, {"text": "A"}]}, "has a turn 2 that has no audio"),
        ({"turns": [{"audio": "a.wav", "in_loss": False}]}, "in_loss false in every turn"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_the_rest_goes_on(
    line: Any, words: str, tmp_path: Path
) -> None:
    good = {"audio": "a.wav", "text": "A"}
    manifest = read_list(jsonl(tmp_path / "data.jsonl", good, "", line, good))
    assert len(manifest.entries) == 2
    [(name, cause)] = told(manifest)
    assert name == "data.jsonl, line 3"
    assert words in cause
    assert cause.startswith("The line ")
    assert cause.endswith(".")


def test_unknown_keys_are_told_once(tmp_path: Path) -> None:
    line = {"audio": "a.wav", "speeker": 3}
    manifest = read_list(jsonl(tmp_path / "data.jsonl", line, line, {"turns": [line], "id": 1}))
    assert manifest.notes == ("Keys in data.jsonl that mean nothing here: id (1×), speeker (3×).",)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"audio": "a.wav"}\r\n{"audio": "b.wav"}\r\n')
    assert [entry.name for entry in read_list(path).entries] == ["a.wav", "b.wav"]


def test_a_file_without_a_usable_line_is_an_error_that_names_the_first_fault(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 1: The line is not an object"):
        read_list(jsonl(tmp_path / "data.jsonl", "3", "4"))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
_KEYS = st.sampled_from(["audio", "text", "speaker", "start", "end", "in_loss", "turns"]) | st.text()


@given(st.lists(st.dictionaries(_KEYS, _VALUES, max_size=6) | _VALUES | st.binary(max_size=40), max_size=5))
def test_no_line_whatsoever_is_more_than_a_problem(
    tmp_path_factory: pytest.TempPathFactory, lines: list[Any]
) -> None:
    encoded = [
        re.sub(rb"[\r\n]", b"", line) if isinstance(line, bytes) else json.dumps(line).encode()
        for line in lines
    ]
    folder = tmp_path_factory.mktemp("lines")
    manifest = read_list(jsonl(folder / "data.jsonl", {"audio": "a.wav"}, *encoded))
    written = sum(bool(line.decode(errors="replace").removeprefix("\ufeff").strip()) for line in encoded)
    assert len(manifest.entries) + len(manifest.problems) == 1 + written
    number_speakers((turn.speaker for entry in manifest.entries for turn in entry.turns), {})


# --- other forms than JSONL


def found(manifest: Manifest) -> list[tuple[str, str | None, str]]:
    """What sounds, the words, and the speaker, of single utterances."""
    return [
        (Path(turn.sound.path).name, turn.text, turn.speaker)  # type: ignore[attr-defined]
        for entry in manifest.entries
        for turn in entry.turns
    ]


A, B = ("a.wav", "One.", "anna"), ("b.wav", "Two, three.", "ben")
OBJECTS = [{"path": "a.wav", "text": "One.", "speaker": "anna"}]
OBJECTS += [{"path": "b.wav", "text": "Two, three.", "speaker": "ben"}]
FORMS = {
    "array in a line": json.dumps(OBJECTS),
    "array over many lines": json.dumps(OBJECTS, indent=2),
    "objects over many lines": "\n".join(json.dumps(value, indent=2) for value in OBJECTS),
    "JSONL": "\n".join(json.dumps(value) for value in OBJECTS),
    "CSV": 'path,text,speaker\na.wav,One.,anna\nb.wav,"Two, three.",ben\n',
    "CSV with numbered rows": (
        ',file_name,transcription,speaker_id\n0,a.wav,One.,anna\n1,b.wav,"Two, three.",ben\n'
    ),
    "CSV of a spreadsheet": "Path;Sentence;Speaker\na.wav;One.;anna\nb.wav;Two, three.;ben\n",
    "TSV": "client_id\tpath\tsentence\nanna\ta.wav\tOne.\nben\tb.wav\tTwo, three.\n",
    "columns with a header": "audio_file|text|speaker_name\na.wav|One.|anna\nb.wav|Two, three.|ben\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_encoding_and_line_end_gives_the_same(
    form: str, end: str, encoding: str, tmp_path: Path
) -> None:
    path = tmp_path / ("data.jsonl" if form == "JSONL" else "data.txt")
    path.write_bytes(FORMS[form].replace("\n", end).encode(encoding))
    manifest = read_list(path)
    assert not manifest.problems
    assert found(manifest) == [A, B]


@pytest.mark.parametrize(
    ("text", "words", "speakers"),
    [
        ('L1|Dr. "Who" is 5|Doctor "Who" is five\nL2|Yes|Yes\n', ['Doctor "Who" is five', "Yes"], ["", ""]),
        ("L1|Only one text\nL2|Yes\n", ["Only one text", "Yes"], ["", ""]),
        ("L1|7|Hello there.\nL2|9|Yes.\n", ["Hello there.", "Yes."], ["7", "9"]),
        ("L1|Hello there.|p1\nL2|Yes.|p1\n", ["Hello there.", "Yes."], ["p1", "p1"]),
        ("L1|Said|\nL2|Yes|Yes\n", ["Said", "Yes"], ["", ""]),
    ],
)
def test_columns_without_a_header_are_told_apart(
    text: str, words: list[str], speakers: list[str], tmp_path: Path
) -> None:
    (tmp_path / "metadata.csv").write_text(text)
    manifest = read_list(tmp_path / "metadata.csv")
    assert [entry.turns[0].text for entry in manifest.entries] == words
    assert [entry.turns[0].speaker for entry in manifest.entries] == speakers


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ('"He said ""no"" twice."', 'He said "no" twice.'),
        ('"To be" or "not to be"', '"To be" or "not to be"'),
        ('"Quoted."', '"Quoted."'),
        ('5" long', '5" long'),
    ],
)
def test_quotation_marks_of_a_tsv_are_its_words_unless_they_are_doubled(
    cell: str, text: str, tmp_path: Path
) -> None:
    (tmp_path / "data.tsv").write_text(f"path\tsentence\na.mp3\t{cell}\n")
    assert read_list(tmp_path / "data.tsv").entries[0].turns[0].text == text


def test_a_csv_with_a_quotation_mark_left_open_loses_no_row_silently(tmp_path: Path) -> None:
    rest = "".join(f"{n}.wav,Words {n}.\n" for n in range(1_000))
    (tmp_path / "data.csv").write_text(f'path,text\na.wav,One.\nb.wav,"Two.\n{rest}')
    manifest = read_list(tmp_path / "data.csv")
    assert [entry.name for entry in manifest.entries] == ["a.wav"]
    [(_, cause)] = told(manifest)
    assert "has a text of" in cause


def test_bad_rows_of_a_table_are_told_with_their_numbers(tmp_path: Path) -> None:
    text = b"path,text\na.wav,One.\nb.wav\nc.wav,Caf\xe9\nd.wav,Four,five\n,Six\ne.wav,Seven.\n"
    (tmp_path / "data.csv").write_bytes(text)
    manifest = read_list(tmp_path / "data.csv")
    assert [entry.name for entry in manifest.entries] == ["a.wav", "b.wav", "e.wav"]
    assert told(manifest) == [
        ("data.csv, line 4", "The line is not UTF-8."),
        ("data.csv, line 5", "The line has 3 columns, and the others have 2."),
        ("data.csv, line 6", "The line has no audio, the path of a sound file."),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"audio": "a.wav"}, {"audio": "b', "object 2: .*the file ends|object 2"),
        ('[{"audio": "a.wav"}, ' + "[" * 10_000 + "]" * 10_000 + "]", "nested too deep; nothing after it"),
        ('[{"audio": "a.wav"}, {"text": "' + "a" * 3_000_000 + '"}, {"audio": "c.wav"}]', "nothing after it"),
        ('[{"audio": "a.wav"}, 3]', "object 2.*is not an object"),
    ],
)
def test_an_array_is_read_up_to_what_cannot_be(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(text)
    manifest = read_list(tmp_path / "data.json")
    assert [entry.name for entry in manifest.entries] == ["a.wav"]
    [(name, cause)] = told(manifest)
    assert re.search(words, f"{name}: {cause}")


def test_a_long_array_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_MOST_LINE", 100)
    values = [{"audio": f"{n}.wav", "text": "Words."} for n in range(500)]
    (tmp_path / "data.json").write_text(json.dumps(values))
    assert [entry.name for entry in read_list(tmp_path / "data.json").entries] == [v["audio"] for v in values]


def test_of_a_million_bad_lines_a_thousand_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text('{"audio": "a.wav"}\n' + "nonsense\n" * 3_000)
    manifest = read_list(path)
    assert len(manifest.problems) == 1_000
    assert manifest.n_more_problems == 2_000


def test_a_list_of_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.touch()
    os.truncate(path, 5 << 30)  # takes no space
    with pytest.raises(UsageError, match=r"5\.4 GB.*Split it"):
        read_list(path)


def test_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_MOST_ROWS", 3)
    with pytest.raises(UsageError, match="more than 3 rows"):
        read_list(jsonl(tmp_path / "data.jsonl", *[{"audio": "a.wav"}] * 4))


# --- parts


def test_nemos_offset_and_duration_are_a_part_and_a_duration_alone_is_not(tmp_path: Path) -> None:
    lines = [
        {"audio_filepath": "a.wav", "text": "Whole.", "duration": 3.45},
        {"audio_filepath": "a.wav", "text": "Part.", "offset": 1.5, "duration": 0.5},
    ]
    whole, part = read_list(jsonl(tmp_path / "train_manifest.json", *lines)).entries
    assert whole.turns[0].sound == FileSound(tmp_path / "a.wav")
    assert part.turns[0].sound == FileSound(tmp_path / "a.wav", 1.5, 2.0)


def test_times_in_a_table_are_text(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text('path,text,start,end\na.wav,One.,"0,5",1.5\n')
    assert read_list(tmp_path / "data.csv").entries[0].turns[0].sound == FileSound(
        tmp_path / "a.wav", 0.5, 1.5
    )


# --- paths


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("clips\\a.wav", "clips/a.wav"),
        (".\\clips\\a.wav", "clips/a.wav"),
        ("C:\\Users\\me\\data\\clips\\a.wav", "clips/a.wav"),
        ("D:/data/clips/a.wav", "clips/a.wav"),
        ("/somewhere/else/clips/a.wav", "clips/a.wav"),
        ("a", "wavs/a.wav"),
        ("a.mp3", "clips/a.mp3"),
        ("CLIPS/A.WAV", "CLIPS/A.WAV"),
        ("clips/A.wav", "clips/a.wav"),
        ("clips/ame\u0301lie.wav", "clips/am\u00e9lie.wav"),
        ("../other/a.wav", "../other/a.wav"),
        ("x\\y.wav", "x/y.wav"),
    ],
)
def test_a_path_is_found_where_the_file_is(name: str, where: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for sound in ("clips/a.wav", "wavs/a.wav", "clips/a.mp3", "clips/am\u00e9lie.wav", "../other/a.wav"):
        write_clip(folder / sound, None, 0.1)
    [entry] = read_list(jsonl(folder / "data.jsonl", {"audio": name, "text": "A"})).entries
    assert entry.turns[0].sound == FileSound(folder / where)


def test_paths_of_another_machine_are_told(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "a.wav", None, 0.1)
    manifest = read_list(jsonl(tmp_path / "data.jsonl", {"audio": "/gone/clips/a.wav", "text": "A"}))
    assert manifest.notes == (
        "data.jsonl names 1 files by another machine's paths; those of the same name beside it are used.",
    )


def test_a_speaker_that_no_row_names_is_named_by_the_folder(tmp_path: Path) -> None:
    lines = [{"audio": "p225/a.wav"}, {"audio": "wavs/b.wav"}, {"audio": "p225/a.wav", "speaker": 3}]
    manifest = read_list(jsonl(tmp_path / "data.jsonl", *lines))
    assert [entry.turns[0].speaker for entry in manifest.entries] == ["p225", "", "3"]
