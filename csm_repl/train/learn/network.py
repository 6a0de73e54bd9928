"""The model in a form that can be trained: `state_dict()` has the original layout's names.

Built from torchtune's Llama blocks, as the original is; only the rotary embedding is ours, because theirs
takes 15 % of a small model's step and has fixed frequency factors. Importing this module imports torchtune,
which takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as run_checkpointed
from torchtune.modules import FeedForward, MultiHeadAttention, RMSNorm, TransformerSelfAttentionLayer

from csm_repl.errors import UsageError
from csm_repl.files.config import ModelConfig, TransformerConfig
from csm_repl.model.transformer import apply_rope, rope_table

__all__ = ["TrainableCSM"]


class TrainableCSM(nn.Module):
    """Text and audio embeddings, backbone, depth decoder and heads; whole sequences in, hidden states out."""

    def __init__(self, config: ModelConfig, state: Mapping[str, torch.Tensor]) -> None:
        """
        Args:
            config: sizes.
            state: tensors under the original layout's names (`read_published` or `initial_state`); they
                become the parameters without being copied.
        """
        super().__init__()
        self.config = config
        backbone, decoder = config.backbone, config.decoder
        n_audio = config.n_codebooks * config.audio_vocab_size
        self.gradient_checkpointing = False
        # Built without memory and without drawing numbers; every value comes from `state`.
        with torch.device("meta"):
            self.backbone = Stack(backbone)
            self.decoder = Stack(decoder)
            self.text_embeddings = nn.Embedding(config.text_vocab_size, backbone.dim)
            self.audio_embeddings = nn.Embedding(n_audio, backbone.dim)
            self.depth_embeddings = (
                None if config.tied_audio_embeddings else nn.Embedding(n_audio, backbone.dim)
            )
            self.projection = nn.Linear(backbone.dim, decoder.dim, bias=False)
            self.codebook0_head = nn.Linear(backbone.dim, config.audio_vocab_size, bias=False)
            self.audio_head = nn.Parameter(
                torch.empty(config.n_codebooks - 1, decoder.dim, config.audio_vocab_size)
            )
        self.load_state_dict(state, strict=True, assign=True)
        self.requires_grad_(True)

    @property
    def device(self) -> torch.device:
        return self.audio_embeddings.weight.device

    @property
    def n_codebooks(self) -> int:
        return self.config.n_codebooks

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens int64 [B, S, K + 1] (-1: does not count) -> summed embeddings [B, S, D].

        A position without codebook 0 has no other codebook either.
        """
        codes, text = tokens[..., :-1], tokens[..., -1]
        words = F.embedding(text.clamp_min(0), self.text_embeddings.weight) * (text >= 0).unsqueeze(-1)
        # A bag never holds [B, S, K, D] in memory.
        is_audio = codes[..., 0] >= 0
        table, heard = self.audio_embeddings.weight, codes[is_audio]
        frames = F.embedding_bag(
            heard.clamp_min(0) + self._offsets(),
            table,
            mode="sum",
            per_sample_weights=(heard >= 0).to(table.dtype),
        )
        return words.masked_scatter(is_audio.unsqueeze(-1), frames)

    def hidden_states(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens int64 [B, S, K + 1], padded on the right -> the backbone's hidden states [B, S, D].

        Attention is causal, so padding never reaches what comes before it and needs no mask.
        """
        return self.early_and_hidden_states(tokens)[1]

    def early_and_hidden_states(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `hidden_states`, preceded by the residual stream after a third of the layers [B, S, D]."""
        # The residual stream is float32 whatever frozen weights are stored in.
        early, hidden = self.backbone(self.embed(tokens).float(), checkpointed=self._checkpointed())
        return early, hidden

    def depth_logits(self, hidden: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """The depth decoder, teacher forced.

        Args:
            hidden: of the positions before the frames, [N, D].
            codes: of the frames, int64 [N, K].

        Returns:
            Logits of codebooks 1..K-1, [N, K - 1, V].
        """
        table = self.audio_embeddings if self.depth_embeddings is None else self.depth_embeddings
        seen = F.embedding(codes[:, :-1] + self._offsets()[:-1], table.weight)
        x = self.projection(torch.cat([hidden.unsqueeze(1), seen], dim=1))
        y = self.decoder(x.float(), checkpointed=self._checkpointed())[1][:, 1:]
        # [K - 1, N, D] x [K - 1, D, V]
        return torch.bmm(y.transpose(0, 1), self.audio_head).transpose(0, 1)

    def _checkpointed(self) -> bool:
        return self.gradient_checkpointing and torch.is_grad_enabled()

    def _offsets(self) -> torch.Tensor:
        """The index of each codebook's code 0 in the audio embeddings, int64 [K]."""
        return torch.arange(self.n_codebooks, device=self.device) * self.config.audio_vocab_size


class Stack(nn.Module):
    """Layers and final norm, without embedding and output: what the original leaves of a `llama3_2`."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if config.dim % config.n_heads:
            raise UsageError(
                f"A model of width {config.dim} with {config.n_heads} heads cannot be trained.",
                "The width must be a multiple of the number of heads.",
            )
        rotary = Rotary(config)
        self.layers = nn.ModuleList(_layer(config, rotary) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)

    def forward(self, x: torch.Tensor, *, checkpointed: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, S, D] -> the stream after a third of the layers and the output, each [B, S, D]"""
        early = x
        for number, layer in enumerate(self.layers, start=1):
            if checkpointed:
                x = run_checkpointed(layer, x, use_reentrant=False)
            else:
                x = layer(x)
            if number == max(1, len(self.layers) // 3):
                early = x
        return early, self.norm(x)


class Rotary(nn.Module):
    """Turns queries and keys. Its table is not a buffer, so that casting the model leaves it alone."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self._config = config
        self._table: torch.Tensor | None = None

    def forward(self, x: torch.Tensor, input_pos: Any = None) -> torch.Tensor:
        """[B, S, H, Dh] -> the same, turned by its position."""
        n_positions = x.shape[1]
        table = self._table
        if table is None or table.device != x.device or len(table) < n_positions:
            size = max(n_positions, min(self._config.max_positions, 2048))
            table = rope_table(self._config.rope, self._config.head_dim, size, x.device)
            self._table = table
        return apply_rope(x, table[:n_positions])


def _layer(config: TransformerConfig, rotary: Rotary) -> nn.Module:
    n_q, n_kv = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    layer: nn.Module = TransformerSelfAttentionLayer(
        attn=MultiHeadAttention(
            embed_dim=config.dim,
            num_heads=config.n_heads,
            num_kv_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            q_proj=nn.Linear(config.dim, n_q, bias=False),
            k_proj=nn.Linear(config.dim, n_kv, bias=False),
            v_proj=nn.Linear(config.dim, n_kv, bias=False),
            output_proj=nn.Linear(n_q, config.dim, bias=False),
            pos_embeddings=rotary,
            max_seq_len=config.max_positions,
        ),
        mlp=FeedForward(
            gate_proj=nn.Linear(config.dim, config.intermediate_dim, bias=False),
            down_proj=nn.Linear(config.intermediate_dim, config.dim, bias=False),
            up_proj=nn.Linear(config.dim, config.intermediate_dim, bias=False),
        ),
        sa_norm=RMSNorm(config.dim, eps=config.norm_eps),
        mlp_norm=RMSNorm(config.dim, eps=config.norm_eps),
    )
    return layer
