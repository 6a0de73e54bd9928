"""The loaded model as the original's `Generator`, and what it speaks after: `Segment`s."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csm_repl.api.checks import checked_integer, checked_number, checked_text, mono_samples
from csm_repl.audio import open_sink
from csm_repl.audio.player import open_player
from csm_repl.codec import Codec
from csm_repl.engine import SamplingOptions, spoken_text
from csm_repl.loaded import LoadedModel
from csm_repl.speech import FixedContext, Sound, Speech, TurnPiece, TurnRequest

__all__ = ["Generator", "Segment", "generate_streaming_audio"]

_REMEMBERED_CLIPS = 64


@dataclass
class Segment:
    """Something that was said: a speaker's number, the words, and the sound."""

    speaker: int
    text: str
    audio: torch.Tensor | np.ndarray[Any, Any]
    """[n_samples] or [1, n_samples] at the generator's sample rate (24 kHz): floats between -1 and 1, or
    integers of 8, 16 or 32 bits, which are scaled."""


class Generator:
    """A loaded model. Made by `load_csm_1b`. Threads may share one; their takes wait for each other."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._speech = Speech(model.engine, model.codec)
        self._clips: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._clips_lock = threading.Lock()

    @property
    def sample_rate(self) -> int:
        """Samples per second of everything that goes in and comes out."""
        return self._model.codec.sample_rate

    @property
    def codec(self) -> Codec:
        """What makes sound of the model's codes."""
        return self._model.codec

    @property
    def device(self) -> torch.device:
        """Where the model is, and the audio that `generate` returns."""
        return self._model.engine.model.device

    def generate(
        self,
        text: str,
        speaker: int,
        context: Sequence[Segment],
        max_audio_length_ms: float = 90_000,
        temperature: float | None = None,
        topk: int | None = None,
        stream: bool = False,
        *,
        seed: int | None = None,
        normalize: str = "off",
    ) -> torch.Tensor:
        """Speaks `text` after `context`.

        Args:
            text: the words.
            speaker: who says them.
            context: what was said before, in order; also how a voice is given.
            max_audio_length_ms: the take is cut there.
            temperature: of sampling; 0 is greedy. None: what the model recommends, else 0.9.
            topk: how many codes may be drawn. None: what the model recommends, else 50.
            stream: accepted for code that passes it; the result is the same.
            seed: the same seed gives the same samples; None draws one from torch's global generator, so
                `torch.manual_seed` works as well.
            normalize: `safe` writes numbers, dates, abbreviations and signs out in words, as the console
                does; `off` speaks `text` as the original would. The context's texts are never changed.

        Returns:
            Float32 [n_samples] on `device`.

        Raises:
            ValueError: an argument that cannot be spoken, by name; or text and context are longer than the
                model's positions.
            csm_repl.errors.DeviceError: this process was forked from the one that loaded the model.
        """
        del stream
        chunks = self._speak(text, speaker, context, max_audio_length_ms, temperature, topk, seed, normalize)
        return torch.cat([torch.zeros(0), *chunks]).to(self.device)

    def generate_stream(
        self,
        text: str,
        speaker: int,
        context: Sequence[Segment],
        max_audio_length_ms: float = 90_000,
        temperature: float | None = None,
        topk: int | None = None,
        on_chunk_generated: Callable[[torch.Tensor], Any] | None = None,
        *,
        seed: int | None = None,
        normalize: str = "off",
    ) -> Iterator[torch.Tensor]:
        """As `generate`, in chunks as they are made: float32 [n] on the CPU.

        The chunks joined are what `generate` returns for the same seed. `on_chunk_generated` is called with
        each chunk before it is yielded.
        """
        chunks = self._speak(text, speaker, context, max_audio_length_ms, temperature, topk, seed, normalize)
        return chunks if on_chunk_generated is None else _shown(chunks, on_chunk_generated)

    def _speak(
        self,
        text: str,
        speaker: int,
        context: Sequence[Segment],
        max_audio_length_ms: float,
        temperature: float | None,
        topk: int | None,
        seed: int | None,
        normalize: str,
    ) -> Iterator[torch.Tensor]:
        engine, encode = self._model.engine, self._model.tokenizer.encode
        engine.check_process()
        if normalize not in {"safe", "off"}:
            raise ValueError(f"normalize must be safe or off, not {normalize!r}.")
        if normalize == "safe":
            # Its rules take a tenth of a second to compile, and the default needs none of them.
            from csm_repl.text.normalise import normalise

            said = normalise(checked_text(text, "text")).said.strip()
            if text and not said:
                raise ValueError(f"text is {text!r}, of which nothing is spoken.")
            text = said
        ids = encode(_spoken(speaker, text))
        max_ms = checked_number(max_audio_length_ms, "max_audio_length_ms")
        options = self._options(temperature, topk)
        seed = int(torch.randint(2**62, ())) if seed is None else checked_integer(seed, "seed", 0, 2**63 - 1)
        heard = FixedContext(tuple(self._heard(context)), engine.n_codebooks)
        n_positions = len(heard.plan([], ids, None, 0).prompt)
        if n_positions >= engine.max_positions:
            raise self._too_long(n_positions)
        max_frames = max(1, int(min(max_ms / 1000 * self._model.codec.frame_rate, engine.max_positions)))
        piece = TurnPiece(text, ids, room=heard.min_room, max_frames=max_frames)
        request = TurnRequest((piece,), heard, options, seed)
        return (event.samples for event in self._speech.speak(request) if isinstance(event, Sound))

    def _heard(self, context: Sequence[Segment]) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
        """Text ids and codes of every segment."""
        if not isinstance(context, Iterable):
            raise ValueError(f"context must be a list of segments, not {type(context).__name__}.")
        codec, left = self._model.codec, self._model.engine.max_positions
        for number, item in enumerate(context):
            name = f"context[{number}]"
            if not all(hasattr(item, field.name) for field in dataclasses.fields(Segment)):
                raise ValueError(f"{name} must be a Segment, not {type(item).__name__}.")
            ids = self._model.tokenizer.encode(_spoken(item.speaker, item.text, f"{name}."))
            samples = mono_samples(item.audio, f"{name}.audio")
            # Encoding what cannot fit may take more memory than there is.
            left -= len(ids) + int(len(samples) / codec.sample_rate * codec.frame_rate)
            if left <= 0:
                raise self._too_long(self._model.engine.max_positions - left)
            yield ids, self._encode(samples)

    def _too_long(self, n_positions: int) -> ValueError:
        return ValueError(
            f"Text and context take {n_positions} of the model's {self._model.engine.max_positions} "
            "positions: give fewer or shorter segments."
        )

    def _options(self, temperature: float | None, top_k: int | None) -> SamplingOptions:
        config, usual = self._model.config, SamplingOptions()
        if temperature is not None:
            temperature = checked_number(temperature, "temperature", zero=True)
        if top_k is not None:
            top_k = checked_integer(top_k, "topk", 1, 2**31 - 1)
        chosen_temperature = (temperature, config.temperature, usual.temperature)
        chosen_top_k = (top_k, config.top_k, usual.top_k)
        return SamplingOptions(
            next(value for value in chosen_temperature if value is not None),
            next(value for value in chosen_top_k if value is not None),
        )

    def _encode(self, samples: torch.Tensor) -> torch.Tensor:
        """Codes [K, T] of a clip; a context comes again with every call, so they are remembered."""
        key = hashlib.sha1(samples.numpy().tobytes()).hexdigest()
        with self._clips_lock:
            if key not in self._clips:
                self._clips[key] = self._model.codec.encode(samples)
            self._clips.move_to_end(key)
            if len(self._clips) > _REMEMBERED_CLIPS:
                self._clips.popitem(last=False)
            return self._clips[key]


def _spoken(speaker: object, text: object, where: str = "") -> str:
    number = checked_integer(speaker, f"{where}speaker", -(2**31), 2**31 - 1)
    return spoken_text(number, checked_text(text, f"{where}text"))


def _shown(
    chunks: Iterator[torch.Tensor], on_chunk_generated: Callable[[torch.Tensor], Any]
) -> Iterator[torch.Tensor]:
    for samples in chunks:
        on_chunk_generated(samples)
        yield samples


def generate_streaming_audio(
    generator: Generator,
    text: str,
    speaker: int,
    context: Sequence[Segment],
    output_file: str | Path,
    max_audio_length_ms: float = 90_000,
    temperature: float | None = None,
    topk: int | None = None,
    play_audio: bool = False,
    *,
    seed: int | None = None,
    normalize: str = "off",
) -> None:
    """Speaks into a file while generating, and plays it if asked to.

    `output_file` ends in .wav, .flac or .mp3 and is replaced if it exists, as torchaudio.save would.

    Raises:
        csm_repl.errors.UsageError: the file cannot be written there.
    """
    player = open_player(generator.sample_rate)[0] if play_audio else None
    chunks = generator.generate_stream(
        text, speaker, context, max_audio_length_ms, temperature, topk, seed=seed, normalize=normalize
    )
    with open_sink(str(output_file), raw=False, rate=generator.sample_rate, replace=True) as sink:
        for chunk in chunks:
            sink.write(chunk)
            if player is not None:
                player.play(chunk)
    if player is not None:
        player.wait()
        player.close()
