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
from csm_repl.engine import Engine, Generation, SamplingOptions, frame_positions, text_positions
from csm_repl.files.config import ModelConfig
from csm_repl.model.csm import CSM
from csm_repl.model.quantize import choose_kernels, empty_csm, is_quantized, quantize_parameter

__all__ = ["build", "prompt", "run", "start", "time_take"]


def build(
    device: str,
    dtype: torch.dtype,
    quantize: str = "none",
    config: ModelConfig = FULL_SIZE,
    *,
    native: bool = True,
) -> CSM:
    """A model with random weights; never more of it in floating point than `quantize` says."""
    kernels = choose_kernels(quantize, torch.device(device), dtype, native=native)
    model = empty_csm(config, dtype=dtype, quantize=quantize, kernels=kernels)
    if quantize == "none":
        model = model.to_empty(device=device)
        fill_random(model)
        return model.prepare(native=kernels == "native")
    state: dict[str, torch.Tensor] = {}
    noise = random_noise(device, dtype)
    for name, parameter in CSM(config).named_parameters():
        tensor = torch.empty(parameter.shape, device=device, dtype=dtype)
        fill_tensor(tensor, noise)
        if is_quantized(name, quantize):
            state |= quantize_parameter(name, tensor, quantize, kernels)
        else:
            state[name] = tensor
    model.load_state_dict(state, assign=True)
    return model.prepare(native=kernels == "native")


def run(job: Job) -> Take:
    started = clock(job.device)
    model = build(job.device, job.dtype, job.quantize, job.config, native=job.native)
    return time_take(model, job, build_s=clock(job.device) - started)


def prompt(job: Job) -> torch.Tensor:
    """The job's context as rows [S, K + 1]."""
    codes, ids = random_prompt(job)
    return torch.cat([frame_positions(codes.T), text_positions(ids.tolist(), job.config.n_codebooks)])


def start(model: CSM, job: Job) -> Generation:
    """The job's take; nothing is computed yet."""
    options = SamplingOptions(temperature=job.temperature, top_k=job.top_k)
    return Engine(model).generate(prompt(job), options=options, seed=job.seed, max_frames=job.n_frames)


def time_take(model: CSM, job: Job, *, build_s: float) -> Take:
    generation = start(model, job)
    frames_s = []
    before = clock(job.device)
    for _frame in generation:
        now = clock(job.device)
        frames_s.append(now - before)
        before = now
    return Take(build_s, generation.prefill_s, frames_s)
