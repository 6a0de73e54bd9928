"""Takes whose next frame is made before the last is looked at leave what ordinary takes leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from csm_repl.engine import Engine, SamplingOptions, build_prompt
from csm_repl.engine.core import FIRST_FRAME_REDRAWS
from csm_repl.engine.graphs import GraphRunner
from csm_repl.engine.mailbox import Mailbox
from csm_repl.model.csm import CSM
from tests.support.engine import golden_prompt, micro_prompt, recorded, single
from tests.support.faults import Fault

PROMPT = micro_prompt(2)
ZERO, SOUND = [0, 0, 0, 0], [5, 0, 0, 0]
OPTIONS = [SamplingOptions(), SamplingOptions(top_k=1), SamplingOptions(1.2, 5)]


def lagged(model: CSM) -> Engine:
    return Engine(model, make_runner=recorded)


def left_behind(engine: Engine, take: Any) -> dict[str, Any]:
    """All that a later take could notice."""
    return {
        "cached": engine.held().tolist(),
        "noise": take.noise.state().tolist(),
        "ended": take.ended,
        "n_frames": take.n_frames,
        "stats": engine.stats,
    }


def both(model: CSM, use: Callable[[Engine], Any]) -> tuple[Any, Any]:
    return use(Engine(model)), use(lagged(model))


@pytest.mark.parametrize("number", range(3))
def test_a_lagged_take_speaks_the_golden_tokens(
    number: int, golden_model: CSM, golden_cases: list[Any]
) -> None:
    case = golden_cases[number]
    take = lagged(golden_model).generate(
        golden_prompt(case), options=SamplingOptions(top_k=1), max_frames=len(case["frames"])
    )
    assert [frame.tolist() for frame in take] == case["frames"]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("max_frames", [0, 1, 2, 3, 12, None])
def test_a_take_that_is_cut_or_fills_the_context(
    max_frames: int | None, options: SamplingOptions, micro_model: CSM
) -> None:
    rows = micro_prompt(70)

    def use(engine: Engine) -> Any:
        take = engine.generate(rows, options=options, seed=3, max_frames=max_frames)
        frames = [frame.tolist() for frame in take]
        return frames, left_behind(engine, take)

    ordinary, got = both(micro_model, use)
    assert got == ordinary


@pytest.mark.parametrize("seed", range(6))
def test_a_take_that_ends_by_itself(seed: int, tiny_model: CSM) -> None:
    """tiny_checkpoint's weights close a take with probability 0.1 a frame, the first one included."""

    def use(engine: Engine) -> Any:
        take = engine.generate(build_prompt([], [256, 72, 105, 257], 32), seed=seed, max_frames=200)
        frames = [frame.tolist() for frame in take]
        assert take.ended == "end"
        return frames, left_behind(engine, take)

    ordinary, got = both(tiny_model, use)
    assert got == ordinary


def test_the_noise_goes_on_in_the_next_take_as_if_nothing_had_been_dropped(tiny_model: CSM) -> None:
    """As the pieces of a long turn do, whose first piece ended by itself."""

    def use(engine: Engine) -> Any:
        first = engine.generate(build_prompt([], [256, 72, 257], 32), seed=2, max_frames=200)
        frames = [list(first)]
        for word in (80, 90):
            rows = build_prompt([], [256, word, 257], 32)
            frames.append(list(engine.generate(rows, noise=first.noise, max_frames=200)))
        return [[frame.tolist() for frame in take] for take in frames]

    ordinary, got = both(tiny_model, use)
    assert got == ordinary


@pytest.mark.parametrize("n_heard", [1, 2, 5])
def test_a_take_that_is_abandoned(n_heard: int, micro_model: CSM) -> None:
    def use(engine: Engine) -> Any:
        take = engine.generate(PROMPT, seed=1)
        frames = [next(take).tolist() for _ in range(n_heard)]
        state = engine.held().tolist()
        take.close()
        following = engine.generate(micro_prompt(5), noise=take.noise, max_frames=4)
        return frames, state, [frame.tolist() for frame in following]

    ordinary, got = both(micro_model, use)
    assert got == ordinary


def test_the_logits_after_an_abandoned_take(micro_model: CSM) -> None:
    def use(engine: Engine) -> Any:
        take = engine.generate(PROMPT, seed=1)
        next(take)
        take.close()
        engine.next_logits(micro_prompt(5))
        return take.noise.state().tolist(), engine.held().tolist()

    ordinary, got = both(micro_model, use)
    assert got == ordinary


def test_a_conversation_prefills_what_an_ordinary_engine_prefills(tiny_model: CSM) -> None:
    def use(engine: Engine) -> Any:
        context: list[Any] = []
        said = []
        for number in range(5):
            ids = [256, *range(30 + number, 36 + number), 257]
            take = engine.generate(build_prompt(context, ids, 32), seed=number, max_frames=60)
            codes = torch.stack(list(take), 1)
            context.append((ids, codes))
            said.append((codes.tolist(), take.n_prefilled, take.n_prompt))
        return said

    ordinary, got = both(tiny_model, use)
    assert got == ordinary


# The order of things, with a model that makes the given frames.


class Log:
    def __init__(self) -> None:
        self.entries: list[str] = []


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()
    draw, read = GraphRunner.draw, Mailbox.read

    def logged_draw(self: GraphRunner, slots: Any) -> None:
        log.entries.append("launch")
        draw(self, slots)

    def logged_read(self: Mailbox, ticket: int) -> torch.Tensor:
        log.entries.append("read")
        return read(self, ticket)

    monkeypatch.setattr(GraphRunner, "draw", logged_draw)
    monkeypatch.setattr(Mailbox, "read", logged_read)
    return log


Scripted = Callable[[Iterable[list[int]]], Engine]


@pytest.fixture
def scripted(micro_model: CSM, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    def make(frames: Iterable[list[int]]) -> Engine:
        engine = lagged(micro_model)
        left = iter(frames)
        monkeypatch.setattr(micro_model, "make_frames", lambda *_: torch.tensor([next(left)]))
        return engine

    return make


def test_a_frame_is_launched_before_the_one_before_it_is_read(scripted: Scripted, log: Log) -> None:
    take = scripted([SOUND] * 9).generate(PROMPT, max_frames=4)
    next(take)
    # Nobody waits for the first frame longer than it takes; the second is under way when it goes out.
    assert log.entries == ["launch", "read", "launch"]
    next(take)
    assert log.entries[3:] == ["launch", "read"]
    next(take)
    assert log.entries[5:] == ["launch", "read"]
    next(take)
    assert log.entries[7:] == ["read"]
    assert list(take) == []
    assert log.entries[8:] == []


def test_a_frame_behind_the_end_is_dropped(scripted: Scripted) -> None:
    take = scripted([SOUND, SOUND, ZERO, SOUND]).generate(PROMPT)
    assert [frame.tolist() for frame in take] == [SOUND, SOUND]
    assert (take.ended, take.n_frames) == ("end", 2)


def test_a_first_frame_that_closes_is_drawn_again_before_anything_follows(
    scripted: Scripted, log: Log
) -> None:
    frames = [ZERO] * FIRST_FRAME_REDRAWS + [SOUND, ZERO, SOUND]
    take = scripted(frames).generate(PROMPT)
    assert [frame.tolist() for frame in take] == [SOUND]
    assert log.entries[: 2 * FIRST_FRAME_REDRAWS] == ["launch", "read"] * FIRST_FRAME_REDRAWS


def test_nothing_follows_a_take_that_says_nothing(scripted: Scripted) -> None:
    take = scripted([ZERO] * (FIRST_FRAME_REDRAWS + 1)).generate(PROMPT)
    assert (list(take), take.ended) == ([], "end")


@pytest.mark.parametrize("top_k", [65, 300, 5000])
def test_a_wider_top_k_is_recorded_anew(top_k: int, micro_model: CSM) -> None:
    engine, option = lagged(micro_model), SamplingOptions(top_k=top_k)
    list(engine.generate(PROMPT, max_frames=2))
    take = engine.generate(PROMPT, options=option, seed=3, max_frames=6)
    assert [frame.tolist() for frame in take] == single(micro_model, PROMPT, 6, option, 3)


# An exception at any call of a layer; a take that is asked again goes on as if nothing had happened.


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("where", ["backbone", "decoder"])
@pytest.mark.parametrize("n_before", range(0, 24, 3))
def test_a_fault_in_a_frame_changes_nothing(
    n_before: int, where: str, error: type[BaseException], micro_model: CSM, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = single(micro_model, PROMPT, 8, seed=6)
    engine = lagged(micro_model)
    transformer = getattr(micro_model, where)
    fault = Fault(error)
    fault.plant(monkeypatch, transformer, transformer.norm, late=True)
    take = engine.generate(PROMPT, seed=6, max_frames=8)
    fault.left = n_before if where == "decoder" else n_before // 3
    frames: list[list[int]] = []
    with pytest.raises(error):
        frames.extend(frame.tolist() for frame in take)
    frames += [frame.tolist() for frame in take]
    assert frames == whole
    assert engine.held().tolist() == _cached_after(micro_model)


def _cached_after(model: CSM) -> list[list[int]]:
    engine = Engine(model)
    list(engine.generate(PROMPT, seed=6, max_frames=8))
    return engine.held().tolist()
