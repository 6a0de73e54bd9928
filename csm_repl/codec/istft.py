"""The small codec of the built-in voice behind the codec interface.

A decoded stream lags the codes by 15 ms: the windows of the next columns reach that far back.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from csm_repl.codec.base import DecodeStream
from csm_repl.codec.istft_network import CodecNetwork, CodecSizes, Stream
from csm_repl.errors import CheckpointError

__all__ = ["IstftCodec"]


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

    @contextlib.contextmanager
    def stream(self) -> Iterator[DecodeStream]:
        yield _IstftStream(self)

    def _embed(self, codes: torch.Tensor) -> torch.Tensor:
        # The language model may have a few more codes than the codec; it is never taught to use them.
        known = codes.to(self._device).clamp(0, self._network.sizes.codebook_size - 1)
        return self._network.embed(known[None])


class _IstftStream:
    """Overlap-add of the columns so far; what later columns still reach is held back."""

    def __init__(self, codec: IstftCodec) -> None:
        self._codec = codec
        self._stream = Stream()
        self._frames: torch.Tensor | None = None
        """Windowed frames [1, n_fft, n] of the columns that reach into samples not yet handed out."""
        self._skip = codec._network.decoder.lead
        """Samples at the start of the next overlap-add that are already out, or before the beginning."""

    @torch.inference_mode()
    def push(self, codes: torch.Tensor) -> torch.Tensor:
        decoder = self._codec._network.decoder
        fresh = decoder.frames(decoder.columns(self._codec._embed(codes), self._stream))
        frames = fresh if self._frames is None else torch.cat([self._frames, fresh], dim=2)
        sound, weights = decoder.overlap_add(frames)
        hop, n_columns = decoder.sizes.hop, frames.shape[2]
        # Samples before the next column's window begins are final.
        final = n_columns * hop
        ready = sound[0, self._skip : final] / weights[0, self._skip : final]
        keep = min(n_columns, -(-decoder.sizes.n_fft_out // hop) - 1)
        self._frames = frames[:, :, n_columns - keep :]
        self._skip = final - (n_columns - keep) * hop
        return ready.cpu()

    @torch.inference_mode()
    def flush(self) -> torch.Tensor:
        if self._frames is None:
            return torch.zeros(0)
        decoder = self._codec._network.decoder
        sound, weights = decoder.overlap_add(self._frames)
        end = sound.shape[1] - decoder.lead
        rest = sound[0, self._skip : end] / weights[0, self._skip : end]
        self._frames = None
        return rest.cpu()


def _sizes(config: Mapping[str, Any]) -> CodecSizes:
    known = {item.name for item in fields(CodecSizes)}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in config.items()
        if name in known
    }
    return replace(CodecSizes(), **values)
