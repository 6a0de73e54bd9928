"""Text to ids: Llama 3.2's tokenizer with BOS and EOS around every text."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any

from csm_repl.errors import CheckpointError
from csm_repl.files.json_files import read_config
from csm_repl.text.phones import PhoneFront

__all__ = ["Tokenizer"]


_SPEAKER = re.compile(r"\[-?\d+\]")
"""What stands before the text of a turn, see `engine.spoken_text`; the front does not read it."""
_LLAMA_BOS, _LLAMA_EOS = "<|begin_of_text|>", "<|end_of_text|>"


class Tokenizer:
    """A `tokenizer.json`; special tokens in a user's text are spelled out, never obeyed."""

    def __init__(self, path: Path, *, vocab_size: int, front: PhoneFront | None = None) -> None:
        """
        Args:
            path: the `tokenizer.json`; a `tokenizer_config.json` beside it may name BOS and EOS.
            vocab_size: rows of the model's text embeddings.
            front: reads the text; None: the tokenizer gets it as it is.

        Raises:
            CheckpointError: unreadable, without BOS or EOS, or with ids that the model does not have.
        """
        from tokenizers import Tokenizer as Backend

        if path.exists() and not path.is_file():  # a FIFO would be waited for
            raise CheckpointError(f"{path} is no regular file.", "Download it again.")
        try:
            self._backend = Backend.from_file(str(path))
        except Exception as error:  # the Rust side raises plain Exception
            raise CheckpointError(f"{path} is no tokenizer: {error}.", "Download it again.") from error
        self._backend.encode_special_tokens = True
        # A file may carry either from its training; a prompt must be whole and nothing else.
        self._backend.no_truncation()
        self._backend.no_padding()
        bos, eos = _special_names(path)
        bos_id, eos_id = self._backend.token_to_id(bos), self._backend.token_to_id(eos)
        if bos_id is None or eos_id is None:
            raise CheckpointError(
                f"{path} has no {bos if bos_id is None else eos}.",
                "CSM needs Llama 3.2's tokenizer: take the tokenizer.json of the model's repository.",
            )
        # Ids may have holes, so the number of tokens does not tell.
        highest = max(self._backend.get_vocab(with_added_tokens=True).values())
        if highest >= vocab_size:
            raise CheckpointError(
                f"{path} has ids up to {highest}, and the model has {vocab_size} text embeddings.",
                "Take the tokenizer.json that belongs to the model.",
            )
        self._bos, self._eos = int(bos_id), int(eos_id)
        self._front = front
        unknown = getattr(self._backend.model, "unk_token", None)
        self._unknown = {self._backend.token_to_id(unknown)} if isinstance(unknown, str) else set()
        self._written: dict[str, bool] = {}

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of `text` with BOS before and EOS behind."""
        # Bytes that are no UTF-8 reach us as lone surrogates, which the tokenizer refuses.
        text = text.encode("utf-8", "replace").decode("utf-8")
        if self._front is not None:
            speaker = _SPEAKER.match(text)
            begun = speaker[0] if speaker else ""
            text = f"{begun} {self._front.read(text[len(begun) :])}"
        return (self._bos, *self._backend.encode(text, add_special_tokens=False).ids, self._eos)

    def unwritable(self, text: str) -> str:
        """The characters of `text` that no id stands for, each once, in order.

        What cannot be seen, and accents that stand for themselves, are not among them.
        """
        return "".join(char for char in dict.fromkeys(text) if _is_seen(char) and not self._writes(char))

    def _writes(self, char: str) -> bool:
        if self._front is not None:
            return self._front.reads(char)
        if char not in self._written:
            ids = self._backend.encode(char, add_special_tokens=False).ids
            # A tokenizer may put a space for what it does not know.
            self._written[char] = any(
                number not in self._unknown
                and self._backend.decode([number], skip_special_tokens=False).strip()
                for number in ids
            )
        return self._written[char]


def _is_seen(char: str) -> bool:
    return unicodedata.category(char)[0] not in "MZC"


def _special_names(path: Path) -> tuple[str, str]:
    config = path.with_name("tokenizer_config.json")
    if not config.exists():
        return _LLAMA_BOS, _LLAMA_EOS
    content = read_config(config)
    return _name(content, "bos_token", _LLAMA_BOS, config), _name(content, "eos_token", _LLAMA_EOS, config)


def _name(content: dict[str, Any], key: str, default: str, config: Path) -> str:
    value = content.get(key)
    if isinstance(value, dict):
        value = value.get("content")
    if value is None:
        return default
    if not isinstance(value, str):
        raise CheckpointError(
            f"{config} has a {key} that is no text but {type(value).__name__}.",
            "Take the tokenizer_config.json of the model's repository.",
        )
    return value or default
