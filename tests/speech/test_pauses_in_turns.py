"""A pause is exact silence; the sound before it ends as a turn does, and what follows begins as one does."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from csm_repl.loaded import LoadedModel
from csm_repl.speech import Sound, TurnRequest, tail_trimmer
from csm_repl.speech.tail import KEEP_S
from csm_repl.text.pauses import Pause
from tests.support.codecs import random_istft
from tests.support.speaking import Room, Script, alike, sounds
from tests.support.speech import ROUNDING

PAUSE_S = 0.3


@pytest.fixture(scope="module", params=["mimi", "istft"])
def model(request: pytest.FixtureRequest, quick: LoadedModel) -> LoadedModel:
    """With a codec that holds nothing back, and with one that does."""
    if request.param == "mimi":
        return quick
    return replace(quick, codec=random_istft(quick.engine.n_codebooks))


@pytest.mark.parametrize("n_pieces", [1, 2, 3])
def test_the_sound_is_that_of_the_pieces_with_silence_around_them(model: LoadedModel, n_pieces: int) -> None:
    script = Script("Say it", 5, n_pieces=n_pieces)
    plain = Room(model).alone(script)
    paused = Room(model).alone(replace(script, pause_s=PAUSE_S))
    # What the model does is the same: it hears no silence.
    assert torch.equal(paused.codes, plain.codes)
    silence = torch.zeros(round(PAUSE_S * model.codec.sample_rate))
    expected, at = [silence], 0
    for piece in paused.pieces:
        expected += [model.codec.decode(paused.codes[:, at : at + piece.n_frames]), silence]
        at += piece.n_frames
    torch.testing.assert_close(paused.samples, torch.cat(expected), rtol=0, atol=ROUNDING)


def test_cues_are_where_the_words_are(model: LoadedModel) -> None:
    result = Room(model).alone(Script("Say it", 5, n_pieces=3, pause_s=PAUSE_S))
    n_silence = round(PAUSE_S * model.codec.sample_rate)
    at = n_silence
    for cue, piece in zip(result.cues, result.pieces, strict=True):
        assert (cue.text, cue.start) == (piece.text, at)
        assert cue.end == at + piece.n_frames * model.codec.samples_per_frame
        at = cue.end + n_silence
    assert at == len(result.samples)


def test_what_streams_is_the_whole_and_silence_comes_at_once(model: LoadedModel) -> None:
    room = Room(model)
    turn = room.submit(Script("Say it", 5, n_pieces=2, pause_s=PAUSE_S))
    first = room.step()
    assert isinstance(first[0], Sound)
    assert not first[0].samples.any()
    room.finish()
    assert torch.equal(sounds(room.events[turn]), room.result(turn).samples)


def test_the_silence_that_a_model_makes_does_not_lengthen_a_pause(model: LoadedModel) -> None:
    """Samples are trimmed before a pause as at the end of a turn."""
    room = Room(model)
    turn = room.submit(Script("Say it", 5, n_pieces=2, pause_s=PAUSE_S, stages=(_half_mute, tail_trimmer)))
    room.finish()
    result = room.result(turn)
    rate, n_pause = model.codec.sample_rate, round(PAUSE_S * model.codec.sample_rate)
    for cue, piece in zip(result.cues, result.pieces, strict=True):
        n_whole = piece.n_frames * model.codec.samples_per_frame
        assert cue.end - cue.start == min(n_whole, n_whole // 2 + int(KEEP_S * rate))
    assert len(result.samples) == sum(cue.end - cue.start for cue in result.cues) + 3 * n_pause


class _HalfMute:
    """Silences everything behind the first half of what it gets in all, which is 1 where it is not silent."""

    def __init__(self) -> None:
        self.parts: list[torch.Tensor] = []

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        self.parts.append(samples)
        return samples[:0]

    def finish(self) -> torch.Tensor:
        whole = torch.ones(sum(map(len, self.parts)))
        whole[len(whole) // 2 :] = 0
        return whole


def _half_mute(_: int) -> _HalfMute:
    return _HalfMute()


def test_turns_with_and_without_pauses_side_by_side_are_as_alone(model: LoadedModel) -> None:
    scripts = [
        Script("One", 1, n_pieces=2, pause_s=0.1),
        Script("Two", 2),
        Script("Three", 3, n_pieces=3, pause_s=0.02),
        Script("Four", 4, n_pieces=2),
    ]
    room = Room(model, 2)
    turns = [room.submit(script) for script in scripts]
    room.finish()
    for turn, script in zip(turns, scripts, strict=True):
        alike(room.result(turn), Room(model).alone(script))


def test_a_turn_of_silence_alone_asks_the_model_for_nothing(quick: LoadedModel) -> None:
    room = Room(quick)
    request = room.request(Script("unused"))
    turn = room.speech.submit(TurnRequest((Pause(0.5), Pause(0.25)), request.context))
    room.finish()
    result = room.result(turn)
    assert torch.equal(result.samples, torch.zeros(round(0.75 * quick.codec.sample_rate)))
    assert (result.pieces, result.cues, result.ended) == ((), (), "end")
    assert result.codes.shape == (quick.engine.n_codebooks, 0)
    assert result.timings.n_prompt == 0


def test_a_pause_of_no_length_only_parts_the_sound(quick: LoadedModel) -> None:
    result = Room(quick).alone(Script("Say it", 5, n_pieces=2, pause_s=0.0))
    assert len(result.samples) == result.codes.shape[1] * quick.codec.samples_per_frame


def test_a_turn_that_is_cut_gets_no_pause_behind_the_cut(quick: LoadedModel) -> None:
    script = Script("Say it", 5, n_pieces=3, max_frames=4, pause_s=PAUSE_S)
    result = Room(quick).alone(script)
    assert result.ended == "cut"
    assert result.codes.shape[1] == 4
    n_pause = round(PAUSE_S * quick.codec.sample_rate)
    assert len(result.samples) == n_pause + 4 * quick.codec.samples_per_frame


def test_a_turn_can_be_stopped_in_a_pause(quick: LoadedModel) -> None:
    room = Room(quick)
    turn = room.submit(Script("Say it", 5, pause_s=PAUSE_S))
    room.step()
    result = room.speech.stop(turn)
    assert result.ended == "interrupted"
    assert len(result.samples) >= round(PAUSE_S * quick.codec.sample_rate)
    assert not room.speech.n_open
