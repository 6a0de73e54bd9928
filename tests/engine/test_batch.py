"""Takes side by side are the takes one after the other, whatever shares their rows."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from step_takes import GREEDY, golden_rows, micro_rows, single
from test_lagged import recorded

from csm_repl.engine import (
    BatchEngine,
    BatchItem,
    Engine,
    PromptTooLongError,
    RowFrame,
    SamplingOptions,
    prompt_rows,
    text_rows,
)
from csm_repl.engine.batch import row_bytes
from csm_repl.engine.step import EagerRunner
from csm_repl.errors import OutOfMemoryError
from csm_repl.model.checkpoint import find_checkpoint, load_csm
from csm_repl.model.csm import CSM
from tests.faults import Fault

RUNNERS = pytest.mark.parametrize("runner", [EagerRunner, recorded], ids=["eager", "recorded"])
Frames = list[list[int]]


def run(engine: BatchEngine, items: list[BatchItem]) -> tuple[dict[int, Frames], dict[int, str]]:
    frames: dict[int, Frames] = defaultdict(list)
    ended: dict[int, str] = {}
    for event in engine.generate_batch(items):
        if isinstance(event, RowFrame):
            assert event.index not in ended
            frames[event.index].append(event.codes.tolist())
        else:
            ended[event.index] = event.ended
    assert engine.n_open == 0
    return frames, ended


def one_by_one(model: CSM, items: list[BatchItem]) -> tuple[dict[int, Frames], dict[int, str]]:
    frames: dict[int, Frames] = {}
    ended: dict[int, str] = {}
    for index, item in enumerate(items):
        take = Engine(model).generate(
            item.rows, options=item.options, seed=item.seed, max_frames=item.max_frames
        )
        if said := [frame.tolist() for frame in take]:
            frames[index] = said
        ended[index] = str(take.ended)
    return frames, ended


@RUNNERS
@pytest.mark.parametrize("n_rows", [1, 2, 3, 5])
def test_every_item_speaks_its_golden_tokens(
    n_rows: int, runner: Any, golden_model: CSM, golden_cases: list[Any]
) -> None:
    cases = golden_cases * 2
    items = [
        BatchItem(golden_rows(case), GREEDY, max_frames=len(case["frames"]) - index % 3)
        for index, case in enumerate(cases)
    ]
    frames, ended = run(BatchEngine(golden_model, n_rows, runner), items)
    assert frames == {
        index: case["frames"][: len(case["frames"]) - index % 3] for index, case in enumerate(cases)
    }
    assert set(ended.values()) == {"cut"}


@RUNNERS
@pytest.mark.parametrize("n_rows", [1, 2, 4, 16])
def test_takes_that_end_by_themselves_make_room_for_those_that_wait(
    n_rows: int, runner: Any, tiny_model: CSM
) -> None:
    """tiny_checkpoint's weights close a take with probability 0.1 a frame, the first one included."""
    items = [
        BatchItem(
            prompt_rows([], [256, *range(40, 42 + 3 * (seed % 4)), 257], 32),
            SamplingOptions(temperature=0) if seed == 3 else SamplingOptions(top_k=50 + seed),
            seed,
            8 if seed % 5 == 3 else 100,
        )
        for seed in range(11)
    ]
    expected = one_by_one(tiny_model, items)
    assert set(expected[1].values()) == {"end", "cut"}
    assert len({len(take) for take in expected[0].values()}) > 3
    assert run(BatchEngine(tiny_model, n_rows, runner), items) == expected


@RUNNERS
def test_rows_that_fill_the_context_end_there(runner: Any, micro_model: CSM) -> None:
    items = [BatchItem(text_rows([3] * n, 4), seed=n) for n in (95, 60, 94, 90, 1)]
    frames, ended = run(BatchEngine(micro_model, 2, runner), items)
    assert (frames, ended) == one_by_one(micro_model, items)
    assert set(ended.values()) == {"context"}


@RUNNERS
def test_an_item_without_frames_only_ends(runner: Any, micro_model: CSM) -> None:
    items = [BatchItem(micro_rows(2), max_frames=n) for n in (0, 2, 0, 0, 1)]
    frames, ended = run(BatchEngine(micro_model, 2, runner), items)
    assert {index: len(take) for index, take in frames.items()} == {1: 2, 4: 1}
    assert ended == dict.fromkeys(range(5), "cut")


@RUNNERS
@pytest.mark.parametrize("cancelled", [0, 1, 4])
def test_a_cancelled_item_leaves_the_others_alone(cancelled: int, runner: Any, micro_model: CSM) -> None:
    items = [BatchItem(micro_rows(n), seed=n, max_frames=12) for n in range(1, 7)]
    expected = one_by_one(micro_model, items)[0]
    batch = BatchEngine(micro_model, 2, runner).generate_batch(items)
    frames: dict[int, Frames] = defaultdict(list)
    for n_events, event in enumerate(batch):
        if n_events == 5:
            batch.cancel(cancelled)
        if isinstance(event, RowFrame):
            frames[event.index].append(event.codes.tolist())
    whole = {index: take for index, take in frames.items() if index != cancelled}
    assert whole == {index: take for index, take in expected.items() if index != cancelled}
    assert len(frames[cancelled]) == (3 if cancelled < 2 else 0)


def test_a_closed_run_frees_all_rows(micro_model: CSM) -> None:
    engine = BatchEngine(micro_model, 3)
    batch = engine.generate_batch([BatchItem(micro_rows(n)) for n in range(1, 7)])
    next(batch)
    batch.close()
    assert engine.n_open == 0
    assert list(batch) == []


def test_events_come_in_turn_and_an_item_only_after_a_row_is_free(micro_model: CSM) -> None:
    taken: list[int] = []

    def items() -> Any:
        for n in range(4):
            taken.append(n)
            yield BatchItem(micro_rows(n + 1), max_frames=2)

    events = [
        (event.index, "frame" if isinstance(event, RowFrame) else "end", len(taken))
        for event in BatchEngine(micro_model, 2).generate_batch(items())
    ]
    assert events == [
        (0, "frame", 2), (1, "frame", 2), (0, "frame", 2), (1, "frame", 2), (0, "end", 2), (1, "end", 2),
        (2, "frame", 4), (3, "frame", 4), (2, "frame", 4), (3, "frame", 4), (2, "end", 4), (3, "end", 4),
    ]  # fmt: skip


def test_an_item_that_is_too_long_is_named_and_the_others_go_on(micro_model: CSM) -> None:
    items = [BatchItem(micro_rows(2), max_frames=3), BatchItem(text_rows([3] * 96, 4))]
    batch = BatchEngine(micro_model, 2).generate_batch(items)
    with pytest.raises(PromptTooLongError, match="item 1: 96 positions"):
        next(batch)
    frames = [event.codes.tolist() for event in batch if isinstance(event, RowFrame)]
    assert frames == single(micro_model, micro_rows(2), 3)


def test_the_global_random_state_is_neither_used_nor_changed(micro_model: CSM) -> None:
    before = torch.get_rng_state()
    run(BatchEngine(micro_model, 2), [BatchItem(micro_rows(2), max_frames=3)])
    assert torch.equal(torch.get_rng_state(), before)


# What rows share and keep.


@RUNNERS
def test_a_common_beginning_is_prefilled_once_for_all_rows(runner: Any, micro_model: CSM) -> None:
    voice = [([256, *range(30, 50), 257], torch.randint(1, 2000, (4, 20)))]
    items = [BatchItem(prompt_rows(voice, [256, 60 + n, 257], 4), seed=n, max_frames=3 + n) for n in range(6)]
    engine = BatchEngine(micro_model, 3, runner)
    assert run(engine, items) == one_by_one(micro_model, items)
    n_voice = len(prompt_rows(voice, [256], 4))
    assert engine.stats.prefilled == n_voice + 6 * 2


@RUNNERS
def test_what_waits_in_a_free_row_is_not_spoilt_by_the_others(runner: Any, micro_model: CSM) -> None:
    engine = BatchEngine(micro_model, 3, runner)
    first = BatchItem(micro_rows(30, first=20), seed=1, max_frames=4)
    other = BatchItem(micro_rows(3, first=90), seed=2, max_frames=30)
    run(engine, [other, other, first])
    # All rows but one are free while this one runs.
    run(engine, [other])
    before = engine.stats.prefilled
    frames, _ = run(engine, [first])
    assert frames[0] == single(micro_model, first.rows, 4, seed=1)
    assert engine.stats.prefilled - before == 1


def test_rows_behind_the_last_take_are_not_run(micro_model: CSM, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    draw = EagerRunner.draw

    def counted(self: EagerRunner, n_rows: int) -> None:
        seen.append(n_rows)
        draw(self, n_rows)

    monkeypatch.setattr(EagerRunner, "draw", counted)
    items = [BatchItem(micro_rows(3), seed=n, max_frames=n) for n in (1, 2, 6, 3)]
    engine = BatchEngine(micro_model, 4)
    assert run(engine, items) == one_by_one(micro_model, items)
    assert seen == [4, 3, 2, 1, 1, 1]


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_quantised_rows_are_close_to_single_takes(quantize: str, golden_folder: Path) -> None:
    """The kernels round alike for one row and for a few: their rows are independent of each other."""
    model = load_csm(
        find_checkpoint(golden_folder), device=torch.device("cpu"), dtype=torch.float32, quantize=quantize
    )
    items = [BatchItem(prompt_rows([], [5 + n, 6, 7 + n], 32), GREEDY, max_frames=4 + n) for n in range(4)]
    assert run(BatchEngine(model, 3), items) == one_by_one(model, items)


def test_bfloat16_rows_speak(golden_folder: Path) -> None:
    model = load_csm(find_checkpoint(golden_folder), device=torch.device("cpu"), dtype=torch.bfloat16)
    items = [BatchItem(prompt_rows([], [5 + n, 6], 32), seed=n, max_frames=4) for n in range(3)]
    frames, _ = run(BatchEngine(model, 2), items)
    assert {index: len(take) for index, take in frames.items()} == {0: 4, 1: 4, 2: 4}


# Takes that are asked one by one, as the studio does.


def test_a_take_keeps_what_was_made_before_it_was_asked(micro_model: CSM) -> None:
    engine = BatchEngine(micro_model, 2)
    takes = [engine.generate(micro_rows(n), seed=n, max_frames=6) for n in (1, 2)]
    first = [frame.tolist() for frame in takes[0]]
    made = engine.stats.frames
    second = [frame.tolist() for frame in takes[1]]
    assert engine.stats.frames == made == 12
    assert [first, second] == [single(micro_model, micro_rows(n), 6, seed=n) for n in (1, 2)]
    assert [take.ended for take in takes] == ["cut", "cut"]


def test_a_full_engine_refuses_and_a_closed_take_makes_room(micro_model: CSM) -> None:
    engine = BatchEngine(micro_model, 1)
    take = engine.generate(micro_rows(2))
    next(take)
    with pytest.raises(RuntimeError, match="all 1 rows"):
        engine.generate(micro_rows(3))
    take.close()
    following = engine.generate(micro_rows(3), seed=4, max_frames=5)
    assert [frame.tolist() for frame in following] == single(micro_model, micro_rows(3), 5, seed=4)
    assert list(take) == []


def test_the_noise_goes_on_in_a_later_take(micro_model: CSM) -> None:
    whole = single(micro_model, micro_rows(2), 9, seed=5)
    engine = BatchEngine(micro_model, 2)
    other = engine.generate(micro_rows(7), seed=1)
    next(other)
    begun = engine.generate(micro_rows(2), seed=5, max_frames=4)
    codes = torch.stack(list(begun), 1)
    rows = prompt_rows([], micro_rows(2)[:, -1].tolist(), 4, begun=codes)
    rest = engine.generate(rows, sampler=begun.sampler, max_frames=5)
    assert codes.T.tolist() + [frame.tolist() for frame in rest] == whole


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["backbone", "decoder"])
@pytest.mark.parametrize("n_before", [0, 1, 4, 9, 10])
def test_a_fault_in_a_step_changes_nothing(
    n_before: int, where: str, error: type[BaseException], micro_model: CSM, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = BatchEngine(micro_model, 2)
    takes = [engine.generate(micro_rows(n), seed=n, max_frames=6) for n in (1, 5)]
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
    assert frames == [single(micro_model, micro_rows(n), 6, seed=n) for n in (1, 5)]


# Memory.


def test_more_rows_than_fit_are_refused_and_told_how_many_would(
    micro_model: CSM, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = row_bytes(micro_model)
    monkeypatch.setattr("csm_repl.engine.batch.free_bytes", lambda _: 5 * each)
    with pytest.raises(OutOfMemoryError, match=r"--batch 4\b"):
        BatchEngine(micro_model, 5)
    BatchEngine(micro_model, 4)
    monkeypatch.setattr("csm_repl.engine.batch.free_bytes", lambda _: each // 2)
    with pytest.raises(OutOfMemoryError, match="Close other programs"):
        BatchEngine(micro_model, 1)


def test_the_bytes_of_a_row_are_those_of_its_caches(micro_model: CSM) -> None:
    caches = (micro_model.new_backbone_cache(), micro_model.new_decoder_cache())
    assert row_bytes(micro_model) == sum(cache.n_bytes for cache in caches)


def test_a_batch_without_rows_makes_no_sense(micro_model: CSM) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        BatchEngine(micro_model, 0)


def test_a_greedy_take_stays_greedy_when_a_neighbour_needs_more_noise(micro_model: CSM) -> None:
    items = [
        BatchItem(micro_rows(2), GREEDY, 0, max_frames=6),
        BatchItem(micro_rows(3), SamplingOptions(), 1, max_frames=2),
        BatchItem(micro_rows(4), SamplingOptions(1.0, 200), 2, max_frames=6),
    ]
    assert run(BatchEngine(micro_model, 2), items) == one_by_one(micro_model, items)


item_facts = st.tuples(
    st.integers(1, 90), st.integers(0, 2**63 - 1), st.one_of(st.none(), st.integers(0, 9)),
    st.sampled_from([0.0, 0.7, 1.3]), st.sampled_from([1, 4, 50, 200]),
)  # fmt: skip


@settings(max_examples=25)
@given(st.lists(item_facts, min_size=1, max_size=6), st.integers(1, 4), st.booleans())
def test_any_items_on_any_rows_are_single_takes(
    micro_model: CSM, facts: list[Any], n_rows: int, graphs: bool
) -> None:
    items = [
        BatchItem(text_rows([n % 7 + i % 5 for i in range(n)], 4), SamplingOptions(temperature, top_k), seed,
                  max_frames if max_frames is not None or n > 85 else 5)
        for n, seed, max_frames, temperature, top_k in facts
    ]  # fmt: skip
    engine = BatchEngine(micro_model, n_rows, recorded if graphs else EagerRunner)
    assert run(engine, items) == one_by_one(micro_model, items)
