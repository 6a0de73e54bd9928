"""What the three kinds of data say, and what is said about their faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.errors import UsageError
from csm_repl.train.data.manifest import Manifest
from csm_repl.train.data.sounds import FileSound
from csm_repl.train.data.sources.clip_folder import speaker_of
from csm_repl.train.data.sources.jsonl import read_jsonl
from csm_repl.train.data.sources.registry import read_manifest, read_manifests
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


# --- folders


@pytest.mark.parametrize(
    ("path", "speaker"),
    [
        ("a.wav", 0),
        ("anna/a.wav", 0),
        ("1/a.wav", 1),
        ("1-anna/a.wav", 1),
        ("1-anna/part2/a.wav", 1),
        ("1/2-bob/a.wav", 2),
        ("reference3-anna.wav", 3),
        ("reference.wav", 0),
        ("2/reference3.wav", 2),
        ("2024-05-01/a.wav", 0),
        ("1anna/a.wav", 0),
    ],
)
def test_the_nearest_numbered_folder_or_a_reference_name_says_the_speaker(path: str, speaker: int) -> None:
    assert speaker_of(Path(path)) == speaker


def test_a_folder_is_read_in_any_depth_and_in_the_order_of_its_paths(tmp_path: Path) -> None:
    write_clip(tmp_path / "1-anna" / "deep" / "b.wav", "Two.")
    write_clip(tmp_path / "a.wav", "One.")
    write_clip(tmp_path / ".hidden" / "c.wav", "Never.")
    write_clip(tmp_path / "._a.wav", None)
    (tmp_path / "notes.md").write_text("not a clip")
    manifest = read_manifest(str(tmp_path))
    assert [(r.name, r.turns[0].speaker) for r in manifest.entries] == [
        ("a.wav", 0),
        ("1-anna/deep/b.wav", 1),
    ]
    assert [entry.turns[0].txt for entry in manifest.entries] == [
        tmp_path / "a.txt",
        tmp_path / "1-anna" / "deep" / "b.txt",
    ]
    assert not manifest.problems


def test_two_clips_with_one_transcript_are_told(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", "One.")
    write_clip(tmp_path / "a.flac", "One.")
    assert told(read_manifest(str(tmp_path))) == [("a.wav", "It has the same transcript file as a.flac.")]


def test_a_transcripts_ending_may_be_in_capitals(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", None)
    (tmp_path / "a.TXT").write_text("One.")
    assert read_manifest(str(tmp_path)).entries[0].turns[0].txt == tmp_path / "a.TXT"


def test_an_empty_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing to train on.*Put clips \(\.wav"):
        read_manifest(str(tmp_path))


def test_what_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no .*nowhere.*hf:NAME"):
        read_manifest(str(tmp_path / "nowhere"))


# --- JSONL


def test_utterances_parts_and_conversations_of_a_jsonl_file(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path / "data.jsonl",
        {"audio": "x/a.wav", "text": "  One\n two. ", "speaker": 3},
        {"audio": "/abs/b.wav"},
        {"audio": "long.wav", "start": 1.5, "end": 2, "text": "Part."},
        {"turns": [{"audio": "a.wav", "text": "A", "in_loss": False}, {"audio": "b.wav", "speaker": 1}]},
    )
    manifest = read_manifest(str(path))
    assert not manifest.problems
    one, two, part, talk = manifest.entries
    assert (one.turns[0].text, one.turns[0].speaker) == ("One two.", 3)
    assert one.turns[0].sound == FileSound(tmp_path / "x/a.wav")
    assert two.turns[0].sound == FileSound(Path("/abs/b.wav"))
    assert (two.turns[0].text, two.turns[0].txt) == (None, Path("/abs/b.txt"))
    assert part.turns[0].sound == FileSound(tmp_path / "long.wav", 1.5, 2.0)
    assert part.name == "long.wav 1.5-2 s"
    assert [(turn.speaker, turn.in_loss) for turn in talk.turns] == [(0, False), (1, True)]


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
        ({"audio": "a.wav", "speaker": -1}, "has a speaker that is not a whole number from 0 to 999"),
        ({"audio": "a.wav", "speaker": "1"}, "has a speaker"),
        ({"audio": "a.wav", "speaker": True}, "has a speaker"),
        ({"audio": "a.wav", "speaker": 1000}, "has a speaker"),
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
    manifest = read_jsonl(jsonl(tmp_path / "data.jsonl", good, "", line, good))
    assert len(manifest.entries) == 2
    [(name, cause)] = told(manifest)
    assert name == "data.jsonl, line 3"
    assert words in cause
    assert cause.startswith("The line ")
    assert cause.endswith(".")


def test_unknown_keys_are_told_once(tmp_path: Path) -> None:
    line = {"audio": "a.wav", "speeker": 3}
    manifest = read_jsonl(jsonl(tmp_path / "data.jsonl", line, line, {"turns": [line], "id": 1}))
    assert manifest.notes == ("Keys in data.jsonl that mean nothing here: id (1×), speeker (3×).",)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"audio": "a.wav"}\r\n{"audio": "b.wav"}\r\n')
    assert [entry.name for entry in read_jsonl(path).entries] == ["a.wav", "b.wav"]


def test_a_file_without_a_usable_line_is_an_error_that_names_the_first_fault(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 1: The line is not an object"):
        read_jsonl(jsonl(tmp_path / "data.jsonl", "3", "4"))


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
        line.replace(b"\n", b"") if isinstance(line, bytes) else json.dumps(line).encode() for line in lines
    ]
    folder = tmp_path_factory.mktemp("lines")
    manifest = read_jsonl(jsonl(folder / "data.jsonl", {"audio": "a.wav"}, *encoded))
    written = sum(bool(line.strip()) for line in encoded)
    assert len(manifest.entries) + len(manifest.problems) == 1 + written
    assert all(0 <= turn.speaker <= 999 for entry in manifest.entries for turn in entry.turns)


def test_several_sources_are_joined_in_their_order(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "c.wav", "Three.")
    path = jsonl(tmp_path / "data.jsonl", {"audio": "a.wav"}, "nonsense")
    manifest = read_manifests([str(path), str(tmp_path / "clips")])
    assert [entry.name for entry in manifest.entries] == ["a.wav", "c.wav"]
    assert len(manifest.problems) == 1
    assert manifest.n_utterances == 2
