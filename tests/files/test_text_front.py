"""`text.json`: read, refused with the remedy, and taken along."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers

from csm_repl import load_csm_1b
from csm_repl.errors import CheckpointError
from csm_repl.files.text_front import open_front
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.export.companions import companions
from tests.support.fronts import write_front


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A front with a tokenizer that knows a few phones, and the brackets and digits of a speaker."""
    vocabulary = "<unk> <|begin_of_text|> <|end_of_text|> [ ] 0 1 [-1] HH AH0 L OW1 , W ER1 D ! K S"
    backend = Backend(
        models.WordLevel({word: index for index, word in enumerate(vocabulary.split())}, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.save(str(tmp_path / "tokenizer.json"))
    return write_front(tmp_path)


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert open_front(tmp_path) is None


def test_the_tokenizer_gets_phones_and_the_speaker_as_it_is(folder: Path) -> None:
    front = open_front(folder)
    assert front is not None
    tokenizer = Tokenizer(folder / "tokenizer.json", vocab_size=30, front=front)
    plain = Tokenizer(folder / "tokenizer.json", vocab_size=30)
    assert tokenizer.encode("Hello, world!") == plain.encode("HH AH0 L OW1 , W ER1 L D !")
    assert tokenizer.encode("[0]Hello")[2:] == plain.encode("[0] HH AH0 L OW1")[2:]
    assert tokenizer.encode("[-1]Hello") == plain.encode("[-1] HH AH0 L OW1")
    assert tokenizer.unwritable("Hello 日本!") == "日本"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"front": "graphemes"}, "names the text front 'graphemes'"),
        ({"lexicon": None}, "names no file as lexicon"),
        ({"letters": "../letters.txt.gz"}, "names no file as letters"),
        ({"lexicon": "nowhere.txt.gz"}, "cannot be read"),
        ({"lexicon": "text.json"}, "cannot be read"),
        ({"lexicon": "pipe"}, "no regular file"),
        ({"lexicon": "cut.gz"}, "cannot be read"),
        ({"letters": "damaged.gz"}, "cannot be read"),
        ({"lexicon": "bomb.gz"}, "more than 64 MB"),
    ],
)
def test_a_broken_one_is_a_sentence(folder: Path, change: dict[str, Any], cause: str) -> None:
    content = gzip.compress(b"hello HH AH0 L OW1\n" * 100)
    os.mkfifo(folder / "pipe")
    (folder / "cut.gz").write_bytes(content[:-12])
    (folder / "damaged.gz").write_bytes(content[:12] + b"\xff" * 8 + content[20:])
    if "bomb.gz" in change.values():
        (folder / "bomb.gz").write_bytes(gzip.compress(bytes(65 * 2**20)))
    path = folder / "text.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=cause):
        open_front(folder)


def test_it_belongs_to_the_model_and_is_copied_with_it(folder: Path) -> None:
    assert {"text.json", "lexicon.txt.gz", "letters.txt.gz"} <= companions(folder).keys()


def test_a_model_with_a_front_is_opened_with_it(quick_checkpoint: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(quick_checkpoint, model)
    without = load_csm_1b(model, "cpu", dtype="float32")
    write_front(model)
    with_front = load_csm_1b(model, "cpu", dtype="float32")
    heard = [
        generator._model.tokenizer.encode("[0]" + text)
        for generator, text in ((with_front, "Hello"), (without, " HH AH0 L OW1"))
    ]
    assert heard[0] == heard[1]
    assert len(with_front.generate("Hello", 0, seed=1))
