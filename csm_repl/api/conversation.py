"""A conversation as transformers' chat template for CSM takes it.

    [{"role": "0", "content": [{"type": "text", "text": "Hi."}, {"type": "audio", "path": samples}]},
     {"role": "1", "content": [{"type": "text", "text": "Hello."}]}]

Every message is one speaker's; all but the last have been said, so they have text and audio.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
import torch

from csm_repl.api.checks import checked_integer, checked_text, mono_samples
from csm_repl.audio import SAMPLE_RATE, read_mono, resample
from csm_repl.errors import CsmReplError

__all__ = ["Conversation", "Message", "is_conversation", "read_conversation", "read_message"]

Conversation = Sequence[Mapping[str, Any]]
_AUDIO_KEYS = ("audio", "path", "url")
_LONGEST_CLIP_S = 600.0
_MOST_BYTES = 100 * 2**20
_TIMEOUT_S = 20.0
_MOST_DIGITS = 10
"""Of a role; int() refuses some thousands in words of its own."""


@dataclass(frozen=True, eq=False)
class Message:
    """One speaker's."""

    speaker: int
    text: str
    audio: torch.Tensor | None
    """Float32 [n_samples] at 24 kHz; None: it is still to be spoken."""


def is_conversation(value: object) -> bool:
    """Whether it is meant as one: a list of mappings with roles."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(each, Mapping) and "role" in each for each in value)
    )


def read_conversation(
    conversation: Conversation, where: str = "conversation"
) -> tuple[list[Message], Message]:
    """What has been said, and what is to be spoken after it.

    Args:
        conversation: messages; the last one has a text and no audio.
        where: what to call it in errors.

    Raises:
        ValueError: it has another form; names the place.
    """
    if not is_conversation(conversation):
        raise ValueError(f"{where} must be a list of messages with role and content.")
    messages = [read_message(each, f"{where}[{index}]") for index, each in enumerate(conversation)]
    *said, last = messages
    for index, message in enumerate(said):
        if message.audio is None:
            raise ValueError(f"{where}[{index}] has no audio, and only the last message may be without.")
    if last.audio is not None:
        raise ValueError(f"{where}[{len(said)}] has audio, and the last message is the one to be spoken.")
    return said, last


def read_message(message: Mapping[str, Any], where: str) -> Message:
    """A message of a conversation.

    Raises:
        ValueError: it has another form; names the place.
    """
    for key in ("role", "content"):
        if key not in message:
            raise ValueError(f"{where} has no {key}.")
    role = message["role"]
    if isinstance(role, str):
        digits = role.strip()
        if not digits.isdecimal() or len(digits) > _MOST_DIGITS:
            raise ValueError(
                f'{where}["role"] must be the speaker\'s number, such as "0", and is {role[:40]!r}.'
            )
        role = int(digits)
    speaker = checked_integer(role, f'{where}["role"]', 0, 2**31 - 1)
    content = message["content"]
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise ValueError(f'{where}["content"] must be a list, not {type(content).__name__}.')
    texts, sounds = [], []
    for index, item in enumerate(content):
        place = f'{where}["content"][{index}]'
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == "text":
            texts.append(checked_text(item.get("text"), f'{place}["text"]'))
        elif kind == "audio":
            sounds.append(_samples_of(item, place))
        else:
            raise ValueError(f'{place} must be a mapping whose type is "text" or "audio".')
    if len(texts) != 1 or len(sounds) > 1:
        raise ValueError(
            f'{where}["content"] must hold one text and at most one audio, and holds {len(texts)} and '
            f"{len(sounds)}."
        )
    return Message(speaker, texts[0], sounds[0] if sounds else None)


def _samples_of(item: Mapping[str, Any], where: str) -> torch.Tensor:
    found = [key for key in _AUDIO_KEYS if item.get(key) is not None]
    if len(found) != 1:
        raise ValueError(f"{where} must have one of audio, path and url.")
    return _samples(item[found[0]], f'{where}["{found[0]}"]')


def _samples(value: Any, where: str) -> torch.Tensor:
    """Float32 [n_samples] at 24 kHz of an array, a file, or a row of a data set."""
    if isinstance(value, Mapping):
        if value.get("array") is None:
            raise ValueError(f"{where} has no array.")
        rate = checked_integer(
            value.get("sampling_rate", SAMPLE_RATE), f"{where}.sampling_rate", 1, 2**31 - 1
        )
        samples = _samples(value["array"], f"{where}.array")
        return samples if rate == SAMPLE_RATE else resample(samples, rate, SAMPLE_RATE)
    if isinstance(value, str | os.PathLike):
        return _of_file(os.fspath(value), where)
    if isinstance(value, list | tuple):
        try:
            value = np.asarray(value, dtype=np.float32)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{where} is no list of samples: {error}.") from error
    return mono_samples(value, where)


def _of_file(name: str | bytes, where: str) -> torch.Tensor:
    if not isinstance(name, str):
        raise ValueError(f"{where} must be a string or a path, not bytes.")
    try:
        address = urlsplit(name)
        if address.scheme in {"http", "https"}:
            return _of_address(name)
        path = url2pathname(address.path) if address.scheme == "file" else name
        return read_mono(Path(path), max_seconds=_LONGEST_CLIP_S)
    except (CsmReplError, OSError, ValueError) as error:
        raise ValueError(f"{where} cannot be read: {error}") from error


def _of_address(address: str) -> torch.Tensor:
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    data = io.BytesIO()
    with get_session().get(address, stream=True, timeout=_TIMEOUT_S) as answer:
        answer.raise_for_status()
        for chunk in answer.iter_content(2**16):
            data.write(chunk)
            if data.tell() > _MOST_BYTES:
                raise ValueError(f"it is larger than {_MOST_BYTES // 2**20} MB.")
    data.seek(0)
    return read_mono(data, max_seconds=_LONGEST_CLIP_S)
