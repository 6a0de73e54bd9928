"""csm_repl, through the same `Engine.generate` that the console uses."""

from __future__ import annotations

import torch

from bench.peers.base import (
    FULL_SIZE,
    Job,
    Take,
    clock,
    fill_random,
    fill_tensor,
    random_noise,
    random_prompt,
)
from csm_repl.engine import Engine, Generation, SamplingOptions, audio_rows, text_rows
from csm_repl.model.csm import CSM
from csm_repl.model.quantize import empty_csm, is_quantized, quantize_parameter

__all__ = ["build", "run", "start", "time_take"]


def build(device: str, dtype: torch.dtype, quantize: str = "none") -> CSM:
    """The model at full size with random weights; never more of it in floating point than `quantize` says."""
    model = empty_csm(FULL_SIZE, dtype=dtype, quantize=quantize)
    if quantize == "none":
        model = model.to_empty(device=device)
        fill_random(model)
        return model.prepare()
    state: dict[str, torch.Tensor] = {}
    noise = random_noise(device, dtype)
    for name, parameter in CSM(FULL_SIZE).named_parameters():
        tensor = torch.empty(parameter.shape, device=device, dtype=dtype)
        fill_tensor(tensor, noise)
        if is_quantized(name, quantize):
            state |= quantize_parameter(name, tensor, quantize)
        else:
            state[name] = tensor
    model.load_state_dict(state, assign=True)
    return model.prepare()


def run(job: Job) -> Take:
    started = clock(job.device)
    model = build(job.device, job.dtype, job.quantize)
    return time_take(model, job, build_s=clock(job.device) - started)


def start(model: CSM, job: Job) -> Generation:
    """The job's take; nothing is computed yet."""
    codes, ids = random_prompt(job)
    rows = torch.cat([audio_rows(codes.T), text_rows(ids.tolist(), FULL_SIZE.n_codebooks)])
    options = SamplingOptions(temperature=job.temperature, top_k=job.top_k)
    return Engine(model).generate(rows, options=options, seed=job.seed, max_frames=job.n_frames)


def time_take(model: CSM, job: Job, *, build_s: float) -> Take:
    generation = start(model, job)
    frames_s = []
    before = clock(job.device)
    for _frame in generation:
        now = clock(job.device)
        frames_s.append(now - before)
        before = now
    return Take(build_s, generation.prefill_s, frames_s)
