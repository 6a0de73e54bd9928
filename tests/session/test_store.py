"""A session saved and loaded is the same session; a broken one is a sentence, never a crash."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csm_repl.audio import read_audio
from csm_repl.errors import LineError, OutputError
from csm_repl.session import store as store_module
from csm_repl.session.conversation import Conversation, ConversationTurn, Piece
from csm_repl.session.store import load_session, save_session, saved_folder, saved_names

K = 4
HEADER = {"model": "sesame/csm-1b", "n_codebooks": K, "primary_speaker": 1, "note": "Grüße"}

texts = st.text(max_size=20)


@st.composite
def pieces(draw) -> Piece:
    n_frames = draw(st.integers(0, 5))
    codes = draw(st.lists(st.integers(0, 50_000), min_size=K * n_frames, max_size=K * n_frames))
    ids = draw(st.lists(st.integers(0, 128_255), max_size=5))
    return Piece(draw(texts), tuple(ids), torch.tensor(codes, dtype=torch.int64).reshape(K, n_frames))


@st.composite
def conversations(draw) -> Conversation:
    conversation = Conversation()
    line, position = 1, -1
    for _ in range(draw(st.integers(0, 4))):
        goes_on = draw(st.booleans())
        line, position = (line, position + 1) if goes_on else (line + 1, draw(st.integers(0, 9)))
        turn_pieces = tuple(draw(st.lists(pieces(), max_size=3)))
        turn = ConversationTurn(
            line=line,
            position=position,
            n_turns=draw(st.integers(2, 9)),
            speaker=draw(st.integers(0, 99)),
            voice=draw(texts),
            text=draw(texts),
            pieces=turn_pieces,
            seconds=draw(st.floats(0, 1e4)),
            seed=draw(st.integers(0, 2**63 - 1)),
            ended=draw(st.sampled_from(["end", "cut", "interrupted"])),
            in_context=draw(st.booleans()),
            n_pieces_out=draw(st.integers(0, len(turn_pieces))),
        )
        conversation.append(turn)
    return conversation


def plain(conversation: Conversation) -> list:
    """Everything there is, in a form that compares by value."""
    turns = []
    for turn in conversation.turns:
        values = {field.name: getattr(turn, field.name) for field in dataclasses.fields(turn)}
        values["pieces"] = [(p.text, p.text_ids, p.codes.dtype, p.codes.tolist()) for p in turn.pieces]
        del values["file"]
        turns.append(values)
    return turns


# --- there and back -----------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(conversations())
def test_what_is_loaded_is_what_was_saved(tmp_path, conversation):
    folder = saved_folder(tmp_path, "demo")
    save_session(conversation, folder, header=HEADER, replace=True)
    loaded, header = load_session(folder, n_codebooks=K)
    assert plain(loaded) == plain(conversation)
    assert header == HEADER
    assert loaded.last_line == conversation.last_line
    assert [span.n_positions for span in loaded.spans()] == [s.n_positions for s in conversation.spans()]
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]


def test_the_folder_holds_readable_json_and_the_takes_bytes(tmp_path, small):
    conversation = small(tmp_path / "takes")
    folder = saved_folder(tmp_path, "demo")
    saved = save_session(conversation, folder, header=HEADER)
    assert (saved.folder, saved.n_turns, saved.without_audio, saved.notice) == (folder, 2, (), "")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("001.npy", "001.wav", "002.npy", "002.wav", "session.json")
    ]
    assert (folder / "002.wav").read_bytes() == (tmp_path / "takes" / "take-2.wav").read_bytes()
    printed = (folder / "session.json").read_text(encoding="utf-8")
    assert '"format": 2' in printed
    assert '"note": "Grüße"' in printed
    assert '"text_ids": [1, 2]' in printed
    loaded, _ = load_session(folder, n_codebooks=K)
    assert [turn.file for turn in loaded.turns] == [folder / "001.wav", folder / "002.wav"]


def test_sound_that_is_gone_is_named_and_the_conversation_is_saved_all_the_same(tmp_path, small):
    conversation = small(tmp_path / "takes", 3)
    conversation.turns[0].file = None
    conversation.turns[2].file.unlink()
    folder = saved_folder(tmp_path, "demo")
    saved = save_session(conversation, folder, header={})
    assert saved.notice == (
        "Saved without the sound of turns 1, 3, which is gone; the conversation is whole."
    )
    loaded, _ = load_session(folder, n_codebooks=K)
    assert [turn.file for turn in loaded.turns] == [None, folder / "002.wav", None]
    assert plain(loaded) == plain(conversation)


@pytest.mark.parametrize(
    "put", [lambda path: path.symlink_to(path.parent.parent / "secret"), os.mkfifo, Path.mkdir]
)
def test_what_was_put_in_the_place_of_a_take_is_not_copied(tmp_path, small, put):
    (tmp_path / "secret").write_bytes(b"secret")
    conversation = small(tmp_path / "takes")
    conversation.turns[0].file.unlink()
    put(conversation.turns[0].file)
    folder = saved_folder(tmp_path, "demo")
    assert save_session(conversation, folder, header={}).without_audio == ("1",)
    assert not (folder / "001.wav").exists()


def test_a_loaded_session_goes_on_and_is_saved_again_under_its_name(tmp_path, small):
    folder = saved_folder(tmp_path, "demo")
    save_session(small(tmp_path / "takes"), folder, header=HEADER)
    shutil.rmtree(tmp_path / "takes")
    loaded, header = load_session(folder, n_codebooks=K)
    turn = dataclasses.replace(loaded.turns[0], line=loaded.last_line + 1)
    loaded.append(turn)
    assert save_session(loaded, folder, header=header, replace=True).without_audio == ()
    again, _ = load_session(folder, n_codebooks=K)
    assert plain(again) == plain(loaded)
    assert read_audio(again.turns[2].file)[0][0, 0] == 1 / 8
    assert saved_names(tmp_path) == ["demo"]


# --- names --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo", "a", "2025-11-21", "a.b_c-d", "gespräch", "_", "-x", "x" * 100])
def test_names_that_are_folders(tmp_path, name):
    assert saved_folder(tmp_path, name) == tmp_path / "saved" / name


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a\\b", "../a", "a b", "a\n", "a:b", "x" * 101])
def test_names_that_are_not(tmp_path, name):
    with pytest.raises(LineError, match="cannot be the name") as caught:
        saved_folder(tmp_path, name)
    assert "letters" in caught.value.remedy


@pytest.mark.parametrize("what", ["session", "empty folder", "file"])
def test_an_existing_name_is_refused_and_untouched(tmp_path, what, small):
    folder = saved_folder(tmp_path, "demo")
    folder.parent.mkdir()
    if what == "session":
        save_session(small(tmp_path / "takes", 1), folder, header={})
    elif what == "file":
        folder.write_text("mine")
    else:
        folder.mkdir()
    with pytest.raises(LineError, match=r"session demo already.*another name"):
        save_session(small(tmp_path / "takes"), folder, header={})
    if what == "session":
        assert len(load_session(folder, n_codebooks=K)[0]) == 1
    elif what == "file":
        assert folder.read_text() == "mine"
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]


def test_a_name_taken_while_saving_is_refused_and_untouched(tmp_path, monkeypatch, small):
    folder = saved_folder(tmp_path, "demo")
    write = store_module._write

    def slow(*args):
        folder.mkdir()
        (folder / "theirs").touch()
        return write(*args)

    monkeypatch.setattr(store_module, "_write", slow)
    with pytest.raises(LineError, match="session demo already"):
        save_session(small(tmp_path / "takes"), folder, header={})
    assert [path.name for path in folder.iterdir()] == ["theirs"]
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]


def test_saved_names_are_sessions_only(tmp_path):
    assert saved_names(tmp_path) == []
    for name in ("b", "a"):
        save_session(Conversation(), saved_folder(tmp_path, name), header={})
    (tmp_path / "saved" / "other").mkdir()
    (tmp_path / "saved" / ".a-1.part").mkdir()
    (tmp_path / "saved" / ".a-1.part" / "session.json").touch()
    assert saved_names(tmp_path) == ["a", "b"]


# --- failures while saving ----------------------------------------------------------------------------


def test_a_root_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        save_session(Conversation(), saved_folder(tmp_path / "file", "demo"), header={})


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("failure", [OutputError("The disk is full."), KeyboardInterrupt()], ids=repr)
def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch, replace, failure, small):
    folder = saved_folder(tmp_path, "demo")
    save_session(small(tmp_path / "takes", 1), folder if replace else folder.with_name("other"), header={})
    before = {path: path.read_bytes() for path in folder.parent.rglob("*.*")}

    def broken(*_):
        raise failure

    monkeypatch.setattr(store_module, "json_bytes", broken)
    with pytest.raises(type(failure)):
        save_session(small(tmp_path / "takes"), folder, header={}, replace=replace)
    assert {path: path.read_bytes() for path in folder.parent.rglob("*.*")} == before
    assert len(list(folder.parent.iterdir())) == 1


def test_a_replacement_that_cannot_be_put_in_place_puts_the_old_one_back(tmp_path, monkeypatch, small):
    folder = saved_folder(tmp_path, "demo")
    save_session(small(tmp_path / "takes", 1), folder, header={"version": "old"})
    rename = Path.rename

    def broken(self, target):
        if self.suffix == ".part":
            raise PermissionError(13, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OutputError, match="Permission denied"):
        save_session(small(tmp_path / "takes"), folder, header={}, replace=True)
    assert load_session(folder, n_codebooks=K)[1] == {"version": "old"}
    assert [path.name for path in folder.parent.iterdir()] == ["demo"]
