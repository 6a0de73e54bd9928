"""A take for which the model gives no numbers ends, says so, and takes nothing else with it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import pytest
import torch

from csm_repl.engine import Engine, Frame, SamplingOptions, TakeEnded, TakeRequest
from csm_repl.model.csm import CSM
from tests.support.engine import MakeEngine, micro_prompt, single

BROKEN_ID = 40
"""Text id whose embedding is spoilt; `micro_prompt` counts up from `first`."""
GOOD, BAD = micro_prompt(5), micro_prompt(5, first=BROKEN_ID)


@contextlib.contextmanager
def spoilt(tensor: torch.Tensor, value: float) -> Iterator[None]:
    before = tensor.clone()
    tensor.fill_(value)
    try:
        yield
    finally:
        tensor.copy_(before)


def ends(engine: Engine) -> dict[int, TakeEnded]:
    found = {}
    while engine.n_open:
        for event in engine.step():
            if isinstance(event, TakeEnded):
                found[event.take] = event
    return found


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("options", [SamplingOptions(), SamplingOptions(temperature=0)])
def test_a_prompt_that_gives_no_numbers_says_nothing(
    micro_model: CSM, make_engine: MakeEngine, value: float, options: SamplingOptions
) -> None:
    with spoilt(micro_model.text_embeddings[BROKEN_ID], value):
        take = make_engine(micro_model).generate(BAD, options=options, max_frames=5)
        assert list(take) == []
        assert take.ended == "broken"


@pytest.mark.parametrize("n_slots", [2, 3])
def test_takes_beside_it_are_those_alone(micro_model: CSM, make_engine: MakeEngine, n_slots: int) -> None:
    with spoilt(micro_model.text_embeddings[BROKEN_ID], math.nan):
        engine = make_engine(micro_model, n_slots)
        good = [engine.submit(TakeRequest(GOOD, seed=1, max_frames=9))]
        bad = engine.submit(TakeRequest(BAD, seed=2, max_frames=9))
        good.append(engine.submit(TakeRequest(GOOD, seed=3, max_frames=9)))
        frames: dict[int, list[list[int]]] = {take: [] for take in good}
        ended = {}
        while engine.n_open:
            for event in engine.step():
                if isinstance(event, Frame):
                    frames[event.take].append(event.codes.tolist())
                else:
                    ended[event.take] = event.ended
        assert ended[bad] == "broken"
        for take, seed in zip(good, (1, 3), strict=True):
            assert frames[take] == single(micro_model, GOOD, 9, seed=seed)


def test_its_keys_and_values_are_forgotten(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model)
    with spoilt(micro_model.text_embeddings[BROKEN_ID], math.nan):
        engine.submit(TakeRequest(BAD, max_frames=3))
        ends(engine)
    assert len(engine.held()) == 0
    frames = [frame.tolist() for frame in engine.generate(BAD, seed=4, max_frames=9)]
    assert frames == single(micro_model, BAD, 9, seed=4)


def test_what_breaks_in_the_depth_decoder_is_seen_too(micro_model: CSM, make_engine: MakeEngine) -> None:
    table = micro_model.audio_embeddings
    with spoilt(table[: micro_model.config.audio_vocab_size], math.nan):
        engine = make_engine(micro_model)
        engine.submit(TakeRequest(GOOD, max_frames=5))
        [end] = ends(engine).values()
        assert (end.ended, end.n_frames) == ("broken", 0)


def test_frames_before_it_are_kept(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model)
    take = engine.generate(GOOD, seed=1, max_frames=9)
    begun = [next(take).tolist(), next(take).tolist()]
    with spoilt(micro_model.backbone.norm.weight, math.nan):
        begun += [frame.tolist() for frame in take]
    assert take.ended == "broken"
    # A runner that is ahead has one good frame more under way.
    assert 2 <= len(begun) <= 3
    assert begun == single(micro_model, GOOD, 9, seed=1)[: len(begun)]
