"""A saved session that is missing, edited, damaged or for another model is answered with a sentence."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csm_repl.errors import LineError
from csm_repl.session import store
from csm_repl.session.store import load_session, save_session, saved_folder

K = 4
HEADER = {"model": "sesame/csm-1b"}


def edit(folder: Path, change) -> None:
    path = folder / "session.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")


@pytest.fixture
def demo(tmp_path, small):
    folder = saved_folder(tmp_path, "demo")
    save_session(small(tmp_path / "takes"), folder, header=HEADER)
    return folder


def test_a_missing_session_is_answered_with_those_there_are(tmp_path, demo):
    with pytest.raises(LineError, match=r"no saved session demi\. Saved are: demo\."):
        load_session(saved_folder(tmp_path, "demi"), n_codebooks=K)
    with pytest.raises(LineError, match=r"None is saved yet"):
        load_session(saved_folder(tmp_path / "elsewhere", "demo"), n_codebooks=K)


def test_another_format_is_refused(demo):
    edit(demo, lambda data: data.update(format=3))
    with pytest.raises(LineError, match=r"has format 3; this version reads 1 to 2"):
        load_session(demo, n_codebooks=K)


def test_the_first_format_is_still_read(demo):
    """It had a running number for each turn, and its files were called so."""

    def first_format(data):
        data["format"] = 1
        for number, turn in enumerate(data["turns"], 1):
            turn.update(number=number, line=1, position=number - 1)
            del turn["n_turns"]

    edit(demo, first_format)
    turns = load_session(demo, n_codebooks=K)[0].turns
    assert [str(turn.number) for turn in turns] == ["1.1", "1.2"]
    assert [turn.file.name for turn in turns] == ["001.wav", "002.wav"]


def test_another_number_of_codebooks_is_refused_with_the_model_that_fits(demo):
    with pytest.raises(LineError, match=r"4 codebooks, the model 32.*\(sesame/csm-1b\)"):
        load_session(demo, n_codebooks=32)


def test_codes_and_tokens_that_the_model_cannot_look_up_are_refused(demo):
    assert load_session(demo, n_codebooks=K, codebook_size=3, vocab_size=3)
    with pytest.raises(LineError, match=r"a code in 002\.npy is 2, the model knows those below 2"):
        load_session(demo, n_codebooks=K, codebook_size=2)
    with pytest.raises(LineError, match=r"a text token is 2, the model knows those below 2"):
        load_session(demo, n_codebooks=K, vocab_size=2)


def _first(**changes):
    return lambda data: data["turns"][0].update(changes)


def _piece(**changes):
    return lambda data: data["turns"][0]["pieces"][0].update(changes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data.pop("turns"), "'turns' is missing"),
        (lambda data: data.pop("header"), "'header' is missing"),
        (lambda data: data["turns"].append(3), "a turn is no object"),
        (lambda data: data["turns"].append(data["turns"][0]), "line 1 is over"),
        (_first(line=2), "turn 2.1 is there already"),
        (_first(line=0), "'line' is not between"),
        (_first(line=10**30), "'line' is not between"),
        (_first(position=-1), "'position' is not between"),
        (_first(n_turns=0), "'n_turns' is not between"),
        (_first(speaker=10**30), "'speaker' is not between"),
        (_first(seed=2**63), "'seed' is not between"),
        (_first(seconds=10**400), "'seconds' is out of range"),
        (_first(seconds=-1), "'seconds' is out of range"),
        (_first(speaker=True), "'speaker' is missing or of the wrong kind"),
        (_first(speaker=-1), "'speaker' is not between 0 and"),
        (_first(seconds="long"), "'seconds' is missing or of the wrong kind"),
        (_first(text=None), "'text' is missing"),
        (_first(n_pieces_out=2), "'n_pieces_out' is not between 0 and 1"),
        (_first(codes=None), "pieces but no codes"),
        (_first(codes="../001.npy"), "'../001.npy' is no file of this session"),
        (_first(wav="/etc/passwd"), "no file of this session"),
        (_first(codes="009.npy"), "009.npy: No such file"),
        (_first(codes="001.wav"), "001.wav holds no codes"),
        (_piece(n_frames=4), "001.npy has 3 frames, the turn's pieces 4"),
        (_piece(n_frames=-3), "'n_frames' is not between 0 and"),
        (_piece(text_ids=[1, "2"]), "text_ids"),
        (_piece(text_ids=[-1]), "a text token is negative"),
    ],
)
def test_damage_in_the_json_is_named(demo, change, reason):
    edit(demo, change)
    with pytest.raises(LineError) as caught:
        load_session(demo, n_codebooks=K)
    assert "The session demo is damaged: " in caught.value.cause
    assert reason in caught.value.cause


@pytest.mark.parametrize("array", [np.zeros(3, np.int16), np.zeros((K, 3)), np.full((K, 3), -1)], ids=str)
def test_codes_that_are_none_are_damage(demo, array):
    np.save(demo / "001.npy", array)
    with pytest.raises(LineError, match="damaged"):
        load_session(demo, n_codebooks=K)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 100_000])
def test_json_that_is_none_is_damage(demo, content):
    (demo / "session.json").write_bytes(content)
    with pytest.raises(LineError, match="damaged"):
        load_session(demo, n_codebooks=K)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(path: Path) -> None:
    outside = path.parent.parent / f"outside{path.suffix}"
    path.rename(outside)
    path.symlink_to(outside)


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs and links")
@pytest.mark.parametrize("replace", [_fifo, _link, Path.unlink], ids=["fifo", "link", "missing"])
def test_a_wav_that_is_no_file_of_the_session_is_none(tmp_path, demo, replace):
    replace(demo / "001.wav")
    conversation, header = load_session(demo, n_codebooks=K)
    assert [turn.file for turn in conversation.turns] == [None, demo / "002.wav"]
    saved = save_session(conversation, saved_folder(tmp_path, "again"), header=header)
    assert saved.without_audio == ("1",)


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
def test_a_wav_that_becomes_a_fifo_later_is_not_waited_for(tmp_path, demo):
    conversation, header = load_session(demo, n_codebooks=K)
    _fifo(demo / "001.wav")
    assert save_session(conversation, saved_folder(tmp_path, "again"), header=header).without_audio == ("1",)


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs and links")
@pytest.mark.parametrize("replace", [_fifo, _link], ids=["fifo", "link"])
def test_codes_that_are_no_file_of_the_session_are_damage(demo, replace):
    replace(demo / "001.npy")
    with pytest.raises(LineError, match="damaged"):
        load_session(demo, n_codebooks=K)


@pytest.mark.skipif(sys.platform == "win32", reason="FIFOs")
def test_a_session_file_that_is_a_fifo_or_too_long_is_damage(demo, monkeypatch):
    monkeypatch.setattr(store, "_MAX_JSON_BYTES", 100)
    with pytest.raises(LineError, match="it is longer than"):
        load_session(demo, n_codebooks=K)
    _fifo(demo / "session.json")
    with pytest.raises(LineError, match="it is no regular file"):
        load_session(demo, n_codebooks=K)


def test_codes_that_many_turns_share_are_counted_for_each(demo, monkeypatch):
    """A small folder could fill the memory."""
    monkeypatch.setattr(store, "_MOST_FRAMES", 10)

    def share(data):
        data["turns"] = [{**data["turns"][0], "line": line} for line in range(1, 10)]

    edit(demo, share)
    with pytest.raises(LineError, match="it holds more than 10 frames"):
        load_session(demo, n_codebooks=K)


def test_what_is_in_a_file_makes_no_message_long(demo):
    for change in (lambda data: data.update(format="x" * 10_000), _first(wav="x" * 10_000)):
        edit(demo, change)
        with pytest.raises(LineError) as caught:
            load_session(demo, n_codebooks=K)
        assert len(str(caught.value)) < 400


def test_whole_seconds_written_by_hand_are_seconds(demo):
    edit(demo, _first(seconds=2))
    assert load_session(demo, n_codebooks=K)[0].turns[0].seconds == 2.0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.sampled_from(["session.json", "001.npy"]), st.data())
def test_any_damaged_byte_is_a_sentence_or_harmless(demo, file, data):
    path = demo / file
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    rest = b"" if cut else bytes([data.draw(st.integers(0, 255))]) + whole[at + 1 :]
    try:
        path.write_bytes(whole[:at] + rest)
        with suppress(LineError):
            load_session(demo, n_codebooks=K, codebook_size=2051, vocab_size=128_256)
    finally:
        path.write_bytes(whole)
