"""transformers' `CsmForConditionalGeneration` through its own `generate`.

With its default (dynamic) cache, or with the static one, which it compiles on a GPU. Its prompt is text ids
only, which cost it less than audio frames would: those must come as sound.
"""

from __future__ import annotations

import contextlib
import statistics
from itertools import pairwise
from typing import Any

import torch
import transformers
from transformers import CsmConfig, CsmForConditionalGeneration
from transformers.generation.streamers import BaseStreamer

from bench.peers.base import FULL_SIZE, Job, Take, clock, fill_random
from csm_repl.files.config import TransformerConfig

__all__ = ["build", "generate", "run"]


class Stopwatch(BaseStreamer):
    """`generate` hands over the prompt first and then every frame."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(clock(self.device))

    def end(self) -> None:
        pass


def _sizes(size: TransformerConfig) -> dict[str, Any]:
    return {
        "hidden_size": size.dim,
        "num_hidden_layers": size.n_layers,
        "num_attention_heads": size.n_heads,
        "num_key_value_heads": size.n_kv_heads,
        "intermediate_size": size.intermediate_dim,
        "head_dim": size.head_dim,
    }


def _config(job: Job) -> CsmConfig:
    if job.size == "full":
        config = CsmConfig()  # the defaults are CSM-1B's sizes
        assert config.hidden_size == FULL_SIZE.backbone.dim
        assert config.num_hidden_layers == FULL_SIZE.backbone.n_layers
        return config
    ours = job.config
    depth = {
        **_sizes(ours.decoder),
        "backbone_hidden_size": ours.backbone.dim,
        "num_codebooks": ours.n_codebooks,
        "vocab_size": ours.audio_vocab_size,
    }
    return CsmConfig(
        **_sizes(ours.backbone),
        num_codebooks=ours.n_codebooks,
        vocab_size=ours.audio_vocab_size,
        text_vocab_size=ours.text_vocab_size,
        depth_decoder_config=depth,
    )


def build(job: Job, *, static: bool = False) -> CsmForConditionalGeneration:
    """The model with random weights.

    Args:
        job: dtype, device, size and sampling.
        static: use the static cache, and with it what transformers compiles by itself.
    """
    # Older versions have it here, newer ones need none.
    without_values = getattr(transformers.modeling_utils, "no_init_weights", contextlib.nullcontext)
    with without_values():
        model = CsmForConditionalGeneration._from_config(_config(job), dtype=job.dtype)
    model.tie_weights()
    fill_random(model)
    for settings in (model.generation_config, model.depth_decoder.generation_config):
        settings.update(do_sample=True, temperature=job.temperature, top_k=job.top_k)
        if static:
            settings.cache_implementation = "static"
    return model.to(job.device).eval()


@torch.inference_mode()
def generate(model: Any, job: Job) -> Take:
    """One take of `job.n_frames` after `job.n_context` positions, prefilled as a whole."""
    torch.manual_seed(job.seed)
    backbone_s: list[float] = []
    hooks = []
    # A hook would keep transformers from compiling the model.
    if model.generation_config.cache_implementation != "static":
        backbone = model.backbone_model
        hooks = [
            backbone.register_forward_pre_hook(lambda *_: backbone_s.append(-clock(job.device))),
            backbone.register_forward_hook(lambda *_: backbone_s.append(clock(job.device))),
        ]
    ids = torch.randint(min(1000, job.config.text_vocab_size), (1, job.n_context)).to(job.device)
    stopwatch = Stopwatch(job.device)
    try:
        frames: Any = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=job.n_frames,
            streamer=stopwatch,
        )
    finally:
        for hook in hooks:
            hook.remove()
    assert frames.shape[1:] == (job.n_frames, job.config.n_codebooks), frames.shape
    frames_s = [after - before for before, after in pairwise(stopwatch.times)]
    # Without hooks only what the first frame takes longer is known.
    prefill_s = sum(backbone_s[:2]) if backbone_s else max(0.0, frames_s[0] - statistics.median(frames_s))
    return Take(0.0, prefill_s, frames_s)


def run(job: Job) -> Take:
    started = clock(job.device)
    model = build(job)
    build_s = clock(job.device) - started
    take = generate(model, job)
    take.build_s = build_s
    return take
