"""transformers' `CsmForConditionalGeneration` through its own `generate`, default (dynamic) cache.

Its prompt is text ids only, which cost it less than audio frames would: those must come as sound.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from transformers import CsmConfig, CsmForConditionalGeneration
from transformers.generation.streamers import BaseStreamer
from transformers.modeling_utils import no_init_weights

from bench.peers.base import FULL_SIZE, Job, Take, clock, fill_random

__all__ = ["run"]


class _Stopwatch(BaseStreamer):
    """`generate` hands over the prompt first and then every frame."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.times: list[float] = []

    def put(self, value: torch.Tensor) -> None:
        self.times.append(clock(self.device))

    def end(self) -> None:
        pass


def _build(job: Job) -> CsmForConditionalGeneration:
    config = CsmConfig()  # the defaults are CSM-1B's sizes
    assert config.hidden_size == FULL_SIZE.backbone.dim
    assert config.num_hidden_layers == FULL_SIZE.backbone.n_layers
    with no_init_weights():
        model = CsmForConditionalGeneration._from_config(config, dtype=job.dtype)
    model.tie_weights()
    fill_random(model)
    for settings in (model.generation_config, model.depth_decoder.generation_config):
        settings.update(do_sample=True, temperature=job.temperature, top_k=job.top_k)
    return model.to(job.device).eval()


@torch.inference_mode()
def run(job: Job) -> Take:
    torch.manual_seed(job.seed)
    started = clock(job.device)
    model = _build(job)
    build_s = clock(job.device) - started
    backbone_s: list[float] = []
    model.backbone_model.register_forward_pre_hook(lambda *_: backbone_s.append(-clock(job.device)))
    model.backbone_model.register_forward_hook(lambda *_: backbone_s.append(clock(job.device)))
    ids = torch.randint(1000, (1, job.n_context)).to(job.device)
    stopwatch = _Stopwatch(job.device)
    frames: Any = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=job.n_frames,
        streamer=stopwatch,
    )
    assert frames.shape[1:] == (job.n_frames, FULL_SIZE.n_codebooks), frames.shape
    frames_s = [after - before for before, after in pairwise(stopwatch.times)]
    return Take(build_s, backbone_s[0] + backbone_s[1], frames_s)
