"""What is recorded, when, and what happens where recording fails. No GPU: graphs are stand-ins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from csm_repl.engine import Engine, open_engine
from csm_repl.engine.graphs import CudaGraph, GraphRunner, _first_that_works
from csm_repl.engine.step import FrameStep
from csm_repl.model.csm import CSM
from csm_repl.model.kv_cache import KVCache
from tests.support.engine import GREEDY, micro_prompt, single


class Recorder:
    """Counts recordings and replays."""

    def __init__(self) -> None:
        self.replays: list[int] = []

    def __call__(self, function: Callable[[], None]) -> Any:
        function()
        self.replays.append(0)
        return _Recorded(self, len(self.replays) - 1, function)


class _Recorded:
    def __init__(self, recorder: Recorder, index: int, function: Callable[[], None]) -> None:
        self._recorder, self._index, self._function = recorder, index, function

    def replay(self) -> None:
        self._recorder.replays[self._index] += 1
        self._function()


def test_a_growing_take_changes_buckets_and_records_nothing_anew(golden_model: CSM) -> None:
    recorder = Recorder()
    engine = Engine(golden_model, 1, lambda model, cache: GraphRunner(FrameStep(model, cache), recorder))
    assert len(recorder.replays) == 1 + 4
    rows = torch.full((250, 33), -1)
    rows[:, -1] = torch.arange(250)
    take = engine.generate(rows, options=GREEDY, max_frames=14)
    assert [frame.tolist() for frame in take] == single(golden_model, rows, 14, GREEDY)
    # The first frame comes out of the prefill; the thirteen others put theirs at 250, 251, ... 262.
    assert recorder.replays == [14, 6, 7, 0, 0]


def test_the_time_of_recording_is_kept(micro_model: CSM) -> None:
    cache = micro_model.new_backbone_cache()
    assert GraphRunner(FrameStep(micro_model, cache), Recorder()).warm_up_s > 0


def test_a_cpu_gets_an_eager_engine_and_hears_nothing_of_graphs(micro_model: CSM) -> None:
    said: list[str] = []
    engine = open_engine(micro_model, 2, say=said.append)
    assert (engine.n_slots, said) == (2, [])
    take = engine.generate(micro_prompt(2), max_frames=3)
    assert [frame.tolist() for frame in take] == single(micro_model, micro_prompt(2), 3)


def test_a_recording_that_fails_is_said_and_leaves_none() -> None:
    said: list[str] = []

    def build(_: Any) -> Engine:
        raise RuntimeError("the stream is capturing\nCompile with TORCH_USE_CUDA_DSA...")

    assert _first_that_works(build, False, None, said.append) is None
    assert said == [
        "Recording the frame as CUDA graphs failed, so frames are slower: the stream is capturing"
    ]


def test_where_compiling_fails_graphs_without_it_are_tried(micro_model: CSM) -> None:
    said: list[str] = []
    engine = Engine(micro_model)
    compiled: list[bool] = []

    def build(make_runner: Any) -> Engine:
        compiled.append(make_runner.keywords["run"] is not None)
        if compiled[-1]:
            raise RuntimeError("no compiler")
        return engine

    assert _first_that_works(build, True, None, said.append) is engine
    assert compiled == [True, False]
    assert "Compiling and recording" in said[0]
    assert said[1].startswith("Recording the frame as CUDA graphs took ")


def test_want_of_memory_is_not_hidden() -> None:
    def build(_: Any) -> Engine:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        _first_that_works(build, True, None, lambda _: None)


def test_a_function_is_run_on_another_stream_before_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of calls only; no GPU sees them."""
    log: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            log.append(f"enter {self.name}")

        def __exit__(self, *_: object) -> None:
            log.append(f"leave {self.name}")

        def wait_stream(self, other: Named) -> None:
            log.append(f"{self.name} waits for {other.name}")

    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    monkeypatch.setattr(torch.cuda, "Stream", lambda: Named("side"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: Named("main"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: "graph")
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, pool: Named(f"{graph} in {pool}"))
    assert CudaGraph()(lambda: log.append("run")) == "graph"
    assert log == [
        "side waits for main", "enter side", "run", "run", "run", "leave side", "main waits for side",
        "enter graph in (0, 1)", "run", "leave graph in (0, 1)",
    ]  # fmt: skip


def test_a_cache_of_some_slots_shares_their_memory(micro_model: CSM) -> None:
    cache = micro_model.new_backbone_cache(batch_size=3)
    part: KVCache = cache.slots(1, 2)
    part.data.fill_(1.0)
    assert cache.data[:, :, 1:].all()
    assert not cache.data[:, :, 0].any()
    assert cache.n_bytes == 3 * micro_model.new_backbone_cache().n_bytes
