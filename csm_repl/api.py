"""The Python API of the original project: code written for it runs after changing the import line.

    from csm_repl import Segment, load_csm_1b

    generator = load_csm_1b(device="cuda")
    audio = generator.generate(text="Hello.", speaker=0, context=[], max_audio_length_ms=10_000)

Added to it: streaming (`generate_stream`, `generate_streaming_audio`), seeds, a prefix cache (a context that
starts like the last one is not computed again), and any CSM in either published layout. Unlike the original
it puts no watermark into the sound.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from csm_repl.audio import open_sink
from csm_repl.audio.player import open_player
from csm_repl.codec import Codec
from csm_repl.engine import SamplingOptions, spoken_text
from csm_repl.files.hub import DEFAULT_MODEL, find_model
from csm_repl.loaded import LoadedModel, open_model
from csm_repl.model.device import choose_placement
from csm_repl.paths import default_cache_dir
from csm_repl.speech import FixedContext, Sound, Speech, TurnPiece, TurnRequest

__all__ = ["Generator", "Segment", "generate_streaming_audio", "load_csm_1b"]

_REMEMBERED_CLIPS = 64


@dataclass
class Segment:
    """Something that was said: a speaker's number, the words, and the sound."""

    speaker: int
    text: str
    audio: torch.Tensor
    """Float [n_samples] at the generator's sample rate (24 kHz)."""


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

        Returns:
            Float32 [n_samples] on `device`.

        Raises:
            ValueError: text and context are longer than the model's 2048 positions.
        """
        del stream
        chunks = self._speak(text, speaker, context, max_audio_length_ms, temperature, topk, seed)
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
    ) -> Iterator[torch.Tensor]:
        """As `generate`, in chunks as they are made: float32 [n] on the CPU.

        The chunks joined are what `generate` returns for the same seed. `on_chunk_generated` is called with
        each chunk before it is yielded.
        """
        for samples in self._speak(text, speaker, context, max_audio_length_ms, temperature, topk, seed):
            if on_chunk_generated is not None:
                on_chunk_generated(samples)
            yield samples

    def _speak(
        self,
        text: str,
        speaker: int,
        context: Sequence[Segment],
        max_audio_length_ms: float,
        temperature: float | None,
        topk: int | None,
        seed: int | None,
    ) -> Iterator[torch.Tensor]:
        engine, encode = self._model.engine, self._model.tokenizer.encode
        if seed is None:
            seed = int(torch.randint(2**62, ()))
        ids = encode(spoken_text(speaker, text))
        heard = FixedContext(
            tuple(
                (encode(spoken_text(item.speaker, item.text)), self._encode(item.audio)) for item in context
            ),
            engine.n_codebooks,
        )
        n_positions = len(heard.plan([], ids, None, 0).prompt)
        if n_positions >= engine.max_positions:
            raise ValueError(
                f"Text and context take {n_positions} of the model's {engine.max_positions} positions: "
                "give fewer or shorter segments."
            )
        max_frames = max(1, int(max_audio_length_ms / 1000 * self._model.codec.frame_rate))
        request = TurnRequest(
            (TurnPiece(text, ids, room=heard.min_room, max_frames=max_frames),),
            heard,
            self._options(temperature, topk),
            seed,
        )
        for event in self._speech.speak(request):
            if isinstance(event, Sound):
                yield event.samples

    def _options(self, temperature: float | None, top_k: int | None) -> SamplingOptions:
        config, usual = self._model.config, SamplingOptions()
        chosen_temperature = (temperature, config.temperature, usual.temperature)
        chosen_top_k = (top_k, config.top_k, usual.top_k)
        return SamplingOptions(
            next(value for value in chosen_temperature if value is not None),
            next(value for value in chosen_top_k if value is not None),
        )

    def _encode(self, audio: torch.Tensor) -> torch.Tensor:
        """Codes [K, T] of a clip; a context comes again with every call, so they are remembered."""
        if audio.ndim != 1:
            raise ValueError(f"a segment's audio must be [n_samples], not {list(audio.shape)}")
        samples = audio.detach().to("cpu", torch.float32).contiguous()
        key = hashlib.sha1(samples.numpy().tobytes()).hexdigest()
        with self._clips_lock:
            if key not in self._clips:
                self._clips[key] = self._model.codec.encode(samples)
            self._clips.move_to_end(key)
            if len(self._clips) > _REMEMBERED_CLIPS:
                self._clips.popitem(last=False)
            return self._clips[key]


def load_csm_1b(
    device: str = "auto",
    *,
    model: str = DEFAULT_MODEL,
    revision: str | None = None,
    dtype: str = "auto",
    quantize: str = "none",
    native: bool = True,
    offline: bool = False,
    token: str | None = None,
) -> Generator:
    """Loads a CSM: CSM-1B from the hub, or any other.

    Args:
        device: auto, cuda, cuda:N, mps or cpu; an explicit one never falls back.
        model: a name on the hub or a folder, in the original's or transformers' layout.
        revision: branch, tag or commit on the hub.
        dtype: auto, bfloat16, float16 or float32.
        quantize: weights of the layers: none, int8, int4, fp8 on a newer GPU, or auto (int8 on a CPU,
            else none).
        native: whether the native kernels make the frames on a CPU; they need a C compiler, once.
        offline: never touch the network.
        token: access token of the hub.

    Raises:
        csm_repl.errors.ModelError: the model is not available; the message says what to do.
        csm_repl.errors.DeviceError: the device is not, or cannot run the kernels of quantised weights.
        csm_repl.errors.UsageError: there is no such dtype or quantisation, or not on this device.
    """
    placement = choose_placement(str(device), dtype, quantize)
    files = find_model(model, revision=revision, offline=offline, token=token)
    return Generator(open_model(files, placement, native_kernels=native, cache_dir=default_cache_dir()))


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
) -> None:
    """Speaks into a file while generating, and plays it if asked to.

    `output_file` ends in .wav, .flac or .mp3 and is replaced if it exists, as torchaudio.save would.

    Raises:
        csm_repl.errors.UsageError: the file cannot be written there.
    """
    player = open_player(generator.sample_rate)[0] if play_audio else None
    chunks = generator.generate_stream(
        text, speaker, context, max_audio_length_ms, temperature, topk, seed=seed
    )
    with open_sink(str(output_file), raw=False, rate=generator.sample_rate, replace=True) as sink:
        for chunk in chunks:
            sink.write(chunk)
            if player is not None:
                player.play(chunk)
    if player is not None:
        player.wait()
        player.close()
