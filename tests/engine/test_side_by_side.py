"""Takes side by side are the takes one after the other, whatever shares their rows."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csm_repl.engine import (
    Engine,
    Frame,
    PromptTooLongError,
    SamplingOptions,
    TakeRequest,
    build_prompt,
    core,
    text_positions,
)
from csm_repl.engine.limits import slot_bytes
from csm_repl.engine.step import EagerRunner, MakeRunner
from csm_repl.errors import OutOfMemoryError
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.csm import CSM
from csm_repl.model.weights.convert import load_csm
from tests.support.engine import GREEDY, Frames, MakeEngine, golden_prompt, micro_prompt, recorded, single
from tests.support.faults import Fault

Said = tuple[dict[int, Frames], dict[int, str]]


def run(engine: Engine, requests: list[TakeRequest]) -> Said:
    """All takes to their end: frames and endings by their place in the list."""
    places = {engine.submit(request): place for place, request in enumerate(requests)}
    frames: dict[int, Frames] = defaultdict(list)
    ended: dict[int, str] = {}
    while engine.n_open:
        for event in engine.step():
            place = places[event.take]
            assert place not in ended
            if isinstance(event, Frame):
                frames[place].append(event.codes.tolist())
            else:
                ended[place] = event.ended
                assert event.n_frames == len(frames[place])
    return {place: said for place, said in frames.items() if said}, ended


def one_by_one(model: CSM, requests: list[TakeRequest]) -> Said:
    frames: dict[int, Frames] = {}
    ended: dict[int, str] = {}
    for place, request in enumerate(requests):
        take = Engine(model).generate(
            request.prompt, options=request.options, seed=request.seed, max_frames=request.max_frames
        )
        if said := [frame.tolist() for frame in take]:
            frames[place] = said
        ended[place] = str(take.ended)
    return frames, ended


@pytest.mark.parametrize("n_slots", [1, 4])
def test_every_take_speaks_its_golden_tokens(
    n_slots: int, make_engine: MakeEngine, golden_model: CSM, golden_cases: list[Any]
) -> None:
    cases = golden_cases * 2
    requests = [
        TakeRequest(golden_prompt(case), GREEDY, max_frames=len(case["frames"]) - index % 3)
        for index, case in enumerate(cases)
    ]
    frames, ended = run(make_engine(golden_model, n_slots), requests)
    assert frames == {
        index: case["frames"][: len(case["frames"]) - index % 3] for index, case in enumerate(cases)
    }
    assert set(ended.values()) == {"cut"}


@pytest.fixture(scope="module")
def ending(tiny_model: CSM) -> tuple[list[TakeRequest], Said]:
    """Takes that end by themselves, and what they are alone.

    tiny_checkpoint's weights close a take with probability 0.1 a frame, the first one included.
    """
    requests = [
        TakeRequest(
            build_prompt([], [256, *range(40, 42 + 3 * (seed % 4)), 257], 32),
            SamplingOptions(temperature=0) if seed == 3 else SamplingOptions(top_k=50 + seed),
            seed,
            8 if seed % 5 == 3 else 100,
        )
        for seed in range(11)
    ]
    expected = one_by_one(tiny_model, requests)
    assert set(expected[1].values()) == {"end", "cut"}
    assert len({len(take) for take in expected[0].values()}) > 3
    return requests, expected


@pytest.mark.parametrize("n_slots", [1, 4, 16])
def test_takes_that_end_by_themselves_make_room_for_those_that_wait(
    n_slots: int, make_engine: MakeEngine, tiny_model: CSM, ending: tuple[list[TakeRequest], Said]
) -> None:
    requests, expected = ending
    assert run(make_engine(tiny_model, n_slots), requests) == expected


def test_rows_that_fill_the_context_end_there(make_engine: MakeEngine, micro_model: CSM) -> None:
    requests = [TakeRequest(text_positions([3] * n, 4), seed=n) for n in (95, 60, 94, 90, 1)]
    frames, ended = run(make_engine(micro_model, 2), requests)
    assert (frames, ended) == one_by_one(micro_model, requests)
    assert set(ended.values()) == {"context"}


def test_a_take_without_frames_only_ends(make_engine: MakeEngine, micro_model: CSM) -> None:
    requests = [TakeRequest(micro_prompt(2), max_frames=n) for n in (0, 2, 0, 0, 1)]
    frames, ended = run(make_engine(micro_model, 2), requests)
    assert {index: len(take) for index, take in frames.items()} == {1: 2, 4: 1}
    assert ended == dict.fromkeys(range(5), "cut")


@pytest.mark.parametrize("aborted", [0, 1, 4])
def test_an_aborted_take_leaves_the_others_alone(
    aborted: int, make_engine: MakeEngine, micro_model: CSM
) -> None:
    requests = [TakeRequest(micro_prompt(n), seed=n, max_frames=12) for n in range(1, 7)]
    expected = one_by_one(micro_model, requests)[0]
    engine = make_engine(micro_model, 2)
    ids = [engine.submit(request) for request in requests]
    frames: dict[int, Frames] = defaultdict(list)
    n_steps = 0
    while engine.n_open:
        for event in engine.step():
            if isinstance(event, Frame):
                frames[ids.index(event.take)].append(event.codes.tolist())
        n_steps += 1
        if n_steps == 3:
            engine.abort(ids[aborted])
    whole = {place: said for place, said in frames.items() if place != aborted}
    assert whole == {place: said for place, said in expected.items() if place != aborted}
    assert frames[aborted] == (expected[aborted][:3] if aborted < 2 else [])


def test_takes_begin_in_the_order_of_their_submission(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model, 2)
    ids = [engine.submit(TakeRequest(micro_prompt(n + 1), max_frames=2)) for n in range(4)]
    steps = []
    while engine.n_open:
        steps.append(sorted((ids.index(event.take), type(event).__name__) for event in engine.step()))
    first = [(0, "Frame"), (1, "Frame")]
    last = [(0, "Frame"), (0, "TakeEnded"), (1, "Frame"), (1, "TakeEnded")]
    behind = [[(place + 2, kind) for place, kind in step] for step in (first, last)]
    assert [step for step in steps if step] == [first, last, *behind]


def test_a_prompt_that_is_too_long_is_refused_and_the_others_go_on(micro_model: CSM) -> None:
    engine = Engine(micro_model, 2)
    engine.submit(TakeRequest(micro_prompt(2), max_frames=3))
    with pytest.raises(PromptTooLongError, match="96 positions"):
        engine.submit(TakeRequest(text_positions([3] * 96, 4)))
    frames = []
    while engine.n_open:
        frames += [event.codes.tolist() for event in engine.step() if isinstance(event, Frame)]
    assert frames == single(micro_model, micro_prompt(2), 3)


def test_a_step_without_takes_does_nothing(micro_model: CSM) -> None:
    engine = Engine(micro_model)
    assert engine.step() == []
    engine.abort(12)
    assert engine.step() == []


def test_the_global_random_state_is_neither_used_nor_changed(micro_model: CSM) -> None:
    before = torch.get_rng_state()
    run(Engine(micro_model, 2), [TakeRequest(micro_prompt(2), max_frames=3)])
    assert torch.equal(torch.get_rng_state(), before)


# What rows share and keep.


def test_a_common_beginning_is_prefilled_once_for_all_rows(make_engine: MakeEngine, micro_model: CSM) -> None:
    voice = [([256, *range(30, 50), 257], torch.randint(1, 2000, (4, 20)))]
    requests = [
        TakeRequest(build_prompt(voice, [256, 60 + n, 257], 4), seed=n, max_frames=3 + n) for n in range(6)
    ]
    engine = make_engine(micro_model, 3)
    assert run(engine, requests) == one_by_one(micro_model, requests)
    n_voice = len(build_prompt(voice, [256], 4))
    assert engine.stats.prefilled == n_voice + 6 * 2


def test_what_waits_in_a_free_row_is_not_spoilt_by_the_others(
    make_engine: MakeEngine, micro_model: CSM
) -> None:
    engine = make_engine(micro_model, 3)
    first = TakeRequest(micro_prompt(30, first=20), seed=1, max_frames=4)
    other = TakeRequest(micro_prompt(3, first=90), seed=2, max_frames=30)
    run(engine, [other, other, first])
    # All rows but one are free while this one runs.
    run(engine, [other])
    before = engine.stats.prefilled
    frames, _ = run(engine, [first])
    assert frames[0] == single(micro_model, first.prompt, 4, seed=1)
    assert engine.stats.prefilled - before == 1


def test_slots_without_a_take_are_not_run(micro_model: CSM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []
    draw = EagerRunner.draw

    def counted(self: EagerRunner, slots: Any) -> None:
        seen.append(list(slots))
        draw(self, slots)

    monkeypatch.setattr(EagerRunner, "draw", counted)
    requests = [TakeRequest(micro_prompt(3), seed=n, max_frames=n) for n in (1, 2, 6, 3)]
    engine = Engine(micro_model, 4)
    assert run(engine, requests) == one_by_one(micro_model, requests)
    assert [len(slots) for slots in seen[:6]] == [4, 3, 2, 1, 1, 1]


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_quantised_rows_are_close_to_single_takes(quantize: str, golden_folder: Path) -> None:
    """The kernels round alike for one row and for a few: their rows are independent of each other."""
    model = load_csm(
        find_checkpoint(golden_folder), device=torch.device("cpu"), dtype=torch.float32, quantize=quantize
    )
    requests = [
        TakeRequest(build_prompt([], [5 + n, 6, 7 + n], 32), GREEDY, max_frames=4 + n) for n in range(4)
    ]
    assert run(Engine(model, 3), requests) == one_by_one(model, requests)


def test_bfloat16_rows_speak(golden_folder: Path) -> None:
    model = load_csm(find_checkpoint(golden_folder), device=torch.device("cpu"), dtype=torch.bfloat16)
    requests = [TakeRequest(build_prompt([], [5 + n, 6], 32), seed=n, max_frames=4) for n in range(3)]
    frames, _ = run(Engine(model, 2), requests)
    assert {index: len(take) for index, take in frames.items()} == {0: 4, 1: 4, 2: 4}


# Generations: takes that are read one by one.


def test_a_take_keeps_what_was_made_before_it_was_asked(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model, 2)
    takes = [engine.generate(micro_prompt(n), seed=n, max_frames=6) for n in (1, 2)]
    first = [frame.tolist() for frame in takes[0]]
    made = engine.stats.frames
    second = [frame.tolist() for frame in takes[1]]
    assert engine.stats.frames == made == 12
    assert [first, second] == [single(micro_model, micro_prompt(n), 6, seed=n) for n in (1, 2)]
    assert [take.ended for take in takes] == ["cut", "cut"]


def test_generations_and_submitted_takes_get_their_own_events(
    micro_model: CSM, make_engine: MakeEngine
) -> None:
    engine = make_engine(micro_model, 2)
    submitted = engine.submit(TakeRequest(micro_prompt(1), seed=1, max_frames=3))
    read = engine.generate(micro_prompt(2), seed=2, max_frames=3)
    assert [frame.tolist() for frame in read] == single(micro_model, micro_prompt(2), 3, seed=2)
    events = []
    # All its frames were made while the other take was read.
    while engine.n_open:
        events += engine.step()
    assert {event.take for event in events} == {submitted}
    frames = [event.codes.tolist() for event in events if isinstance(event, Frame)]
    assert frames == single(micro_model, micro_prompt(1), 3, seed=1)
    assert len(events) == len(frames) + 1


def test_the_noise_goes_on_in_a_later_take(micro_model: CSM, make_engine: MakeEngine) -> None:
    whole = single(micro_model, micro_prompt(2), 9, seed=5)
    engine = make_engine(micro_model, 2)
    other = engine.generate(micro_prompt(7), seed=1)
    next(other)
    begun = engine.generate(micro_prompt(2), seed=5, max_frames=4)
    codes = torch.stack(list(begun), 1)
    prompt = build_prompt([], micro_prompt(2)[:, -1].tolist(), 4, begun=codes)
    rest = engine.generate(prompt, noise=begun.noise, max_frames=5)
    assert codes.T.tolist() + [frame.tolist() for frame in rest] == whole


# Prompts that are prefilled beside takes that are being spoken.


@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_a_cold_prompt_never_stalls_a_take(chunk: int, micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model, 2)
    engine.prefill_beside = chunk
    speaking = engine.submit(TakeRequest(micro_prompt(2), seed=1, max_frames=80))
    frames: dict[int, Frames] = defaultdict(list)

    def step() -> set[int]:
        events = engine.step()
        for event in events:
            if isinstance(event, Frame):
                frames[event.take].append(event.codes.tolist())
        return {event.take for event in events}

    step()
    prompt = text_positions([3 + n % 50 for n in range(64)], 4)
    cold = engine.submit(TakeRequest(prompt, seed=2, max_frames=5))
    n_before = engine.stats.prefilled
    for n in range(1, 1 + -(-len(prompt) // chunk)):
        assert step() >= {speaking}
        assert engine.stats.prefilled - n_before == min(n * chunk, len(prompt))
    while engine.n_open:
        step()
    assert frames[speaking] == single(micro_model, micro_prompt(2), 80, seed=1)
    assert frames[cold] == single(micro_model, prompt, 5, seed=2)


def test_a_prompt_that_is_aborted_in_its_middle_leaves_a_valid_beginning(
    micro_model: CSM, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "PREFILL_ALONE", 16)
    engine = make_engine(micro_model)
    prompt = text_positions([3 + n % 50 for n in range(64)], 4)
    dropped = engine.submit(TakeRequest(prompt))
    engine.step()
    engine.step()
    engine.abort(dropped)
    assert len(engine.held()) == 32
    take = engine.generate(prompt, seed=2, max_frames=4)
    assert [frame.tolist() for frame in take] == single(micro_model, prompt, 4, seed=2)
    assert take.n_prefilled == 32


# Threads.


def test_takes_of_many_threads_are_those_that_their_seeds_give_alone(
    micro_model: CSM, make_engine: MakeEngine
) -> None:
    engine, said = make_engine(micro_model, 2), {}

    def speak(seed: int) -> None:
        take = engine.generate(micro_prompt(1 + seed % 5), seed=seed, max_frames=8)
        said[seed] = [frame.tolist() for frame in take]

    threads = [threading.Thread(target=speak, args=(seed,)) for seed in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {seed: single(micro_model, micro_prompt(1 + seed % 5), 8, seed=seed) for seed in range(12)}


def test_takes_are_submitted_and_aborted_by_threads_while_steps_are_made(
    micro_model: CSM, make_engine: MakeEngine
) -> None:
    engine = make_engine(micro_model, 3)
    kept: dict[int, int] = {}
    aborted: set[int] = set()

    def ask(first: int) -> None:
        chance = random.Random(first)
        for seed in range(first, first + 6):
            take = engine.submit(TakeRequest(micro_prompt(1 + seed % 5), seed=seed, max_frames=10))
            if chance.random() < 0.4:
                engine.abort(take)
                aborted.add(take)
            else:
                kept[take] = seed

    threads = [threading.Thread(target=ask, args=(first,)) for first in (0, 10, 20, 30)]
    for thread in threads:
        thread.start()
    frames: dict[int, Frames] = defaultdict(list)
    while engine.n_open or any(thread.is_alive() for thread in threads):
        for event in engine.step():
            if isinstance(event, Frame):
                frames[event.take].append(event.codes.tolist())
    assert aborted
    for take, seed in kept.items():
        assert frames[take] == single(micro_model, micro_prompt(1 + seed % 5), 10, seed=seed)


# Faults.


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["backbone", "decoder"])
@pytest.mark.parametrize("n_before", [0, 1, 4, 9, 10])
def test_a_fault_in_a_step_changes_nothing(
    n_before: int, where: str, error: type[BaseException], micro_model: CSM, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(micro_model, 2)
    takes = [engine.generate(micro_prompt(n), seed=n, max_frames=6) for n in (1, 5)]
    transformer = getattr(micro_model, where)
    fault = Fault(error, left=n_before)
    with monkeypatch.context() as patch:
        fault.plant(patch, transformer, transformer.norm, late=True)
        frames: list[Frames] = [[], []]
        try:
            for _ in range(6):
                for take, said in zip(takes, frames, strict=True):
                    said.append(next(take).tolist())
        except error:
            pass
    assert fault.left is None or where == "backbone"
    for take, said in zip(takes, frames, strict=True):
        said += [frame.tolist() for frame in take]
    assert frames == [single(micro_model, micro_prompt(n), 6, seed=n) for n in (1, 5)]


# Memory.


def test_more_slots_than_fit_are_refused_and_told_how_many_would(
    micro_model: CSM, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = slot_bytes(micro_model)
    monkeypatch.setattr("csm_repl.engine.limits.free_bytes", lambda _: 5 * each)
    with pytest.raises(OutOfMemoryError, match=r"--batch 4\b"):
        Engine(micro_model, 5)
    Engine(micro_model, 4)
    monkeypatch.setattr("csm_repl.engine.limits.free_bytes", lambda _: each // 2)
    with pytest.raises(OutOfMemoryError, match="Close other programs"):
        Engine(micro_model, 2)


def test_the_bytes_of_a_slot_are_those_of_its_caches(micro_model: CSM) -> None:
    caches = (micro_model.new_backbone_cache(), micro_model.new_decoder_cache())
    assert slot_bytes(micro_model) == sum(cache.n_bytes for cache in caches)


def test_an_engine_without_slots_makes_no_sense(micro_model: CSM) -> None:
    with pytest.raises(ValueError, match="at least one slot"):
        Engine(micro_model, 0)


def test_a_greedy_take_stays_greedy_when_a_neighbour_needs_more_noise(micro_model: CSM) -> None:
    requests = [
        TakeRequest(micro_prompt(2), GREEDY, 0, max_frames=6),
        TakeRequest(micro_prompt(3), SamplingOptions(), 1, max_frames=2),
        TakeRequest(micro_prompt(4), SamplingOptions(1.0, 200), 2, max_frames=6),
    ]
    assert run(Engine(micro_model, 2), requests) == one_by_one(micro_model, requests)


take_facts = st.tuples(
    st.integers(1, 90), st.integers(0, 2**63 - 1), st.one_of(st.none(), st.integers(0, 9)),
    st.sampled_from([0.0, 0.7, 1.3]), st.sampled_from([1, 4, 50, 200]),
)  # fmt: skip


@settings(max_examples=25)
@given(st.lists(take_facts, min_size=1, max_size=6), st.integers(1, 4), st.booleans())
def test_any_takes_in_any_slots_are_single_takes(
    micro_model: CSM, facts: list[Any], n_slots: int, graphs: bool
) -> None:
    requests = [
        TakeRequest(
            text_positions([n % 7 + i % 5 for i in range(n)], 4),
            SamplingOptions(temperature, top_k),
            seed,
            max_frames if max_frames is not None or n > 85 else 5,
        )
        for n, seed, max_frames, temperature, top_k in facts
    ]
    runner: MakeRunner = recorded if graphs else EagerRunner
    engine = Engine(micro_model, n_slots, runner)
    assert run(engine, requests) == one_by_one(micro_model, requests)
