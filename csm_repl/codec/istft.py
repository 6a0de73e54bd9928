"""The small codec of the built-in voice behind the codec interface.

A decoded stream lags the codes by 15 ms: the windows of the next columns reach that far back.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from csm_repl.codec.base import DecodeStream, DecodeStreams
from csm_repl.codec.istft_network import CodecNetwork, CodecSizes, Past, Stream
from csm_repl.codec.slots import SlotStreams, single_stream
from csm_repl.errors import CheckpointError

__all__ = ["IstftCodec"]

MAX_FRAMES = 125
"""Of a pass: it bounds the memory that a long piece takes, 10 s of sound at a time."""


class IstftCodec:
    """The network with the first `n_codebooks` of its codebooks."""

    def __init__(self, network: CodecNetwork, *, n_codebooks: int, weights_id: str) -> None:
        self._network = network
        self._device = next(network.parameters()).device
        self.id = f"istft-{weights_id}-{n_codebooks}"
        self.n_codebooks = n_codebooks
        self.sample_rate = network.sizes.sample_rate
        self.samples_per_frame = network.sizes.samples_per_frame
        self.frame_rate = self.sample_rate / self.samples_per_frame

    @classmethod
    def load(
        cls, weights: Path, *, n_codebooks: int, device: torch.device, config: Mapping[str, Any]
    ) -> IstftCodec:
        """Reads the weights; they are stored in float16 and used in float32.

        Args:
            weights: a `.safetensors` file.
            n_codebooks: how many codebooks the language model speaks.
            device: where it runs.
            config: the values of `CodecSizes`.

        Raises:
            CheckpointError: the file is missing, corrupt, of another shape, or has too few codebooks.
        """
        try:
            sizes = _sizes(config)
            if n_codebooks > sizes.n_codebooks:
                raise CheckpointError(
                    f"The model speaks {n_codebooks} codebooks and the codec in {weights} has "
                    f"{sizes.n_codebooks}.",
                    "Put the codec that belongs to the model into its folder.",
                )
            with torch.device("meta"):
                network = CodecNetwork(sizes)
            state = {name: tensor.float() for name, tensor in load_file(weights).items()}
            network.load_state_dict(state, assign=True)
        except CheckpointError:
            raise
        except Exception as error:  # torch and safetensors each raise their own
            raise CheckpointError(
                f"The codec in {weights} cannot be loaded: {' '.join(str(error).split())[:300]}",
                "Use the codec.json and codec.safetensors that were published together.",
            ) from error
        network.decoder.make_window()
        network = network.to(device).eval().requires_grad_(False)
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
        return cls(network, n_codebooks=n_codebooks, weights_id=digest)

    @torch.inference_mode()
    def encode(self, samples: torch.Tensor) -> torch.Tensor:
        codes = self._network.encode(samples.to(self._device).float()[None])
        return codes[0, : self.n_codebooks].cpu()

    @torch.inference_mode()
    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        if codes.shape[1] == 0:
            return torch.zeros(0)
        return self._network.decoder(self._embed(codes))[0].cpu()

    def streams(self, n_slots: int) -> DecodeStreams:
        return _IstftStreams(self, n_slots)

    def stream(self) -> contextlib.AbstractContextManager[DecodeStream]:
        return single_stream(self.streams(1))

    def _embed(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [K, T] or [B, K, T] -> what the decoder reads, [B, C, T]."""
        # The language model may have a few more codes than the codec; it is never taught to use them.
        known = codes.to(self._device).clamp(0, self._network.sizes.codebook_size - 1)
        return self._network.embed(known.view(-1, *known.shape[-2:]))


@dataclass
class _Take:
    past: Past
    """Of the network, one row."""
    frames: torch.Tensor | None
    """Windowed frames [1, n_fft, n] of the columns that reach into samples not yet handed out."""
    skip: int
    """Samples at the start of the next overlap-add that are already out, or before the beginning."""


class _IstftStreams(SlotStreams):
    """The network's columns for all slots of a pass; overlap-add of the columns so far for each.

    What later columns still reach is held back.
    """

    def __init__(self, codec: IstftCodec, n_slots: int) -> None:
        super().__init__(n_slots, n_codebooks=codec.n_codebooks, max_frames=MAX_FRAMES)
        self._codec = codec
        self._decoder = codec._network.decoder
        self._takes: dict[int, _Take] = {}

    def _decode(self, slots: Sequence[int], codes: torch.Tensor) -> Sequence[torch.Tensor]:
        takes = [self._takes.get(slot) or _Take({}, None, self._decoder.lead) for slot in slots]
        stream = Stream.joined([take.past for take in takes])
        frames = self._decoder.frames(self._decoder.columns(self._codec._embed(codes), stream))
        samples = []
        for slot, take, past, fresh in zip(slots, takes, stream.split(), frames.split(1), strict=True):
            sound, self._takes[slot] = self._overlap(take, past, fresh)
            samples.append(sound)
        return samples

    def _overlap(self, take: _Take, past: Past, fresh: torch.Tensor) -> tuple[torch.Tensor, _Take]:
        frames = fresh if take.frames is None else torch.cat([take.frames, fresh], dim=2)
        sound, weights = self._decoder.overlap_add(frames)
        hop, n_columns = self._decoder.sizes.hop, frames.shape[2]
        # Samples before the next column's window begins are final.
        final = n_columns * hop
        ready = sound[0, take.skip : final] / weights[0, take.skip : final]
        keep = min(n_columns, -(-self._decoder.sizes.n_fft_out // hop) - 1)
        skip = final - (n_columns - keep) * hop
        return ready.cpu(), _Take(past, frames[:, :, n_columns - keep :].clone(), skip)

    def _rest(self, slot: int) -> torch.Tensor:
        take = self._takes.get(slot)
        if take is None or take.frames is None:
            return torch.zeros(0)
        sound, weights = self._decoder.overlap_add(take.frames)
        end = sound.shape[1] - self._decoder.lead
        return (sound[0, take.skip : end] / weights[0, take.skip : end]).cpu()

    def _forget(self, slot: int) -> None:
        self._takes.pop(slot, None)


def _sizes(config: Mapping[str, Any]) -> CodecSizes:
    known = {item.name for item in fields(CodecSizes)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.items()
        if name in known
    }
    return replace(CodecSizes(), **values)
