from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.speech.tail import KEEP_S, TailTrimmer

RATE = 1000
KEEP = int(KEEP_S * RATE)


def _trim(chunks: list[torch.Tensor]) -> torch.Tensor:
    trimmer = TailTrimmer(RATE)
    return torch.cat([trimmer.push(chunk) for chunk in chunks] + [trimmer.finish()])


runs = st.lists(st.tuples(st.booleans(), st.integers(1, 300)), min_size=1, max_size=8)


def _signal(parts: list[tuple[bool, int]]) -> torch.Tensor:
    return torch.cat([torch.full((n,), 0.1 if loud else 0.0005) for loud, n in parts])


@given(runs, st.integers(1, 400))
def test_only_trailing_silence_goes_and_a_margin_stays(parts: list[tuple[bool, int]], chunk: int) -> None:
    signal = _signal(parts)
    out = _trim(list(signal.split(chunk)))
    loud = (signal > 0.01).nonzero()
    expected = len(signal) if len(loud) == 0 else min(len(signal), int(loud[-1]) + 1 + KEEP)
    assert torch.equal(out, signal[:expected])


def test_sound_is_never_held_back() -> None:
    trimmer = TailTrimmer(RATE)
    assert len(trimmer.push(torch.full((50,), 0.1))) == 50
