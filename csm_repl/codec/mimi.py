"""Kyutai's Mimi behind the codec interface, run by the moshi package.

Causal: it holds nothing back, so a stream's flush is empty and the last frame is out when it is decoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from csm_repl.codec.base import DecodeStream, DecodeStreams
from csm_repl.codec.mimi_names import moshi_config, moshi_state
from csm_repl.codec.mimi_streams import MimiStreams
from csm_repl.codec.slots import single_stream
from csm_repl.errors import CheckpointError
from csm_repl.files.companions import MIMI_REPO
from csm_repl.terminal import held_interrupts

__all__ = ["MimiCodec", "published_config"]


def _loaders() -> Any:
    # moshi reads both when they are first needed; compiling costs a minute at the first frame, and its
    # CUDA graphs allow one chunk size only.
    os.environ.setdefault("NO_TORCH_COMPILE", "1")
    os.environ.setdefault("NO_CUDA_GRAPH", "1")
    with warnings.catch_warnings(), held_interrupts():
        warnings.simplefilter("ignore")
        from moshi.models import loaders
    return loaders


def published_config() -> dict[str, Any]:
    """Kyutai's sizes, in moshi's form."""
    return dict(_loaders()._mimi_config)


class MimiCodec:
    """Mimi with the first `n_codebooks` of its codebooks."""

    def __init__(self, model: Any, *, n_codebooks: int, weights_id: str) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._cuda_stream = _side_stream(self._device)
        self.id = f"mimi-{weights_id}-{n_codebooks}"
        self.n_codebooks = n_codebooks
        self.sample_rate = int(model.sample_rate)
        self.frame_rate = float(model.frame_rate)
        self.samples_per_frame = int(model.frame_size)
        self._n_codes = int(model.cardinality)

    @classmethod
    def load(
        cls,
        weights: Path,
        *,
        n_codebooks: int,
        device: torch.device,
        config: Mapping[str, Any] | None = None,
    ) -> MimiCodec:
        """Reads weights with moshi's names.

        Args:
            weights: a `.safetensors` file.
            n_codebooks: how many codebooks the language model speaks.
            device: where it runs. Always in float32: the codec is small, and its sound is the product.
            config: sizes in moshi's form (`seanet`, `quantizer`, `transformer`, ...); None: Kyutai's.

        Raises:
            CheckpointError: the file is missing, corrupt, of another shape, or has too few codebooks.
        """
        with _own_errors(weights):
            sizes = published_config() if config is None else dict(config)
            model = _built(sizes, weights, n_codebooks=n_codebooks, device=device, file=weights)
        return cls(model, n_codebooks=n_codebooks, weights_id=_fingerprint(weights))

    @classmethod
    def load_inside(
        cls,
        folder: Path,
        get: Callable[[str], torch.Tensor],
        config: Mapping[str, Any],
        *,
        n_codebooks: int,
        device: torch.device,
    ) -> MimiCodec:
        """Reads the codec inside a CSM in transformers' layout.

        Args:
            folder: the model's, for messages.
            get: gives a tensor of `MimiModel` by its name; KeyError where there is none.
            config: the model's `codec_config`.
            n_codebooks, device: as in `load`.

        Raises:
            CheckpointError: as `load`.
        """
        with _own_errors(folder):
            sizes = moshi_config(config, published_config())
            model = _built(sizes, folder, n_codebooks=n_codebooks, device=device)
            digest = hashlib.sha256()

            def noted(name: str) -> torch.Tensor:
                tensor = get(name).to(device=device, dtype=torch.float32)
                digest.update(name.encode() + tensor.flatten()[:1024].cpu().numpy().tobytes())
                return tensor

            model.load_state_dict(moshi_state(noted, sorted(model.state_dict()), sizes))
        return cls(model, n_codebooks=n_codebooks, weights_id=digest.hexdigest()[:12])

    @torch.inference_mode()
    def encode(self, samples: torch.Tensor) -> torch.Tensor:
        with self._aside():
            codes: torch.Tensor = self._model.encode(samples.to(self._device).float()[None, None])
            return codes[0].cpu()

    @torch.inference_mode()
    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        if codes.shape[1] == 0:
            return torch.zeros(0)
        # The language model has a few more codes than the codec (2051 against 2048); trained weights
        # never choose them, random ones do.
        with self._aside():
            known = codes.to(self._device).clamp(0, self._n_codes - 1)
            samples: torch.Tensor = self._model.decode(known[None])
            return samples[0, 0].float().cpu()

    def streams(self, n_slots: int) -> DecodeStreams:
        return MimiStreams(self._model, n_slots, n_codebooks=self.n_codebooks, aside=self._aside)

    def stream(self) -> contextlib.AbstractContextManager[DecodeStream]:
        return single_stream(self.streams(1))

    def _aside(self) -> contextlib.AbstractContextManager[Any]:
        """All of the model's work is done in here: on a GPU beside the language model's, not behind it."""
        return contextlib.nullcontext() if self._cuda_stream is None else torch.cuda.stream(self._cuda_stream)


def _built(
    sizes: Mapping[str, Any],
    where: Path,
    *,
    n_codebooks: int,
    device: torch.device,
    file: Path | None = None,
) -> Any:
    """moshi's module, with the weights of `file` if there is one."""
    total = int(sizes["quantizer"]["n_q"])
    if n_codebooks > total:
        raise CheckpointError(
            f"The model speaks {n_codebooks} codebooks and the codec in {where} has {total}.",
            "Put the mimi.safetensors that belongs to the model into its folder.",
        )
    # moshi draws initial values, which the weights overwrite; the caller's generators stay as they are.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = _loaders().get_mimi(file, sizes, device=str(device), num_codebooks=n_codebooks)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@contextlib.contextmanager
def _own_errors(where: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # moshi, torch and safetensors each raise their own
        raise CheckpointError(
            f"The codec in {where} cannot be loaded: {_short(error)}",
            f"It must be Mimi in moshi's names, as in {MIMI_REPO}, or inside a model of transformers. "
            "Download it again.",
        ) from error


def _side_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A CUDA stream of the codec's own, behind the work that brought its weights; None on other devices.

    Codes come from the host and samples go there, so nothing else has to be ordered.
    """
    if device.type != "cuda":
        return None
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


def _short(error: BaseException) -> str:
    """An error in one line; torch's has a heading and then a line for each kind of fault."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else repr(error)


def _fingerprint(path: Path) -> str:
    """A short hash of a weights file: its header and size identify it, and reading 385 MB would not pay."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
        file.seek(max(0, path.stat().st_size - (1 << 16)))
        tail = file.read()
    return hashlib.sha256(head + tail + str(path.stat().st_size).encode()).hexdigest()[:12]
