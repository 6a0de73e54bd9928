"""transformers' two classes for CSM, so that its examples run after changing the import line.

    from csm_repl import AutoProcessor, CsmForConditionalGeneration

The processor checks conversations and reads their sound; what it returns is for this module's `generate`
alone and holds no token ids. For generating only: training is `csm-repl train`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from csm_repl.api.checks import checked_integer, mono_samples
from csm_repl.api.conversation import Conversation, Message, is_conversation, read_conversation
from csm_repl.api.generator import Generator, SpeechRequest, segments_of
from csm_repl.api.load import load_csm_1b
from csm_repl.audio import SAMPLE_RATE, write_audio

__all__ = ["AutoProcessor", "CsmForConditionalGeneration", "CsmInputs"]

USUAL_NEW_TOKENS = 125
"""Frames of a take where none are asked for: ten seconds."""

_BOS, _EOS, _AUDIO = "<|begin_of_text|>", "<|end_of_text|>", "<|AUDIO|>"
_TURN = re.compile(
    rf"(?:{re.escape(_BOS)})?\[(?P<speaker>\d{{1,9}})\](?P<text>.*?)(?:{re.escape(_EOS)})?"
    rf"(?P<audio>{re.escape(_AUDIO)}(?:<\|audio_eos\|>)?)?\Z",
    re.DOTALL,
)
_LOADING = {"attn_implementation", "low_cpu_mem_usage", "use_safetensors"}
_READING = {"return_tensors", "padding"}
_GENERATING = {"use_cache", "cache_implementation", "pad_token_id"}
"""Options, here and above, that change how transformers works, and not what it makes."""
_Value = TypeVar("_Value")


@dataclass(frozen=True, eq=False)
class _Prompt:
    """What has been said, and what is to be spoken."""

    said: tuple[Message, ...]
    last: Message


class CsmInputs(dict[str, Any]):
    """What a processor makes of conversations; passed on with `**`."""

    def to(self, *_: Any, **__: Any) -> CsmInputs:
        """Itself: `generate` puts everything where the model is."""
        return self


class AutoProcessor:
    """Turns texts and conversations into what `CsmForConditionalGeneration.generate` takes."""

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> AutoProcessor:
        """A processor; it is the same for every model, because the model brings its tokenizer."""
        return cls()

    def apply_chat_template(
        self,
        conversation: Conversation | Sequence[Conversation],
        *,
        tokenize: bool = True,
        return_dict: bool = True,
        output_labels: bool = False,
        **options: Any,
    ) -> CsmInputs:
        """One conversation, or several to be continued side by side.

        Raises:
            ValueError: another form, by its place; or an option that changes what is made.
        """
        if not (tokenize and return_dict):
            raise ValueError("apply_chat_template gives a dictionary only: tokenize=True, return_dict=True.")
        _refuse_labels(output_labels)
        _refuse(options, _READING, add_special_tokens=True, sampling_rate=SAMPLE_RATE)
        several = not is_conversation(conversation)
        if several and not (isinstance(conversation, Sequence) and all(map(is_conversation, conversation))):
            raise ValueError(
                "conversation must be a list of messages with role and content, or a list of those."
            )
        conversations = list(conversation) if several else [conversation]
        prompts = []
        for index, each in enumerate(conversations):
            said, last = read_conversation(each, f"conversation[{index}]" if several else "conversation")  # type: ignore[arg-type]
            prompts.append(_Prompt(tuple(said), last))
        return CsmInputs(prompts=prompts)

    def __call__(
        self, text: str | Sequence[str], audio: Any = None, *, output_labels: bool = False, **options: Any
    ) -> CsmInputs:
        """Prompts as text: `[0]Hello.`, or turns with `<|AUDIO|>` where one of `audio` belongs.

        Raises:
            ValueError: a text without a speaker, or another number of sounds than it has places for.
        """
        _refuse_labels(output_labels)
        _refuse(options, _READING, add_special_tokens=True, sampling_rate=SAMPLE_RATE)
        texts = [text] if isinstance(text, str) else list(text)
        sounds = _list_of_sounds(audio)
        prompts = [_prompt(each, f"text[{index}]", sounds) for index, each in enumerate(texts)]
        if sounds:
            raise ValueError(f"audio has {len(sounds)} more than the texts have places ({_AUDIO}) for.")
        return CsmInputs(prompts=prompts)

    def save_audio(
        self,
        audio: torch.Tensor | np.ndarray[Any, Any] | Sequence[torch.Tensor | np.ndarray[Any, Any]],
        saving_path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    ) -> None:
        """Writes what `generate` made, each [n_samples], into files; existing ones are replaced.

        Raises:
            ValueError: another number of paths than of sounds, or a sound that is none.
            csm_repl.errors.CsmReplError: a file cannot be written.
        """
        sounds = _list_of_sounds(audio)
        paths = [saving_path] if isinstance(saving_path, str | os.PathLike) else list(saving_path)
        if len(sounds) != len(paths):
            raise ValueError(f"there are {len(sounds)} sounds and {len(paths)} paths.")
        for index, (sound, path) in enumerate(zip(sounds, paths, strict=True)):
            samples = mono_samples(sound, f"audio[{index}]")
            write_audio(Path(path), samples, SAMPLE_RATE, replace=True)


class CsmForConditionalGeneration:
    """A loaded model. `generator` is the same one with csm-repl's own methods."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    @classmethod
    def from_pretrained(
        cls, model: str | os.PathLike[str], *, device_map: Any = None, torch_dtype: Any = None, **options: Any
    ) -> CsmForConditionalGeneration:
        """Loads a model; `options` are those of `load_csm_1b`.

        Args:
            model: a name on the hub or a folder, in any published layout.
            device_map: the device.
            torch_dtype: `dtype` in transformers' words, as `local_files_only` is `offline`.
        """
        options = {name: value for name, value in options.items() if name not in _LOADING}
        if "local_files_only" in options:
            options["offline"] = bool(options.pop("local_files_only"))
        dtype = options.pop("dtype", torch_dtype)
        if dtype is not None:
            options["dtype"] = str(dtype).removeprefix("torch.")
        device = options.pop("device", device_map)
        return cls(load_csm_1b(device=None if device is None else str(device), model=model, **options))

    @property
    def device(self) -> torch.device:
        return self.generator.device

    def to(self, device: Any) -> CsmForConditionalGeneration:
        """Itself, if it is there already.

        Raises:
            ValueError: it was loaded elsewhere.
        """
        if torch.device(device).type != self.device.type:
            raise ValueError(f"the model was loaded on {self.device}: give device_map={str(device)!r}.")
        return self

    def eval(self) -> CsmForConditionalGeneration:
        return self

    def generate(
        self,
        *,
        prompts: Sequence[_Prompt],
        output_audio: bool = False,
        max_new_tokens: int | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        depth_decoder_do_sample: bool | None = None,
        depth_decoder_temperature: float | None = None,
        depth_decoder_top_k: int | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> list[torch.Tensor] | torch.Tensor:
        """Continues the conversations that a processor has read, side by side.

        Args:
            prompts: of a processor's dictionary.
            output_audio: whether sound is returned, else codes.
            max_new_tokens: frames at most; None: 125, ten seconds.
            do_sample: False is greedy.
            temperature: of backbone and depth decoder. None: what the model recommends, else 0.9.
            top_k: of both. None: what the model recommends, else 50.
            depth_decoder_do_sample, depth_decoder_temperature, depth_decoder_top_k: the same, if given.
            seed: of the first take; those behind it count up. None: drawn from torch's global generator.

        Returns:
            Sound: float32 [n_samples] of each. Codes: int64 [batch, frames, codebooks]; shorter takes end in
            frames of zeros.

        Raises:
            ValueError: an option that this model cannot follow, by its name.
        """
        do_sample = _for_both("do_sample", do_sample, depth_decoder_do_sample)
        temperature = _for_both("temperature", temperature, depth_decoder_temperature)
        top_k = _for_both("top_k", top_k, depth_decoder_top_k)
        _refuse(options, _GENERATING, return_dict_in_generate=False)
        frames = USUAL_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        checked_integer(frames, "max_new_tokens", 1, 2**20)
        requests = [
            SpeechRequest(
                prompt.last.text,
                prompt.last.speaker,
                segments_of(prompt.said),
                max_audio_length_ms=1000 * frames / self.generator.codec.frame_rate + 1,
                temperature=0.0 if do_sample is False else temperature,
                topk=top_k,
                seed=None if seed is None else seed + index,
            )
            for index, prompt in enumerate(prompts)
        ]
        results = self.generator.results_of(requests)
        takes = [result for result in results if not isinstance(result, Exception)]
        if output_audio:
            return [take.samples.to(self.device) for take in takes]
        codes = [take.codes.T for take in takes]
        return torch.nn.utils.rnn.pad_sequence(codes, batch_first=True).to(self.device)


def _for_both(name: str, value: _Value | None, depth: _Value | None) -> _Value | None:
    if value is not None and depth is not None and depth != value:
        raise ValueError(f"depth_decoder_{name} is {depth!r} and {name} {value!r}: one value is for both.")
    return depth if value is None else value


def _refuse(options: Mapping[str, Any], harmless: set[str], **usual: Any) -> None:
    """Refuses what would be given in vain. `harmless` may have any value, `usual` the one it has here."""
    for name, value in options.items():
        if value is None or name in harmless:
            continue
        if name not in usual:
            raise ValueError(f"{name} is not known here.")
        if value != usual[name]:
            raise ValueError(f"{name} can only be {usual[name]!r} here, not {value!r}.")


def _refuse_labels(output_labels: bool) -> None:
    if output_labels:
        raise ValueError("output_labels is for training: csm-repl train does that.")


def _list_of_sounds(audio: Any) -> list[Any]:
    if audio is None:
        return []
    if isinstance(audio, torch.Tensor | np.ndarray):
        return [audio]
    return list(audio)


def _prompt(text: str, where: str, sounds: list[Any]) -> _Prompt:
    """The turns of a text; takes the sounds that it has places for."""
    rows = [row for row in re.split(rf"(?={re.escape(_BOS)})", text) if row.strip()]
    messages = []
    for row in rows:
        match = _TURN.match(row.strip())
        if match is None:
            raise ValueError(f"{where} must be like [0]Hello., with the speaker's number before the words.")
        audio = None
        if match["audio"]:
            if not sounds:
                raise ValueError(f"{where} has more places for sound ({_AUDIO}) than audio has sounds.")
            audio = mono_samples(sounds.pop(0), "audio")
        messages.append(Message(int(match["speaker"]), match["text"], audio))
    if not messages or messages[-1].audio is not None or any(each.audio is None for each in messages[:-1]):
        raise ValueError(f"{where}: all turns but the last need sound, and the last one is to be spoken.")
    return _Prompt(tuple(messages[:-1]), messages[-1])
