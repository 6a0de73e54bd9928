"""What is minimised: codebook 0 by the backbone on every frame, the others by the depth decoder on some.

The all-zero frame that ends a turn is a frame like the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from csm_repl.train.data.batches import Batch
from csm_repl.train.learn.network import TrainableCSM

__all__ = ["Losses", "choose_frames", "frame_losses", "hide_frames", "hide_voices"]


_SPEAKER_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Losses:
    """Of one batch; means are in nats."""

    backbone: torch.Tensor
    """Mean cross entropy of codebook 0, float32 []."""
    depth: torch.Tensor
    """Mean cross entropy of codebooks 1..K-1 on the chosen frames, float32 []."""
    speaker: torch.Tensor
    """Mean cross entropy of the speaker's number on every frame, float32 []; 0 where it was not asked for."""
    n_right: torch.Tensor
    """Frames whose codebook 0 was the likeliest, int64 []."""
    n_frames: int
    n_chosen: int


def choose_frames(n_frames: int, fraction: float, generator: torch.Generator) -> torch.Tensor:
    """Which frames the depth decoder is trained on: ascending indices int64 [n], at least one.

    Every frame is as likely as the others, so the loss on them is on average the loss on all.
    """
    n_chosen = min(n_frames, max(1, round(n_frames * fraction)))
    if n_chosen == n_frames:
        return torch.arange(n_frames)
    return torch.randperm(n_frames, generator=generator)[:n_chosen].sort().values


def hide_frames(tokens: torch.Tensor, fraction: float, generator: torch.Generator) -> torch.Tensor:
    """Tokens int64 [B, S, K + 1] as the model hears them when it misses a random `fraction` of the frames.

    A missed frame is -1 throughout. A model that hears every past frame can continue the sound
    alone; one that misses some must read the text (as dropout does in the pre-net of Tacotron,
    arXiv:1703.10135). Text and closing frames are never hidden.
    """
    if fraction == 0.0:
        return tokens
    hidden = torch.rand(tokens.shape[:2], generator=generator).to(tokens.device) < fraction
    hidden &= (tokens[..., :-1] > 0).any(-1)
    return tokens.masked_fill(hidden.unsqueeze(-1), -1)


def hide_voices(batch: Batch, fraction: float, generator: torch.Generator) -> torch.Tensor:
    """A batch's tokens as the model hears them when it misses the sound of a random `fraction` of the turns.

    Codebook 0 says what is said, the others how it sounds. A model that hears its own sound continues that
    voice, and needs earlier turns for the first frames only; one that hears codebook 0 alone needs them for
    all. A speaker's first turn is heard, as nothing else gives the voice; so are the closing frames.
    """
    if fraction == 0.0:
        return batch.tokens
    n_turns = int(batch.returns.max()) + 1
    drawn = torch.rand(len(batch.tokens), n_turns, generator=generator).to(batch.tokens.device) < fraction
    hidden = drawn.gather(1, batch.returns) & (batch.returns > 0)
    heard = batch.tokens.clone()
    heard[..., 1:-1].masked_fill_(hidden.unsqueeze(-1), -1)
    return heard


def frame_losses(
    network: TrainableCSM,
    batch: Batch,
    chosen: torch.Tensor,
    *,
    heard: torch.Tensor | None = None,
    depth_chunk: int | None = None,
    with_speaker: bool = False,
) -> Losses:
    """The losses of a batch.

    Args:
        network: the model.
        batch: tokens and targets, on the model's device.
        chosen: indices into the batch's target frames, in reading order, for the depth decoder.
        heard: what the backbone is given in place of the batch's tokens (`hide_frames`, `hide_voices`).
        depth_chunk: frames the depth decoder is given at once, to bound memory where no gradient is kept.
        with_speaker: the speaker's loss is wanted too.
    """
    learnt = batch.targets[:, 1:]
    tokens = batch.tokens if heard is None else heard
    early, states = network.early_and_hidden_states(tokens[:, :-1])
    hidden = states[learnt]
    codes = batch.tokens[:, 1:, :-1][learnt]
    logits = network.codebook0_head(hidden).float()
    backbone = F.cross_entropy(logits, codes[:, 0])
    n_right = (logits.argmax(-1) == codes[:, 0]).sum()
    chosen = chosen.to(hidden.device)
    depth = torch.zeros((), device=hidden.device)
    for part in chosen.split(depth_chunk or len(chosen)):
        depth_logits = network.depth_logits(hidden[part], codes[part])
        wanted = codes[part, 1:]
        depth = depth + F.cross_entropy(depth_logits.flatten(0, 1).float(), wanted.flatten(), reduction="sum")
    depth = depth / (len(chosen) * (network.n_codebooks - 1))
    speaker = torch.zeros((), device=hidden.device)
    if with_speaker:
        speaker = _speaker_loss(network, early, batch.speaker_ids[:, :-1])
    return Losses(backbone, depth, speaker, n_right, len(codes), len(chosen))


def _speaker_loss(network: TrainableCSM, early: torch.Tensor, speaker_ids: torch.Tensor) -> torch.Tensor:
    """How well the early states [B, S, D] of the frames tell the speaker from the others of the batch.

    To speak with the voice that was heard under a number, the model must know of every frame whose it is,
    and compare. Either is of no use without the other, so training finds both late, if at all; this loss
    gives the first. It needs no parameters: a state must be like its own number's text embedding.
    """
    is_frame = speaker_ids >= 0
    numbers, own = speaker_ids[is_frame].unique(return_inverse=True)
    states = F.normalize(early[is_frame].float(), dim=-1)
    names = F.normalize(network.text_embeddings.weight[numbers].float(), dim=-1)
    return F.cross_entropy(states @ names.T / _SPEAKER_TEMPERATURE, own)
