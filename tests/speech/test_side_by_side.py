"""Turns side by side are the turns that each would be alone."""

from __future__ import annotations

import random
import threading

import pytest
import torch

from csm_repl.loaded import LoadedModel
from csm_repl.speech import Sound, TurnOver, TurnResult, tail_trimmer
from tests.support.speaking import Room, Script, alike, sounds

Expected = dict[Script, TurnResult]
SCRIPTS = [
    Script("One.", 1),
    Script("A second turn, a longer one", 2, n_pieces=3),
    Script("Three.", 3, speaker=1, stages=(tail_trimmer,)),
    Script("Cut", 4, max_frames=5),
    Script("Five", 5, n_pieces=2, stages=(tail_trimmer,)),
]


@pytest.fixture(scope="module")
def expected(quick: LoadedModel) -> Expected:
    return {script: Room(quick).alone(script) for script in SCRIPTS}


def is_over(room: Room, turn: int) -> bool:
    return isinstance(room.events[turn][-1], TurnOver) if room.events[turn] else False


@pytest.mark.parametrize("n_slots", [1, 2, 5])
def test_turns_side_by_side_are_those_alone(quick: LoadedModel, expected: Expected, n_slots: int) -> None:
    room = Room(quick, n_slots)
    turns = [room.submit(script) for script in SCRIPTS]
    room.finish()
    for turn, script in zip(turns, SCRIPTS, strict=True):
        alike(room.result(turn), expected[script])
        assert torch.equal(sounds(room.events[turn]), room.result(turn).samples)


@pytest.mark.parametrize("seed", range(12))
def test_turns_that_join_and_leave_change_nothing_for_the_others(
    quick: LoadedModel, expected: Expected, seed: int
) -> None:
    chance = random.Random(seed)
    room = Room(quick, 1 + seed % 3)
    left = list(SCRIPTS)
    turns: dict[int, Script] = {}
    dropped: dict[int, int] = {}
    while left or room.speech.n_open:
        if left and chance.random() < 0.3:
            script = left.pop(0)
            turns[room.submit(script)] = script
        if turns and chance.random() < 0.1:
            turn = chance.choice(sorted(turns))
            room.speech.abort(turn)
            dropped.setdefault(turn, len(room.events[turn]))
        room.step()
    for turn, script in turns.items():
        if turn in dropped and not is_over(room, turn):
            assert len(room.events[turn]) == dropped[turn]
        else:
            alike(room.result(turn), expected[script])
    assert room.speech.engine.n_open == 0


def test_a_turn_that_leaves_makes_room_for_one_that_waits(quick: LoadedModel, expected: Expected) -> None:
    room = Room(quick)
    first, second = room.submit(SCRIPTS[1]), room.submit(SCRIPTS[0])
    room.step()
    room.speech.abort(first)
    room.finish()
    alike(room.result(second), expected[SCRIPTS[0]])
    with pytest.raises(KeyError):
        room.speech.stop(first)


def test_what_is_spoken_and_what_is_submitted_get_their_own_events(
    quick: LoadedModel, expected: Expected
) -> None:
    room = Room(quick, 2)
    submitted = room.submit(SCRIPTS[0])
    events = list(room.speech.speak(room.request(SCRIPTS[2])))
    assert isinstance(events[-1], TurnOver)
    alike(events[-1].result, expected[SCRIPTS[2]])
    assert submitted not in {event.turn for event in events}
    # It may be over by now, but its events are those of `step`.
    room.step()
    room.finish()
    assert set(room.events) == {submitted}
    alike(room.result(submitted), expected[SCRIPTS[0]])


def test_an_iterator_that_is_closed_frees_its_slot(quick: LoadedModel, expected: Expected) -> None:
    room = Room(quick)
    events = room.speech.speak(room.request(SCRIPTS[1]))
    next(events)
    events.close()
    turn = room.submit(SCRIPTS[0])
    room.finish()
    alike(room.result(turn), expected[SCRIPTS[0]])


def test_turns_of_many_threads_are_those_alone(quick: LoadedModel, expected: Expected) -> None:
    room, said = Room(quick, 2), {}

    def speak(number: int) -> None:
        said[number] = list(room.speech.speak(room.request(SCRIPTS[number % len(SCRIPTS)])))

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(2 * len(SCRIPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == len(threads)
    for number, events in said.items():
        alike(events[-1].result, expected[SCRIPTS[number % len(SCRIPTS)]])
        assert torch.equal(sounds(events), events[-1].result.samples)


def test_turns_are_submitted_and_aborted_by_threads_while_steps_are_made(
    quick: LoadedModel, expected: Expected
) -> None:
    room = Room(quick, 2)
    kept: dict[int, Script] = {}

    def ask(first: int) -> None:
        for number in range(first, first + 4):
            turn = room.submit(SCRIPTS[number % len(SCRIPTS)])
            if number % 3:
                kept[turn] = SCRIPTS[number % len(SCRIPTS)]
            else:
                room.speech.abort(turn)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    while room.speech.n_open or any(thread.is_alive() for thread in threads):
        room.step()
    for turn, script in kept.items():
        alike(room.result(turn), expected[script])


def test_first_audio_is_the_first_frames_sound_and_time_does_not_go_back(quick: LoadedModel) -> None:
    room = Room(quick)
    turn = room.submit(SCRIPTS[1])
    room.finish()
    told = room.events[turn][:-1]
    heard = [event for event in told if isinstance(event, Sound)]
    assert heard[0].generated_s == pytest.approx(1 / quick.codec.frame_rate)
    assert [event.generated_s for event in told] == sorted(event.generated_s for event in told)
    timings = room.result(turn).timings
    assert 0 < timings.first_audio_s <= timings.elapsed_s
