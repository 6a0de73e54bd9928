"""csm_repl as `ours`, with its weights mapped from a file as after a second start (writes 3 GB in bf16)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from safetensors.torch import load_file, save_file

from bench.peers import ours
from bench.peers.base import FULL_SIZE, Job, Take, clock
from csm_repl.model.csm import CSM

__all__ = ["run"]


def run(job: Job) -> Take:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        state = ours.build(job.device, job.dtype).state_dict()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
        del state
        started = clock(job.device)
        model = CSM(FULL_SIZE)
        model.load_state_dict(load_file(path, device=job.device), assign=True)
        model.prepare()
        return ours.time_take(model, job, build_s=clock(job.device) - started)
