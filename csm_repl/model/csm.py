"""CSM: embeddings, backbone, depth decoder and heads, and the pass that makes one frame.

A position has `n_codebooks + 1` columns: audio codes first, the text id last, and -1 where a column does
not count. Entry `k * audio_vocab_size + c` of the audio embeddings belongs to code `c` of codebook `k`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from csm_repl.files.config import ModelConfig
from csm_repl.model.kv_cache import KVCache
from csm_repl.model.layers.gpu_linear import compile_kernels
from csm_repl.model.layers.linear import Linear
from csm_repl.model.transformer import StepLayer, Transformer, step_layer

__all__ = ["CSM"]

Pick = Callable[[torch.Tensor, int], torch.Tensor]
"""Chooses codes: logits [B, V] and the codebook's number -> int64 [B], without leaving the device."""


class CSM(nn.Module):
    """The whole model, built on the meta device; `checkpoint` fills it, `prepare` makes it ready."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Transformer(config.backbone)
        self.decoder = Transformer(config.decoder)
        n_audio = config.n_codebooks * config.audio_vocab_size
        self.text_embeddings = _parameter(config.text_vocab_size, config.backbone.dim)
        self.audio_embeddings = _parameter(n_audio, config.backbone.dim)
        self.depth_embeddings = (
            None if config.tied_audio_embeddings else _parameter(n_audio, config.backbone.dim)
        )
        self.projection = Linear(config.backbone.dim, config.decoder.dim)
        self.codebook0_head = Linear(config.backbone.dim, config.audio_vocab_size)
        self.audio_heads = _parameter(config.n_codebooks - 1, config.decoder.dim, config.audio_vocab_size)
        self._offsets: torch.Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.text_embeddings.device

    @property
    def dtype(self) -> torch.dtype:
        return self.text_embeddings.dtype

    def prepare(self, *, native: bool = False) -> CSM:
        """Makes what follows from the config (rotary tables, the codebooks' offsets) and a GPU's kernels.

        Args:
            native: whether both transformers run few positions by the native kernels, which must be there
                for the device and dtype; the weights must then stay where they are.
        """
        config, device = self.config, self.device
        self.backbone.prepare(config.backbone.max_positions, device, native=native)
        self.decoder.prepare(config.n_codebooks, device, native=native)
        self._offsets = torch.arange(config.n_codebooks, device=device) * config.audio_vocab_size
        compile_kernels(self, self.dtype)
        return self.eval()

    def new_backbone_cache(self, *, batch_size: int = 1) -> KVCache:
        return self.backbone.new_cache(self.config.max_positions, dtype=self.dtype, batch_size=batch_size)

    def new_decoder_cache(self, *, batch_size: int = 1) -> KVCache:
        return self.decoder.new_cache(self.config.n_codebooks, dtype=self.dtype, batch_size=batch_size)

    def embed(self, positions: torch.Tensor) -> torch.Tensor:
        """Positions int64 [S, K + 1] (-1: does not count) -> summed embeddings [S, D]."""
        assert self._offsets is not None, "prepare() has not been called"
        codes, text = positions[:, :-1], positions[:, -1]
        audio = F.embedding(codes.clamp_min(0) + self._offsets, self.audio_embeddings)
        audio = (audio * (codes >= 0).unsqueeze(-1)).sum(1)
        words = F.embedding(text.clamp_min(0), self.text_embeddings) * (text >= 0).unsqueeze(-1)
        return audio + words

    def run_backbone(self, embeddings: torch.Tensor, cache: KVCache, start: int) -> torch.Tensor:
        """Embeddings [S, D] at positions `start`... -> hidden state of the last one, [D]."""
        hidden: torch.Tensor = self.backbone(embeddings.unsqueeze(0), cache, start)
        return hidden[0, -1]

    def embed_frames(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes of B frames, int64 [B, K] -> summed embeddings [B, D]."""
        assert self._offsets is not None, "prepare() has not been called"
        return F.embedding(codes + self._offsets, self.audio_embeddings).sum(1)

    def make_frames(self, hidden: torch.Tensor, cache: KVCache, pick: Pick) -> torch.Tensor:
        """A frame each from the backbone's hidden states [B, D] -> codes int64 [B, K], all on the device.

        The depth decoder sees the hidden state at position 0 and code k at position k + 1.
        """
        codes = [pick(self.codebook0_head(hidden), 0)]
        x = torch.stack([hidden, self._depth_embedding(codes[0], 0)], dim=1)
        start = 0
        for codebook in range(1, self.config.n_codebooks):
            y = self.decoder(self.projection(x), cache, start)[:, -1]
            codes.append(pick(torch.mm(y, self.audio_heads[codebook - 1]), codebook))
            start += x.shape[1]
            x = self._depth_embedding(codes[-1], codebook).unsqueeze(1)
        return torch.stack(codes, dim=1)

    def make_frames_evenly(
        self, hidden: torch.Tensor, cache: KVCache, pick: Pick, run: StepLayer = step_layer
    ) -> torch.Tensor:
        """As `make_frames`, with every pass of the depth decoder in the same shapes.

        A compiler then has one function to compile. It costs a pass more, because the hidden state and the
        first code do not go together.
        """
        n_codebooks = self.config.n_codebooks
        positions = torch.arange(n_codebooks, device=hidden.device).unsqueeze(1).expand(-1, len(hidden))
        x, codes = hidden, [pick(self.codebook0_head(hidden), 0)]
        for codebook in range(n_codebooks):
            y = self.decoder.step(
                self.projection(x).unsqueeze(1), cache, positions[codebook], n_codebooks, run
            )
            if codebook:
                codes.append(pick(torch.mm(y[:, 0], self.audio_heads[codebook - 1]), codebook))
            if codebook + 1 < n_codebooks:
                x = self._depth_embedding(codes[-1], codebook)
        return torch.stack(codes, dim=1)

    def _depth_embedding(self, code: torch.Tensor, codebook: int) -> torch.Tensor:
        """Code int64 [...] -> [..., D]; indexing with a tensor stays on the device."""
        table = self.audio_embeddings if self.depth_embeddings is None else self.depth_embeddings
        return F.embedding(code + codebook * self.config.audio_vocab_size, table)


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape, device="meta"), requires_grad=False)
