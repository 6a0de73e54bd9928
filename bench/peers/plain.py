"""csm_repl as `ours`, by PyTorch's kernels alone: what a machine without a C compiler gets."""

from __future__ import annotations

import dataclasses

from bench.peers import ours
from bench.peers.base import Job, Take

__all__ = ["run"]


def run(job: Job) -> Take:
    return ours.run(dataclasses.replace(job, native=False))
