"""csm_repl as `ours`, with its weights mapped from a file as after a second start (writes 3 GB in bf16)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

from bench.peers import ours
from bench.peers.base import FULL_SIZE, Job, Take, clock
from csm_repl.model.native import runs_natively
from csm_repl.model.quantize import empty_csm, storage_kind
from csm_repl.model.weight_cache import write_safetensors

__all__ = ["run"]


def run(job: Job) -> Take:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_safetensors(ours.build(job.device, job.dtype, job.quantize).state_dict(), path)
        started = clock(job.device)
        native = runs_natively(torch.device(job.device), job.dtype)
        kind = storage_kind(job.quantize, native=native)
        model = empty_csm(FULL_SIZE, dtype=job.dtype, quantize=kind)
        model.load_state_dict(load_file(path, device=job.device), assign=True)
        model.prepare(native=native)
        return ours.time_take(model, job, build_s=clock(job.device) - started)
