"""A process that was forked after the model was loaded."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest
import torch

from csm_repl import Generator, Segment, load_csm_1b
from csm_repl.errors import DeviceError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
_generator: Generator | None = None


def _speak(call: str) -> str:
    assert _generator is not None
    context = [Segment(0, "Hello.", torch.zeros(24_000))]
    try:
        if call == "generate":
            _generator.generate("Hello.", 0, context)
        else:
            next(_generator.generate_stream("Hello.", 0, context))
    except DeviceError as error:
        return str(error)
    return "it spoke"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("call", ["generate", "generate_stream"])
def test_a_fork_is_told_so_and_does_not_hang(tiny_checkpoint: Path, call: str) -> None:
    global _generator
    _generator = load_csm_1b(device="cpu", model=str(tiny_checkpoint), dtype="float32")
    assert len(_generator.generate("Hello.", 0, [], max_audio_length_ms=400, seed=1))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        told = pool.apply_async(_speak, (call,)).get(timeout=60)
    assert "fork" in told
    assert "spawn" in told
