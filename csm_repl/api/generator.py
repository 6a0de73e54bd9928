"""The loaded model as the original's `Generator`, and what it speaks after: `Segment`s."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csm_repl.api.checks import checked_integer, checked_number, checked_text, mono_samples
from csm_repl.api.conversation import (
    Conversation,
    Message,
    is_conversation,
    read_conversation,
    read_message,
)
from csm_repl.audio import open_sink
from csm_repl.audio.player import open_player
from csm_repl.codec import Codec
from csm_repl.engine import SamplingOptions, open_engine, spoken_text
from csm_repl.errors import LineError
from csm_repl.loaded import LoadedModel
from csm_repl.speech import (
    FixedContext,
    Sound,
    Speech,
    TurnFailed,
    TurnOver,
    TurnPiece,
    TurnRequest,
    TurnResult,
)
from csm_repl.text.pauses import Pause, split_pauses

__all__ = ["Generator", "Segment", "SpeechRequest", "generate_streaming_audio", "segments_of"]

_REMEMBERED_CLIPS = 64


@dataclass
class Segment:
    """Something that was said: a speaker's number, the words, and the sound."""

    speaker: int
    text: str
    audio: torch.Tensor | np.ndarray[Any, Any]
    """[n_samples] or [1, n_samples] at the generator's sample rate (24 kHz): floats between -1 and 1, or
    integers of 8, 16 or 32 bits, which are scaled."""


@dataclass(frozen=True, eq=False)
class SpeechRequest:
    """A take to be made: the arguments of `Generator.generate`, where they are explained."""

    text: str | Conversation
    speaker: int | None = None
    context: Sequence[Segment] | Conversation = ()
    max_audio_length_ms: float = 90_000
    temperature: float | None = None
    topk: int | None = None
    seed: int | None = None
    normalize: str = "off"


class Generator:
    """A loaded model. Made by `load_csm_1b`. Threads may share one; their takes wait for each other."""

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._owner = threading.Lock()
        self._speech = Speech(model.engine, model.codec, self._owner)
        self._side_by_side: Speech | None = None
        """With more slots, once somebody has asked for a batch."""
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
        text: str | Conversation,
        speaker: int | None = None,
        context: Sequence[Segment] | Conversation = (),
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
            text: the words; or a conversation in transformers' form, whose last message is to be spoken.
            speaker: who says them; a conversation says it itself.
            context: what was said before, in order; also how a voice is given. Segments, or messages with
                audio in transformers' form.
            max_audio_length_ms: the take is cut there.
            temperature: of sampling; 0 is greedy. None: what the model recommends, else 0.9.
            topk: how many codes may be drawn. None: what the model recommends, else 50.
            stream: accepted for code that passes it; the result is the same.
            seed: the same seed gives the same samples; None draws one from torch's global generator, so
                `torch.manual_seed` works as well.
            normalize: `safe` writes numbers, dates, abbreviations and signs out in words, and makes silence
                of `[pause 0.5]`, as the console does; `off` speaks `text` as the original would. The
                context's texts are never changed.

        Returns:
            Float32 [n_samples] on `device`.

        Raises:
            ValueError: an argument that cannot be spoken, by name; or text and context are longer than the
                model's positions.
            csm_repl.errors.DeviceError: this process was forked from the one that loaded the model.
        """
        del stream
        chunks = self._speak(
            SpeechRequest(text, speaker, context, max_audio_length_ms, temperature, topk, seed, normalize)
        )
        return torch.cat([torch.zeros(0), *chunks]).to(self.device)

    def generate_stream(
        self,
        text: str | Conversation,
        speaker: int | None = None,
        context: Sequence[Segment] | Conversation = (),
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
        chunks = self._speak(
            SpeechRequest(text, speaker, context, max_audio_length_ms, temperature, topk, seed, normalize)
        )
        return chunks if on_chunk_generated is None else _shown(chunks, on_chunk_generated)

    def generate_batch(
        self,
        requests: Sequence[SpeechRequest | Mapping[str, Any] | Conversation],
        *,
        batch: int = 8,
        return_exceptions: bool = False,
    ) -> list[torch.Tensor]:
        """Takes that do not hear each other, made side by side.

        Each is what `generate` gives for the same seed, in float32 up to rounding; other dtypes round by the
        number of takes, so that the same seed may give another take.

        Args:
            requests: `SpeechRequest`s, mappings with `generate`'s arguments, or conversations in
                transformers' form.
            batch: so many are made at a time; each takes the memory of a context, 67 MB for CSM-1B in
                bfloat16.
            return_exceptions: whether the error of a take that fails while it is made stands in its place in
                the list. Otherwise the first one is raised, and the others are given up.

        Returns:
            Float32 [n_samples] on `device` of each, in the order of the requests.

        Raises:
            ValueError: a request that cannot be spoken, by its index, before anything is made.
            csm_repl.errors.LineError: the model gave NaN or infinity.
            csm_repl.errors.OutOfMemoryError: the device has no room for so many takes.
            csm_repl.errors.DeviceError: this process was forked from the one that loaded the model.
        """
        results = self.results_of(requests, batch=batch, return_exceptions=return_exceptions)
        return [
            result if isinstance(result, Exception) else result.samples.to(self.device)  # type: ignore[misc]
            for result in results
        ]

    def results_of(
        self,
        requests: Sequence[SpeechRequest | Mapping[str, Any] | Conversation],
        *,
        batch: int = 8,
        return_exceptions: bool = False,
    ) -> list[TurnResult | Exception]:
        """As `generate_batch`, with everything that is known of each take: codes, cues, how it ended."""
        if (
            isinstance(requests, str | Mapping)
            or not isinstance(requests, Sequence)
            or is_conversation(requests)
        ):
            raise ValueError("requests must be a list of requests.")
        batch = checked_integer(batch, "batch", 1, 1024)
        turns = [
            self._turn_request(_as_request(request, f"requests[{index}]"), f"requests[{index}].")
            for index, request in enumerate(requests)
        ]
        if not turns:
            return []
        speech = self._speech_for(min(batch, len(turns)))
        results: dict[int, TurnResult | Exception] = {}
        with contextlib.closing(speech.speak_all(turns)) as events:
            for index, event in events:
                if isinstance(event, TurnOver):
                    results[index] = event.result
                elif isinstance(event, TurnFailed):
                    if not return_exceptions:
                        raise event.error
                    results[index] = event.error
        return [results[index] for index in range(len(turns))]

    def _speech_for(self, n_slots: int) -> Speech:
        """Speech with at least so many slots, and no fewer than it had."""
        if n_slots <= self._speech.engine.n_slots:
            return self._speech
        with self._owner:
            if self._side_by_side is None or self._side_by_side.engine.n_slots < n_slots:
                # The old one's memory goes before the new one's comes.
                self._side_by_side = None
                engine = open_engine(self._model.engine.model, n_slots)
                self._side_by_side = Speech(engine, self._model.codec, self._owner)
            return self._side_by_side

    def _speak(self, request: SpeechRequest) -> Iterator[torch.Tensor]:
        turn = self._turn_request(request)
        return (event.samples for event in self._speech.speak(turn) if isinstance(event, Sound))

    def _turn_request(self, request: SpeechRequest, where: str = "") -> TurnRequest:
        """A request for the model.

        Args:
            where: what stands before an argument's name in errors.

        Raises:
            ValueError: as `generate`.
        """
        engine, encode = self._model.engine, self._model.tokenizer.encode
        engine.check_process()
        text, speaker, context = request.text, request.speaker, request.context
        if request.normalize not in {"safe", "off"}:
            raise ValueError(f"{where}normalize must be safe or off, not {request.normalize!r}.")
        if not isinstance(text, str) and is_conversation(text):
            if speaker is not None or len(context):
                raise ValueError(f"{where}text is a conversation, which says speaker and context itself.")
            said, last = read_conversation(text, f"{where}text")
            text, speaker = last.text, last.speaker
            context = segments_of(said)
        text = checked_text(text, f"{where}text")
        parts = _parts(text, where) if request.normalize == "safe" else [text]
        max_ms = checked_number(request.max_audio_length_ms, f"{where}max_audio_length_ms")
        options = self._options(request.temperature, request.topk, where)
        seed = request.seed
        seed = (
            int(torch.randint(2**62, ()))
            if seed is None
            else checked_integer(seed, f"{where}seed", 0, 2**63 - 1)
        )
        heard = FixedContext(tuple(self._heard(context, where)), engine.n_codebooks)
        max_frames = max(1, int(min(max_ms / 1000 * self._model.codec.frame_rate, engine.max_positions)))
        pieces: list[TurnPiece | Pause] = []
        n_positions = len(heard.plan([], (), None, 0).prompt)
        for part in parts:
            if isinstance(part, Pause):
                pieces.append(part)
                continue
            ids = encode(_spoken(speaker, part, where))
            n_positions += len(ids)
            if n_positions >= engine.max_positions:
                raise self._too_long(n_positions)
            pieces.append(TurnPiece(part, ids, room=heard.min_room, max_frames=None))
        return TurnRequest(tuple(pieces), heard, options, seed, max_frames)

    def _heard(
        self, context: Sequence[Segment] | Conversation, where: str
    ) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
        """Text ids and codes of every segment."""
        if not isinstance(context, Iterable):
            raise ValueError(f"{where}context must be a list of segments, not {type(context).__name__}.")
        codec, left = self._model.codec, self._model.engine.max_positions
        for number, item in enumerate(context):
            name = f"{where}context[{number}]"
            segment: Any = _of_message(item, name) if isinstance(item, Mapping) else item
            if not all(hasattr(segment, field.name) for field in dataclasses.fields(Segment)):
                raise ValueError(f"{name} must be a Segment, not {type(item).__name__}.")
            ids = self._model.tokenizer.encode(_spoken(segment.speaker, segment.text, f"{name}."))
            samples = mono_samples(segment.audio, f"{name}.audio")
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

    def _options(self, temperature: float | None, top_k: int | None, where: str) -> SamplingOptions:
        config, usual = self._model.config, SamplingOptions()
        if temperature is not None:
            temperature = checked_number(temperature, f"{where}temperature", zero=True)
        if top_k is not None:
            top_k = checked_integer(top_k, f"{where}topk", 1, 2**31 - 1)
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


def _as_request(request: SpeechRequest | Mapping[str, Any] | Conversation, where: str) -> SpeechRequest:
    if isinstance(request, SpeechRequest):
        return request
    if isinstance(request, Mapping):
        names = [field.name for field in dataclasses.fields(SpeechRequest)]
        for name in request:
            if name not in names:
                raise ValueError(f"{where} has {name!r}, and a request has {', '.join(names)}.")
        if "text" not in request:
            raise ValueError(f"{where} has no text.")
        return SpeechRequest(**request)
    if is_conversation(request):
        return SpeechRequest(request)
    raise ValueError(
        f"{where} must be a SpeechRequest, a mapping or a conversation, not {type(request).__name__}."
    )


def segments_of(messages: Sequence[Message]) -> list[Segment]:
    """What has been said of a conversation, as a context; messages without audio are left out."""
    return [Segment(each.speaker, each.text, each.audio) for each in messages if each.audio is not None]


def _of_message(message: Mapping[str, Any], where: str) -> Segment:
    read = read_message(message, where)
    if read.audio is None:
        raise ValueError(f"{where} has no audio.")
    return Segment(read.speaker, read.text, read.audio)


def _parts(text: str, where: str) -> list[str | Pause]:
    """The words and pauses of a text as they are said."""
    # Its rules take a tenth of a second to compile, and the default needs none of them.
    from csm_repl.text.normalise import normalise

    try:
        parts = split_pauses(text)
    except LineError as error:
        raise ValueError(f"{where}text: {error.cause} {error.remedy}") from error
    said = [part if isinstance(part, Pause) else normalise(part).said.strip() for part in parts]
    said = [part for part in said if part]
    if text and not said:
        raise ValueError(f"{where}text is {text!r}, of which nothing is spoken.")
    return said or [text]


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
