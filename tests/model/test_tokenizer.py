"""Text to ids."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend

from csm_repl.errors import CheckpointError
from csm_repl.model.tokenizer import Tokenizer

BOS, EOS = 256, 257  # tools.random_checkpoint.write_tokenizer: 256 bytes, then these
VOCAB = 300


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    shutil.copy(tiny_checkpoint / "tokenizer.json", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> Tokenizer:
    return Tokenizer(tiny_checkpoint / "tokenizer.json", vocab_size=VOCAB)


def text_of(tokenizer: Tokenizer, ids: tuple[int, ...]) -> str:
    return tokenizer._backend.decode(list(ids[1:-1]), skip_special_tokens=False)


def edit(folder: Path, **changes: Any) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@given(st.text())
def test_bos_and_eos_are_around_every_text_and_nowhere_inside(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert (ids[0], ids[-1]) == (BOS, EOS)
    assert not {BOS, EOS} & set(ids[1:-1])


@given(st.text())
def test_no_text_is_lost(tokenizer: Tokenizer, text: str) -> None:
    assert text_of(tokenizer, tokenizer.encode(text)) == text


@pytest.mark.parametrize("token", ["<|end_of_text|>", "<|begin_of_text|>"])
def test_special_tokens_in_a_text_are_spelled_out(tokenizer: Tokenizer, token: str) -> None:
    ids = tokenizer.encode(f"Say {token} now.")
    assert len(ids) == 2 + len(f"Say {token} now.")
    assert text_of(tokenizer, ids) == f"Say {token} now."


@pytest.mark.parametrize("text", ["", "a\x00b", "👩‍👩‍👧‍👦 ok", "\u202eabc", "\n\t", "ÅÄÖ"])
def test_odd_texts_are_encoded(tokenizer: Tokenizer, text: str) -> None:
    assert text_of(tokenizer, tokenizer.encode(text)) == text


def test_a_lone_surrogate_is_no_error(tokenizer: Tokenizer) -> None:
    """What Python makes of bytes on stdin that are no UTF-8."""
    ids = tokenizer.encode("caf\udce9")
    assert text_of(tokenizer, ids).startswith("caf")


def test_a_hundred_thousand_characters_are_encoded(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("abcdefghi " * 10_000)) == 100_002


def test_a_truncation_saved_in_the_file_does_not_eat_text(folder: Path) -> None:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.enable_truncation(max_length=8)
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(folder / "tokenizer.json", vocab_size=VOCAB)
    assert len(tokenizer.encode("x" * 50)) == 52


def test_a_padding_saved_in_the_file_adds_nothing(folder: Path) -> None:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.enable_padding(length=64, pad_id=0, pad_token="!")
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = Tokenizer(folder / "tokenizer.json", vocab_size=VOCAB)
    assert len(tokenizer.encode("x")) == 3


@pytest.mark.parametrize(
    "names",
    [
        {"bos_token": "<s>", "eos_token": "</s>"},
        {"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": {"content": "</s>"}},
    ],
)
def test_names_in_tokenizer_config_are_honoured(folder: Path, names: dict[str, Any]) -> None:
    backend = Backend.from_file(str(folder / "tokenizer.json"))
    backend.add_special_tokens(["<s>", "</s>"])
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    ids = Tokenizer(folder / "tokenizer.json", vocab_size=VOCAB).encode("x")
    assert (ids[0], ids[-1]) == (backend.token_to_id("<s>"), backend.token_to_id("</s>"))


@pytest.mark.parametrize("config", [{}, {"bos_token": None, "eos_token": None}, {"bos_token": {}}])
def test_a_tokenizer_config_without_names_means_llamas(folder: Path, config: dict[str, Any]) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ids = Tokenizer(folder / "tokenizer.json", vocab_size=VOCAB).encode("x")
    assert (ids[0], ids[-1]) == (BOS, EOS)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_broken_tokenizer_config_is_named(folder: Path, text: str) -> None:
    (folder / "tokenizer_config.json").write_text(text)
    with pytest.raises(CheckpointError, match="tokenizer_config"):
        Tokenizer(folder / "tokenizer.json", vocab_size=VOCAB)


def test_a_name_that_the_tokenizer_lacks_is_named(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text('{"bos_token": "<start>"}')
    with pytest.raises(CheckpointError, match="has no <start>"):
        Tokenizer(folder / "tokenizer.json", vocab_size=VOCAB)


def test_more_tokens_than_the_model_has_embeddings_are_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="257 text embeddings"):
        Tokenizer(folder / "tokenizer.json", vocab_size=257)


def test_as_many_tokens_as_embeddings_are_fine(folder: Path) -> None:
    assert Tokenizer(folder / "tokenizer.json", vocab_size=258).encode("")[-1] == 257


def test_ids_beyond_the_model_are_refused_even_if_there_are_few(folder: Path) -> None:
    """Ids may have holes, so the number of tokens says nothing."""
    content = json.loads((folder / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab[next(token for token, index in vocab.items() if index == 3)] = 5000
    path = edit(folder, model=content["model"])
    with pytest.raises(CheckpointError, match="300 text embeddings"):
        Tokenizer(path, vocab_size=VOCAB)


@pytest.mark.parametrize("content", [b"", b"{}", b"no json", b"\xff\xfe", b'{"version": "1.0"}'])
def test_a_file_that_is_no_tokenizer_is_named(folder: Path, content: bytes) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is no tokenizer"):
        Tokenizer(path, vocab_size=VOCAB)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no tokenizer"):
        Tokenizer(tmp_path / "tokenizer.json", vocab_size=VOCAB)


@pytest.mark.parametrize("value", [["<s>"], 1, {"content": ["<s>"]}, {"content": 2}, True])
def test_a_special_token_that_is_no_text_is_named(folder: Path, value: Any) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": value}))
    with pytest.raises(CheckpointError, match="bos_token"):
        Tokenizer(folder / "tokenizer.json", vocab_size=VOCAB)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_pipe_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(CheckpointError, match="no regular file"):
        Tokenizer(folder / "tokenizer.json", vocab_size=VOCAB)
