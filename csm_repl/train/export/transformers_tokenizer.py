"""A tokenizer for transformers' `CsmProcessor`: ours with its two audio tokens."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csm_repl.errors import CheckpointError
from csm_repl.files.json_files import read_config
from csm_repl.train.files import write_atomically, write_json

__all__ = ["SpecialIds", "write_tokenizer"]

AUDIO_TOKEN, AUDIO_END_TOKEN = "<|AUDIO|>", "<|audio_eos|>"
"""The names that transformers' processor looks for."""
_RESERVED = ("<|reserved_special_token_0|>", "<|reserved_special_token_1|>")
"""What Llama 3's tokenizer, whose table is full, calls the ids that CSM uses for them."""


@dataclass(frozen=True)
class SpecialIds:
    """What the configs say about the tokenizer."""

    bos: int
    eos: int
    audio: int
    audio_end: int


def write_tokenizer(folder: Path, source: Path) -> SpecialIds:
    """The tokenizer with transformers' two audio tokens, and its config."""
    from tokenizers import Tokenizer

    config_path = source.with_name("tokenizer_config.json")
    about = read_config(config_path) if config_path.is_file() else {}
    bos = _name(about.get("bos_token"), "<|begin_of_text|>")
    eos = _name(about.get("eos_token"), "<|end_of_text|>")
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
        names = {token["content"] for token in content["added_tokens"]}
        if AUDIO_TOKEN not in names and names.issuperset(_RESERVED):
            renamed = dict(zip(_RESERVED, (AUDIO_TOKEN, AUDIO_END_TOKEN), strict=True))
            for token in content["added_tokens"]:
                token["content"] = renamed.get(token["content"], token["content"])
        tokenizer = Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the Rust side raises plain Exception
        raise CheckpointError(f"{source} is not a tokenizer: {error}.", "Download it again.") from error
    tokenizer.add_special_tokens([AUDIO_TOKEN, AUDIO_END_TOKEN])
    ids = [tokenizer.token_to_id(name) for name in (bos, eos, AUDIO_TOKEN, AUDIO_END_TOKEN)]
    if None in ids:
        raise CheckpointError(f"{source} has no {bos} or no {eos}.", "Use the model's own tokenizer.")
    write_atomically(folder / "tokenizer.json", lambda path: tokenizer.save(str(path)))
    tokens = {"bos_token": bos, "eos_token": eos, "pad_token": eos}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "processor_class": "CsmProcessor",
            **tokens,
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
        },
    )
    write_json(folder / "special_tokens_map.json", tokens)
    return SpecialIds(*ids)


def _name(value: Any, default: str) -> str:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else default
