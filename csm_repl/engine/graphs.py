"""The frame step as CUDA graphs: a frame is then two launches instead of some two thousand.

One graph draws frames; the backbone has one for each bucket of positions that are looked at, so a growing
conversation needs no new recording. All are recorded at the start. With `--compile` the blocks of both
transformers are compiled first, and what comes out is recorded.

A graph repeats the addresses of its recording: it works on the buffers of `FrameStep` and nothing else.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from csm_repl.engine.core import Engine
from csm_repl.engine.step import FrameStep, MakeRunner, Runner
from csm_repl.events import Say
from csm_repl.model.csm import CSM
from csm_repl.model.device import out_of_memory
from csm_repl.model.kv_cache import KVCache
from csm_repl.model.transformer import StepLayer, step_layer

__all__ = [
    "CudaGraph",
    "Graph",
    "GraphRunner",
    "buckets",
    "compiled_layer",
    "open_engine",
]

SMALLEST_BUCKET = 256
WARM_UPS = 3
"""Runs before a recording: libraries choose kernels and reserve memory in their first ones."""

SHAPES = 64
"""Kinds of blocks that may be compiled: buckets, numbers of slots and both transformers multiply."""

log = logging.getLogger(__name__)


class Graph(Protocol):
    """Something recorded that can be run again."""

    def replay(self) -> None: ...


Record = Callable[[Callable[[], None]], Graph]
"""Runs a function, which writes its results into fixed buffers, and makes a graph of it."""


class CudaGraph:
    """Records CUDA graphs that share one pool of memory, which is sound because they run one at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], None]) -> Graph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            function()
        return graph


def buckets(n_positions: int) -> tuple[int, ...]:
    """How many positions the backbone's graphs look at: doubling, up to all."""
    sizes, size = [], SMALLEST_BUCKET
    while size < n_positions:
        sizes.append(size)
        size *= 2
    return (*sizes, n_positions)


class GraphRunner:
    """Runs a step's halves as graphs.

    Args:
        step: what is recorded. Recording runs it, so its cache must not hold anything yet.
        record: makes a graph of a function.
    """

    runs_ahead = True
    runs_all = True

    def __init__(self, step: FrameStep, record: Record) -> None:
        self.step = step
        self._record = record
        self._buckets = buckets(step.cache.n_positions)
        started = time.perf_counter()
        with torch.inference_mode():
            self._draw = self._record_draw()
            self._advances = {n_seen: self._record_advance(n_seen) for n_seen in self._buckets}
        self.warm_up_s = time.perf_counter() - started
        log.info("recorded %d graphs in %.2f s", 1 + len(self._advances), self.warm_up_s)

    def fit(self, k: int) -> None:
        if self.step.fit(k):
            # The recording has the address and the width of the old noise in it.
            with torch.inference_mode():
                self._draw = self._record_draw()

    def advance(self, slots: Sequence[int], n_seen: int) -> None:
        self._advances[next(size for size in self._buckets if size >= n_seen)].replay()

    def draw(self, slots: Sequence[int]) -> None:
        self._draw.replay()

    def _record_draw(self) -> Graph:
        return self._record(lambda: self.step.draw(range(self.step.n_slots)))

    def _record_advance(self, n_seen: int) -> Graph:
        return self._record(lambda: self.step.advance(range(self.step.n_slots), n_seen))


def compiled_layer(cache_dir: Path | None = None) -> StepLayer:
    """`step_layer` through torch.compile, which compiles when it is first called.

    Args:
        cache_dir: what was compiled is kept there for the next start.
    """
    if cache_dir is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir / "compiled"))
    import torch._dynamo.config as dynamo

    # Every bucket, number of slots and transformer has its own shapes; at the limit torch goes on uncompiled.
    dynamo.recompile_limit = max(dynamo.recompile_limit, SHAPES)
    return torch.compile(step_layer, dynamic=False)


def open_engine(
    model: CSM,
    n_slots: int = 1,
    *,
    compile: bool = False,
    cache_dir: Path | None = None,
    say: Say = lambda _: None,
) -> Engine:
    """The engine for the model's device: graphs on CUDA, eager PyTorch elsewhere and where they fail.

    Args:
        model: loaded.
        n_slots: how many takes are made at a time.
        compile: whether the blocks are compiled before they are recorded; for CUDA only.
        cache_dir: where compiled code is kept.
        say: receives a sentence on what was prepared, or on why it could not be.

    Raises:
        OutOfMemoryError: the device has no room for so many slots.
    """
    if model.device.type != "cuda":
        return Engine(model, n_slots)
    engine = _first_that_works(lambda make: Engine(model, n_slots, make), compile, cache_dir, say)
    return engine or Engine(model, n_slots)


def _first_that_works(
    build: Callable[[MakeRunner], Engine], compile: bool, cache_dir: Path | None, say: Say
) -> Engine | None:
    """Compiled graphs, then graphs; None: neither, and every failure but want of memory was said."""
    for compiled in (True, False) if compile else (False,):
        run = compiled_layer(cache_dir) if compiled else None
        what = "Compiling and recording" if compiled else "Recording"
        started = time.perf_counter()
        try:
            engine = build(functools.partial(_recorded, run=run))
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            log.warning("%s the frame failed", what, exc_info=True)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            say(f"{what} the frame as CUDA graphs failed, so frames are slower: {lines[0][:200]}")
        else:
            say(f"{what} the frame as CUDA graphs took {time.perf_counter() - started:.1f} s.")
            return engine
    return None


def _recorded(model: CSM, cache: KVCache, run: StepLayer | None) -> Runner:
    return GraphRunner(FrameStep(model, cache, run=run), CudaGraph())
