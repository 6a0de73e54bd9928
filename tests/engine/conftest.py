"""Engines of both runners: what runs as it is, and what is recorded first."""

from __future__ import annotations

import pytest

from csm_repl.engine import Engine
from csm_repl.engine.step import EagerRunner, MakeRunner
from tests.support.engine import MakeEngine, recorded


@pytest.fixture(scope="session", params=[EagerRunner, recorded], ids=["eager", "recorded"])
def runner(request: pytest.FixtureRequest) -> MakeRunner:
    return request.param


@pytest.fixture(scope="session")
def make_engine(runner: MakeRunner) -> MakeEngine:
    """Makes an engine of a model and a number of slots."""
    return lambda model, n_slots=1: Engine(model, n_slots, runner)
