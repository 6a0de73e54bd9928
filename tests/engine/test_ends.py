"""How takes end, and what cannot begin."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable

import pytest
import torch

from csm_repl.engine import Engine, PromptTooLongError, SamplingOptions, build_prompt, text_positions
from csm_repl.engine.core import FIRST_FRAME_REDRAWS
from csm_repl.model.csm import CSM
from tests.support.engine import MakeEngine

PROMPT = build_prompt([], [256, 72, 105, 257], 4)
ZERO, SOUND = [0, 0, 0, 0], [5, 0, 0, 0]
Script = Callable[[Iterable[list[int]]], Engine]


@pytest.fixture
def scripted(micro_model: CSM, monkeypatch: pytest.MonkeyPatch, make_engine: MakeEngine) -> Script:
    """An engine whose model makes the given frames."""

    def make(frames: Iterable[list[int]]) -> Engine:
        # Recording runs the step, so the script comes behind it.
        engine = make_engine(micro_model)
        left = iter(frames)
        monkeypatch.setattr(micro_model, "make_frames", lambda *_: torch.tensor([next(left)]))
        return engine

    return make


def test_the_all_zero_frame_ends_a_take(scripted: Script) -> None:
    take = scripted([SOUND, SOUND, ZERO, SOUND]).generate(PROMPT)
    assert [frame.tolist() for frame in take] == [SOUND, SOUND]
    assert (take.ended, take.n_frames) == ("end", 2)


@pytest.mark.parametrize("codebook", range(4))
def test_one_code_that_is_not_zero_keeps_a_take_going(scripted: Script, codebook: int) -> None:
    almost = [7 if i == codebook else 0 for i in range(4)]
    take = scripted([SOUND, almost, ZERO]).generate(PROMPT)
    assert [frame.tolist() for frame in take] == [SOUND, almost]


def test_an_ended_take_stays_ended(scripted: Script) -> None:
    take = scripted([SOUND, ZERO, SOUND]).generate(PROMPT)
    list(take)
    assert list(take) == []


def test_a_model_that_closes_its_takes_is_heard(tiny_model: CSM, make_engine: MakeEngine) -> None:
    """tiny_checkpoint's weights close a take with probability 0.1 a frame."""
    engine, rows = make_engine(tiny_model), build_prompt([], [256, 72, 105, 257], 32)
    lengths, ends = set(), set()
    for seed in range(3):
        take = engine.generate(rows, seed=seed, max_frames=100)
        lengths.add(len(list(take)))
        ends.add(take.ended)
    assert ends == {"end"}
    assert len(lengths) > 1


@pytest.mark.parametrize("n", [0, 1, 5])
def test_max_frames_cuts_a_take(micro_model: CSM, n: int, make_engine: MakeEngine) -> None:
    take = make_engine(micro_model).generate(PROMPT, max_frames=n)
    assert len(list(take)) == n
    assert take.ended == "cut"


def test_nothing_is_computed_before_the_first_frame_is_asked_for(
    micro_model: CSM, make_engine: MakeEngine
) -> None:
    engine = make_engine(micro_model)
    engine.generate(PROMPT)
    assert engine.stats.prefilled == 0


@pytest.mark.parametrize("n_prompt", [1, 50, 95])
def test_a_take_ends_where_the_positions_do(micro_model: CSM, n_prompt: int, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model)
    take = engine.generate(text_positions([3] * n_prompt, 4))
    assert len(list(take)) == 96 - n_prompt
    assert take.ended == "context"


def test_all_2048_positions_can_be_used(golden_model: CSM, make_engine: MakeEngine) -> None:
    rows = text_positions([i % 250 for i in range(2040)], 32)
    take = make_engine(golden_model).generate(rows)
    assert len(list(take)) == 8
    assert take.ended == "context"


def test_logits_at_the_last_position_equal_those_of_one_pass(
    golden_model: CSM, make_engine: MakeEngine
) -> None:
    rows = text_positions([i % 250 for i in range(2047)], 32)
    engine = make_engine(golden_model)
    for n in (1000, 2046):
        engine.next_logits(rows[:n])
    with torch.inference_mode():
        hidden = golden_model.run_backbone(golden_model.embed(rows), golden_model.new_backbone_cache(), 0)
        whole = golden_model.codebook0_head(hidden)
    # Relative to the largest: float32 sums in another order.
    assert (engine.next_logits(rows) - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_a_take_that_filled_the_context_does_not_disturb_the_next(
    micro_model: CSM, make_engine: MakeEngine
) -> None:
    engine = make_engine(micro_model)
    list(engine.generate(text_positions([3] * 90, 4)))
    got = [frame.tolist() for frame in engine.generate(PROMPT, max_frames=6)]
    assert got == [frame.tolist() for frame in make_engine(micro_model).generate(PROMPT, max_frames=6)]


@pytest.mark.parametrize("n_prompt", [96, 97, 5000])
def test_a_prompt_without_room_for_a_frame_is_refused(
    micro_model: CSM, n_prompt: int, make_engine: MakeEngine
) -> None:
    with pytest.raises(PromptTooLongError, match=f"{n_prompt} positions"):
        make_engine(micro_model).generate(text_positions([3] * n_prompt, 4))


@pytest.mark.parametrize("shape", [(0, 5), (3, 4), (3, 33), (5,)])
def test_rows_of_another_shape_are_refused(
    micro_model: CSM, shape: tuple[int, ...], make_engine: MakeEngine
) -> None:
    with pytest.raises(ValueError, match="a prompt must be"):
        make_engine(micro_model).generate(torch.zeros(shape, dtype=torch.int64))


def test_a_refused_prompt_leaves_a_running_take_alone(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model)
    take = engine.generate(PROMPT, max_frames=4)
    next(take)
    with pytest.raises(PromptTooLongError):
        engine.generate(text_positions([3] * 96, 4))
    assert len(list(take)) == 3


def test_another_take_waits_for_the_one_before(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model)
    first = engine.generate(PROMPT, seed=1, max_frames=4)
    frames = [next(first).tolist()]
    second = engine.generate(PROMPT, seed=2, max_frames=3)
    said = [frame.tolist() for frame in second]
    frames += [frame.tolist() for frame in first]
    assert frames == [
        frame.tolist() for frame in make_engine(micro_model).generate(PROMPT, seed=1, max_frames=4)
    ]
    assert said == [
        frame.tolist() for frame in make_engine(micro_model).generate(PROMPT, seed=2, max_frames=3)
    ]


def test_a_closed_take_makes_room_and_has_no_more_frames(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model)
    first = engine.generate(PROMPT)
    next(first)
    first.close()
    assert engine.n_open == 0
    assert list(first) == []
    assert len(list(engine.generate(PROMPT, max_frames=3))) == 3


def test_a_take_that_nobody_holds_any_more_makes_room(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model)
    next(engine.generate(PROMPT))
    gc.collect()
    assert engine.n_open == 0


def test_a_take_that_closes_with_its_first_frame_is_drawn_again(scripted: Script) -> None:
    take = scripted([ZERO] * FIRST_FRAME_REDRAWS + [SOUND, ZERO]).generate(PROMPT)
    assert [frame.tolist() for frame in take] == [SOUND]


def test_first_frames_are_drawn_again_a_limited_number_of_times(scripted: Script) -> None:
    take = scripted([ZERO] * (FIRST_FRAME_REDRAWS + 1)).generate(PROMPT)
    assert (list(take), take.ended) == ([], "end")


def test_a_greedy_first_frame_is_not_drawn_again(scripted: Script) -> None:
    take = scripted([ZERO, SOUND]).generate(PROMPT, options=SamplingOptions(temperature=0.0))
    assert (list(take), take.ended) == ([], "end")


def test_a_later_closing_frame_is_not_drawn_again(scripted: Script) -> None:
    take = scripted([SOUND, ZERO, SOUND]).generate(PROMPT)
    assert len(list(take)) == 1


def test_codes_are_whole_frames_on_the_cpu(micro_model: CSM, make_engine: MakeEngine) -> None:
    frame = next(make_engine(micro_model).generate(PROMPT))
    assert (frame.dtype, frame.device.type, list(frame.shape)) == (torch.int64, "cpu", [4])


def test_the_counters_add_up(micro_model: CSM, make_engine: MakeEngine) -> None:
    engine = make_engine(micro_model)
    for n in (3, 5):
        list(engine.generate(PROMPT, max_frames=n))
    assert engine.stats.frames == 8
    assert engine.stats.prefilled + engine.stats.reused == 2 * len(PROMPT)
