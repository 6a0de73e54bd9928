"""Engines of both runners: what runs as it is, and what is recorded first."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from csm_repl.engine import Engine
from csm_repl.engine.graphs import GraphRunner
from csm_repl.engine.step import EagerRunner, FrameStep, MakeRunner
from csm_repl.model.csm import CSM
from csm_repl.model.kv_cache import KVCache

MakeEngine = Callable[..., Engine]


class FakeGraph:
    """As a CUDA graph, but what was recorded runs again in Python, and at once."""

    def __init__(self, function: Callable[[], None]) -> None:
        function()
        self.replay = function


def recorded(model: CSM, cache: KVCache) -> GraphRunner:
    return GraphRunner(FrameStep(model, cache), FakeGraph)


@pytest.fixture(scope="session", params=[EagerRunner, recorded], ids=["eager", "recorded"])
def runner(request: pytest.FixtureRequest) -> MakeRunner:
    return request.param


@pytest.fixture(scope="session")
def make_engine(runner: MakeRunner) -> MakeEngine:
    """Makes an engine of a model and a number of slots."""
    return lambda model, n_slots=1: Engine(model, n_slots, runner)
