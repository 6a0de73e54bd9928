"""The structure of CSM's original implementation, written afresh on torchtune's modules.

Two `llama3_2` transformers without embeddings and output layers, torchtune's key/value caches (all of
their positions are attended, behind a mask), the depth decoder's cache emptied for every frame, codes
drawn by softmax and exponential noise, and a look at the frame on the host to see whether it is the end.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torchtune.models.llama3_2 import llama3_2

from bench.peers.base import FULL_SIZE, Job, Take, clock, fill_random, random_prompt
from csm_repl.files.config import TransformerConfig

__all__ = ["run"]


def _transformer(size: TransformerConfig) -> tuple[Any, int]:
    model = llama3_2(
        vocab_size=8,
        num_layers=size.n_layers,
        num_heads=size.n_heads,
        num_kv_heads=size.n_kv_heads,
        embed_dim=size.dim,
        max_seq_len=size.max_positions,
        intermediate_dim=size.intermediate_dim,
        attn_dropout=0.0,
        norm_eps=size.norm_eps,
        scale_factor=32,
    )
    model.tok_embeddings = nn.Identity()
    model.output = nn.Identity()
    return model, size.dim


def _draw(logits: torch.Tensor, top_k: int, temperature: float) -> torch.Tensor:
    """Logits [1, V] -> codes [1, 1]."""
    logits = logits / temperature
    lowest = torch.topk(logits, top_k)[0][..., -1:]
    logits = logits.masked_fill(logits < lowest, -float("inf"))
    probabilities = torch.softmax(torch.log_softmax(logits, dim=-1), dim=-1)
    noise = torch.empty_like(probabilities).exponential_(1)
    return torch.argmax(probabilities / noise, dim=-1, keepdim=True)


class _Original(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vocab, self.n_codebooks = FULL_SIZE.audio_vocab_size, FULL_SIZE.n_codebooks
        self.backbone, wide = _transformer(FULL_SIZE.backbone)
        self.decoder, narrow = _transformer(FULL_SIZE.decoder)
        self.text_embeddings = nn.Embedding(FULL_SIZE.text_vocab_size, wide)
        self.audio_embeddings = nn.Embedding(self.vocab * self.n_codebooks, wide)
        self.projection = nn.Linear(wide, narrow, bias=False)
        self.codebook0_head = nn.Linear(wide, self.vocab, bias=False)
        self.audio_head = nn.Parameter(torch.empty(self.n_codebooks - 1, narrow, self.vocab))

    def set_up(self, dtype: torch.dtype, device: str) -> None:
        n_positions = FULL_SIZE.max_positions
        with torch.device(device):
            self.backbone.setup_caches(1, dtype)
            self.decoder.setup_caches(1, dtype, decoder_max_seq_len=self.n_codebooks)
            self.backbone_mask = torch.ones(n_positions, n_positions, dtype=torch.bool).tril()
            self.decoder_mask = torch.ones(self.n_codebooks, self.n_codebooks, dtype=torch.bool).tril()

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [1, S, K + 1] -> [1, S, K + 1, D]."""
        text = self.text_embeddings(tokens[:, :, -1]).unsqueeze(-2)
        offsets = self.vocab * torch.arange(self.n_codebooks, device=tokens.device)
        return torch.cat([self.audio_embeddings(tokens[:, :, :-1] + offsets), text], dim=-2)

    def run_backbone(
        self, tokens: torch.Tensor, tokens_mask: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        embeddings = (self.embed(tokens) * tokens_mask.unsqueeze(-1)).sum(dim=2)
        mask = self.backbone_mask[positions, :]
        # torchtune's decoder returns float32 whatever its weights are.
        return self.backbone(embeddings, input_pos=positions, mask=mask)[:, -1, :].to(embeddings.dtype)

    def decode_frame(self, last: torch.Tensor, top_k: int, temperature: float) -> torch.Tensor:
        """Hidden state [1, D] -> codes [1, K]."""
        code = _draw(self.codebook0_head(last), top_k, temperature)
        frame = code
        hidden = torch.cat([last.unsqueeze(1), self.audio_embeddings(code)], dim=1)
        positions = torch.arange(2, device=last.device).unsqueeze(0)
        self.decoder.reset_caches()
        for codebook in range(1, self.n_codebooks):
            mask = self.decoder_mask[positions, :]
            out = self.decoder(self.projection(hidden), input_pos=positions, mask=mask).to(last.dtype)
            code = _draw(torch.mm(out[:, -1, :], self.audio_head[codebook - 1]), top_k, temperature)
            frame = torch.cat([frame, code], dim=1)
            hidden = self.audio_embeddings(code + codebook * self.vocab)
            positions = positions[:, -1:] + 1
        return frame


@torch.inference_mode()
def run(job: Job) -> Take:
    torch.manual_seed(job.seed)
    started = clock(job.device)
    default = torch.get_default_dtype()
    torch.set_default_dtype(job.dtype)
    model = _Original()
    torch.set_default_dtype(default)
    fill_random(model)
    model = model.to(job.device).eval()
    model.set_up(job.dtype, job.device)
    codes, ids = random_prompt(job)
    n_audio, n_codebooks = len(codes), FULL_SIZE.n_codebooks
    tokens = torch.zeros(1, job.n_context, n_codebooks + 1, dtype=torch.int64, device=job.device)
    tokens_mask = torch.zeros_like(tokens, dtype=torch.bool)
    tokens[0, :n_audio, :-1], tokens_mask[0, :n_audio, :-1] = codes.to(job.device), True
    tokens[0, n_audio:, -1], tokens_mask[0, n_audio:, -1] = ids.to(job.device), True
    positions = torch.arange(job.n_context, device=job.device).unsqueeze(0)
    build_s = clock(job.device) - started
    prefill_s, frames_s = 0.0, []
    before = clock(job.device)
    for index in range(job.n_frames):
        hidden = model.run_backbone(tokens, tokens_mask, positions)
        if index == 0:
            prefill_s = clock(job.device) - before
        frame = model.decode_frame(hidden, job.top_k, job.temperature)
        assert not torch.all(frame == 0)
        tokens = torch.cat([frame, torch.zeros_like(frame[:, :1])], dim=1).unsqueeze(1)
        tokens_mask = torch.ones_like(tokens, dtype=torch.bool)
        tokens_mask[..., -1] = False
        positions = positions[:, -1:] + 1
        now = clock(job.device)
        frames_s.append(now - before)
        before = now
    return Take(build_s, prefill_s, frames_s)
