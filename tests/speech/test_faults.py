"""A step that fails, in the engine, in the codec or by Ctrl-C, costs no turn anything."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from csm_repl.loaded import LoadedModel
from csm_repl.speech import Speech, TurnResult
from tests.support.codecs import random_istft
from tests.support.faults import Fault
from tests.support.speaking import Room, Script, alike, sounds

SCRIPTS = [
    Script("One", 1, n_pieces=2),
    Script("Two, a longer one.", 2),
    Script("Three.", 3, max_frames=7),
    Script("Four", 4, n_pieces=2, pause_s=0.1),
]


@pytest.fixture(scope="module", params=["mimi", "istft"])
def model(request: pytest.FixtureRequest, quick: LoadedModel) -> LoadedModel:
    """With a codec that holds nothing back, and with one that does."""
    if request.param == "mimi":
        return quick
    return replace(quick, codec=random_istft(quick.engine.n_codebooks))


@pytest.fixture(scope="module")
def expected(model: LoadedModel) -> list[TurnResult]:
    """What the turns are alone."""
    return [Room(model).alone(script) for script in SCRIPTS]


def finish_despite(room: Room, error: type[BaseException]) -> int:
    """All turns to their end; how many steps failed."""
    n_failed = 0
    while room.speech.n_open:
        try:
            room.step()
        except error:
            n_failed += 1
    room.step()
    return n_failed


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["backbone", "decoder"])
@pytest.mark.parametrize("n_before", [0, 5])
def test_a_fault_in_the_engine(
    model: LoadedModel,
    expected: list[TurnResult],
    where: str,
    n_before: int,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room, network = Room(model, 2), getattr(model.engine.model, where)
    turns = [room.submit(script) for script in SCRIPTS]
    with monkeypatch.context() as patch:
        Fault(error, left=n_before).plant(patch, network, network.norm, late=True)
        assert finish_despite(room, error) == 1
    for turn, result in zip(turns, expected, strict=True):
        alike(room.result(turn), result)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(
    ("method", "n_before"), [("_decode", 0), ("_decode", 1), ("_decode", 4), ("_rest", 0), ("_rest", 2)]
)
def test_a_fault_in_the_codec(
    model: LoadedModel,
    expected: list[TurnResult],
    method: str,
    n_before: int,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = Room(model, 2)
    turns = [room.submit(script) for script in SCRIPTS]
    streams = room.speech._streams
    monkeypatch.setattr(streams, method, Fault(error, left=n_before).wrap(getattr(streams, method)))
    assert finish_despite(room, error) == 1
    for turn, result in zip(turns, expected, strict=True):
        alike(room.result(turn), result)
        assert torch.equal(sounds(room.events[turn]), room.result(turn).samples)


def test_a_fault_that_stays_is_gone_with_its_turn(
    quick: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(quick, 2)
    expected = room.alone(SCRIPTS[1])
    bad, good = (room.submit(script) for script in SCRIPTS[:2])
    room.step()
    streams = room.speech._streams
    decode, slot = streams._decode, room.speech._turns[bad].slot

    def failing(slots, codes):  # type: ignore[no-untyped-def]
        if slot in slots and bad in room.speech._turns:
            raise RuntimeError("a kernel failed")
        return decode(slots, codes)

    monkeypatch.setattr(streams, "_decode", failing)
    with pytest.raises(RuntimeError, match="a kernel failed"):
        room.finish()
    room.speech.abort(bad)
    room.finish()
    alike(room.result(good), expected)


def test_a_turn_that_ended_in_an_interrupted_step_can_be_stopped(
    quick: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = Room(quick)
    expected = room.alone(SCRIPTS[2])
    turn = room.submit(SCRIPTS[2])
    drop = Speech._drop

    def interrupted(self: Speech, dropped: object) -> None:
        drop(self, dropped)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Speech, "_drop", interrupted)
        with pytest.raises(KeyboardInterrupt):
            room.finish()
    alike(room.speech.stop(turn), expected)
