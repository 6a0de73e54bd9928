"""Mimi with random weights, through our codec interface."""

from __future__ import annotations

import torch

from bench.peers.base import FULL_SIZE, clock
from csm_repl.codec import MimiCodec, chunk_sizes
from csm_repl.codec.mimi import _loaders
from tools.random_checkpoint import tiny_mimi_config

__all__ = ["build", "run"]


def build(device: str, size: str = "full") -> MimiCodec:
    config = None if size == "full" else tiny_mimi_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _loaders().get_mimi(None, config, device=device, num_codebooks=FULL_SIZE.n_codebooks)
        for name, tensor in model.state_dict().items():
            if name.endswith("embedding_sum"):
                tensor.normal_()
            elif name.endswith("_initialized"):
                tensor.fill_(1.0)
    return MimiCodec(model, n_codebooks=FULL_SIZE.n_codebooks, weights_id="random")


def run(device: str, size: str = "full", *, seconds: float = 10.0, repeats: int = 3) -> dict[str, float]:
    """Seconds of work per second of audio, decoded whole and in the chunks of a stream; best of `repeats`."""
    codec = build(device, size)
    n_frames = round(seconds * codec.frame_rate)
    codes = torch.randint(2048, (codec.n_codebooks, n_frames))
    codec.decode(codes[:, :12])
    whole, streamed, first = [], [], []
    for _ in range(repeats):
        started = clock(device)
        codec.decode(codes)
        whole.append(clock(device) - started)
        started = clock(device)
        done = 0
        with codec.stream() as stream:
            for n_chunk in chunk_sizes():
                stream.push(codes[:, done : done + n_chunk])
                if done == 0:
                    first.append(clock(device) - started)
                done += n_chunk
                if done >= n_frames:
                    break
            stream.flush()
        streamed.append(clock(device) - started)
    duration = n_frames / codec.frame_rate
    return {"whole": min(whole) / duration, "streamed": min(streamed) / duration, "first_chunk_s": min(first)}
