"""The prefix cache: what is prefilled, that it is exact, and that nothing can leave it half-written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csm_repl.engine import Engine, SamplingOptions, build_prompt, text_positions
from csm_repl.engine.core import PREFILL_ALONE
from csm_repl.model.csm import CSM
from tests.support.engine import MakeEngine
from tests.support.faults import Fault

RELATIVE_TOLERANCE = 1e-5
"""Logits of a cached and a fresh prefill, relative to the largest: float32 sums in another order."""

Turn = tuple[list[int], torch.Tensor]


def assert_same_logits(engine: Engine, rows: torch.Tensor) -> None:
    """The engine's logits after `rows`, cache and all, are those of an engine that never ran before."""
    reused = engine.stats.reused
    got = engine.next_logits(rows)
    assert engine.stats.reused > reused, "nothing came from the cache, so nothing was compared"
    fresh = Engine(engine.model).next_logits(rows)
    assert (got - fresh).abs().max() <= RELATIVE_TOLERANCE * fresh.abs().max()


def frames_of(engine: Engine, rows: torch.Tensor, *, seed: int = 0, n: int = 6) -> list[list[int]]:
    return [frame.tolist() for frame in engine.generate(rows, seed=seed, max_frames=n)]


def ids_of_turn(number: int) -> list[int]:
    return [256, *(30 + (number * 7 + i) % 60 for i in range(3 + number % 5)), 257]


def speak(engine: Engine, context: list[Turn], ids: list[int], *, seed: int, n: int | None = None) -> Any:
    """One turn; its codes enter the context as they were generated."""
    rows = build_prompt(context, ids, engine.n_codebooks)
    take = engine.generate(rows, seed=seed, max_frames=n)
    context.append((ids, torch.stack(list(take), 1)))
    return take


class RowCounter:
    """Counts rows that are embedded for prefill, independently of the engine's own statistics."""

    def __init__(self, model: CSM, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_rows = 0
        embed = model.embed

        def counted(rows: torch.Tensor) -> torch.Tensor:
            self.n_rows += len(rows)
            return embed(rows)

        monkeypatch.setattr(model, "embed", counted)


def test_turn_20_prefills_its_own_text_and_the_closing_frame(
    tiny_model: CSM, monkeypatch: pytest.MonkeyPatch, make_engine: MakeEngine
) -> None:
    engine, context = make_engine(tiny_model), []
    counter = RowCounter(tiny_model, monkeypatch)
    for number in range(1, 20):
        take = speak(engine, context, ids_of_turn(number), seed=number, n=60)
        assert take.ended == "end"
    counter.n_rows, prefilled = 0, engine.stats.prefilled
    ids = ids_of_turn(20)
    take = speak(engine, context, ids, seed=20, n=60)
    assert take.n_prefilled == engine.stats.prefilled - prefilled == counter.n_rows == len(ids) + 1
    assert take.n_prompt > 200


def test_logits_of_turn_20_equal_a_fresh_prefill(tiny_model: CSM, make_engine: MakeEngine) -> None:
    engine, context = make_engine(tiny_model), []
    for number in range(1, 20):
        speak(engine, context, ids_of_turn(number), seed=number, n=60)
    assert_same_logits(engine, build_prompt(context, ids_of_turn(20), engine.n_codebooks))


def test_a_cut_take_costs_the_next_turn_one_more_position(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine, context = make_engine(micro_model), []
    assert speak(engine, context, ids_of_turn(1), seed=1, n=5).ended == "cut"
    ids = ids_of_turn(2)
    assert speak(engine, context, ids, seed=2, n=5).n_prefilled == len(ids) + 2


def test_logits_after_a_cut_take_equal_a_fresh_prefill(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine, context = make_engine(micro_model), []
    speak(engine, context, ids_of_turn(1), seed=1, n=5)
    assert_same_logits(engine, build_prompt(context, ids_of_turn(2), 4))


def test_an_abandoned_take_leaves_its_frames_in_the_cache(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model)
    rows = build_prompt([], ids_of_turn(1), 4)
    take = engine.generate(rows, seed=1)
    codes = torch.stack([next(take) for _ in range(5)], 1)
    take.close()
    ids = ids_of_turn(2)
    rows = build_prompt([(ids_of_turn(1), codes)], ids, 4)
    following = engine.generate(rows, seed=2)
    next(following)
    assert following.n_prefilled == len(ids) + 2


def test_the_same_prompt_again_runs_one_position(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine, rows = make_engine(micro_model), build_prompt([], ids_of_turn(4), 4)
    engine.next_logits(rows)
    before = engine.stats.prefilled
    engine.next_logits(rows)
    assert engine.stats.prefilled == before + 1


def test_forget_empties_the_cache(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine, rows = make_engine(micro_model), build_prompt([], ids_of_turn(4), 4)
    engine.next_logits(rows)
    engine.forget()
    before = engine.stats.prefilled
    engine.next_logits(rows)
    assert (engine.stats.prefilled - before, engine.stats.reused) == (len(rows), 0)


def test_a_context_that_lost_its_head_is_prefilled_again(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine, context = make_engine(micro_model), []
    for number in range(1, 5):
        speak(engine, context, ids_of_turn(number), seed=number, n=5)
    rows = build_prompt(context[1:], ids_of_turn(5), 4)
    got = frames_of(engine, rows, seed=5)
    assert got == frames_of(make_engine(micro_model), rows, seed=5)


def test_a_context_that_lost_its_middle_keeps_its_head(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine, context = make_engine(micro_model), []
    for number in range(1, 5):
        speak(engine, context, ids_of_turn(number), seed=number, n=5)
    head = len(build_prompt(context[:1], [], 4))
    rows = build_prompt([context[0], *context[2:]], ids_of_turn(5), 4)
    take = engine.generate(rows, seed=5, max_frames=6)
    got = [frame.tolist() for frame in take]
    # The next segment's BOS is common too.
    assert take.n_prefilled == len(rows) - head - 1
    assert got == frames_of(make_engine(micro_model), rows, seed=5)


def test_rows_that_differ_in_one_code_are_not_taken_from_the_cache(
    micro_model: CSM, make_engine: MakeEngine
) -> None:
    engine, context = make_engine(micro_model), []
    speak(engine, context, ids_of_turn(1), seed=1, n=8)
    ids, codes = context[0]
    for codebook in range(4):
        changed = codes.clone()
        changed[codebook, 3] = (changed[codebook, 3] + 1) % 2051
        rows = build_prompt([(ids, changed)], ids_of_turn(2), 4)
        engine.next_logits(build_prompt(context, ids_of_turn(2), 4))
        before = engine.stats.prefilled
        assert_same_logits(engine, rows)
        assert engine.stats.prefilled - before == len(rows) - len(ids) - 3


def test_a_prompt_longer_than_one_pass_equals_the_same_in_small_steps(
    tiny_model: CSM, make_engine: MakeEngine
) -> None:
    ids = torch.randint(0, 256, (2 * PREFILL_ALONE + 40,), generator=torch.Generator().manual_seed(1))
    rows = text_positions(ids.tolist(), 32)
    engine = make_engine(tiny_model)
    for end in (1, 30, PREFILL_ALONE + 3, len(rows) - 1):
        engine.next_logits(rows[:end])
    assert_same_logits(engine, rows)


# An exception inside a pass. The fault is planted in a layer, in the sampler or in the depth decoder and
# strikes at the n-th call, so it hits prefill (one pass per chunk), frames and the passes between them.


@pytest.fixture
def fault(micro_model: CSM, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Fault:
    where, error = request.param
    planted = Fault(error)
    transformer = micro_model.decoder if where == "depth decoder" else micro_model.backbone
    late = where == "last layer"
    # Both ways through a layer, for many positions and for one, call its norms.
    norm = transformer.layers[-1].mlp_norm if late else transformer.layers[0].attn_norm
    planted.plant(monkeypatch, transformer, norm, late=late)
    return planted


FAULTS = [
    pytest.param((where, error), id=f"{where}-{error.__name__}")
    for where in ("first layer", "last layer", "depth decoder")
    for error in (KeyboardInterrupt, RuntimeError)
]


@pytest.mark.parametrize("fault", FAULTS, indirect=True)
@pytest.mark.parametrize("n_before", [0, 1, 2, 3, 5, 8])
def test_a_fault_inside_a_pass_leaves_a_valid_cache(
    fault: Fault, n_before: int, micro_model: CSM, make_engine: MakeEngine
) -> None:
    engine, context = make_engine(micro_model), []
    speak(engine, context, ids_of_turn(1), seed=1, n=5)
    interrupted = engine.generate(build_prompt(context, ids_of_turn(7), 4), seed=3, max_frames=20)
    fault.left = n_before
    with pytest.raises(fault.error):
        list(interrupted)
    interrupted.close()
    rows = build_prompt(context, ids_of_turn(2), 4)
    assert_same_logits(engine, rows)
    assert frames_of(engine, rows, seed=2) == frames_of(make_engine(micro_model), rows, seed=2)


@pytest.mark.parametrize("fault", FAULTS[:4], indirect=True)
def test_a_fault_in_the_second_chunk_of_a_prefill_keeps_the_first(
    fault: Fault, micro_model: CSM, make_engine: MakeEngine
) -> None:
    rows = text_positions([i % 250 for i in range(60)], 4)
    engine = make_engine(micro_model)
    monkey_chunk = 16
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("csm_repl.engine.core.PREFILL_ALONE", monkey_chunk)
        fault.left = 2
        with pytest.raises(fault.error):
            engine.next_logits(rows)
    assert len(engine.held()) == 2 * monkey_chunk
    assert_same_logits(engine, rows)


@pytest.mark.parametrize("fault", FAULTS, indirect=True)
@pytest.mark.parametrize("n_before", [0, 2, 5])
def test_a_take_can_go_on_after_a_fault(
    fault: Fault, n_before: int, micro_model: CSM, make_engine: MakeEngine
) -> None:
    rows = build_prompt([], ids_of_turn(3), 4)
    greedy = SamplingOptions(top_k=1)
    whole = [f.tolist() for f in make_engine(micro_model).generate(rows, options=greedy, max_frames=8)]
    engine = make_engine(micro_model)
    take = engine.generate(rows, options=greedy, max_frames=8)
    fault.left = n_before
    frames: list[list[int]] = []
    with pytest.raises(fault.error):
        frames.extend(frame.tolist() for frame in take)
    frames += [frame.tolist() for frame in take]
    assert frames == whole


@pytest.fixture(scope="module")
def shared(micro_model: CSM, make_engine: MakeEngine) -> Engine:
    return make_engine(micro_model)


segments = st.tuples(
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.lists(st.integers(0, 1), min_size=0, max_size=4),
)
prompts = st.tuples(
    st.lists(segments, max_size=4),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.integers(1, 3),
)


@settings(max_examples=30)
@given(st.lists(prompts, min_size=1, max_size=5))
def test_any_sequence_of_prompts_equals_fresh_engines(shared: Engine, sequence: list[Any]) -> None:
    """Few ids and codes, so that prompts share prefixes by chance; the engine is never emptied."""
    for context, ids, n_frames in sequence:
        turns = [(words, torch.tensor([[c] * 4 for c in codes], dtype=torch.int64).view(-1, 4).T)
                 for words, codes in context]  # fmt: skip
        rows = build_prompt(turns, ids, 4)
        got = frames_of(shared, rows, n=n_frames)
        assert got == frames_of(Engine(shared.model), rows, n=n_frames)
