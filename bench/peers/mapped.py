"""csm_repl as `ours`, with its weights mapped from a file as after a second start (writes 3 GB in bf16)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from bench.peers import ours
from bench.peers.base import FULL_SIZE, Job, Take, clock
from csm_repl.model.quantize import choose_kernels, empty_csm
from csm_repl.model.weights.weight_cache import write_safetensors

__all__ = ["run"]


def run(job: Job) -> Take:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_safetensors(ours.build(job.device, job.dtype, job.quantize).state_dict(), path)
        started = clock(job.device)
        kernels = choose_kernels(job.quantize, torch.device(job.device), job.dtype, native=job.native)
        model = empty_csm(FULL_SIZE, dtype=job.dtype, quantize=job.quantize, kernels=kernels)
        model.load_state_dict(load_file(path, device=job.device), assign=True)
        model.prepare(native=kernels == "native")
        return ours.time_take(model, job, build_s=clock(job.device) - started)
