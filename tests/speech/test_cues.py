"""Which samples say which text."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from csm_repl.loaded import LoadedModel
from csm_repl.speech import MakeStage, Stage, TurnResult
from tests.support.speaking import Room, Script


class Cut:
    """Leaves out the last samples, as the trimmer leaves out silence."""

    def __init__(self, n: int) -> None:
        self.n, self.held = n, torch.zeros(0)

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        joined = torch.cat([self.held, samples])
        n_out = max(0, len(joined) - self.n)
        self.held = joined[n_out:]
        return joined[:n_out]

    def finish(self) -> torch.Tensor:
        return self.held[:0]


def cut(n: int) -> tuple[MakeStage, ...]:
    def make(_: int) -> Stage:
        return Cut(n)

    return (make,) if n else ()


def tiles(result: TurnResult) -> None:
    assert result.cues[0].start == 0
    assert result.cues[-1].end == len(result.samples)
    assert all(cue.end == following.start for cue, following in pairwise(result.cues))


@pytest.mark.parametrize("n_cut", [0, 1, 1920, 5000, 40_000, 10**6])
@pytest.mark.parametrize("n_pieces", [1, 2, 5])
def test_cues_tile_the_turn_and_follow_its_pieces(quick: LoadedModel, n_pieces: int, n_cut: int) -> None:
    room = Room(quick)
    result = room.alone(Script("Say it", 3, n_pieces=n_pieces, stages=cut(n_cut)))
    tiles(result)
    assert [cue.text for cue in result.cues] == [f"Say it {n}" for n in range(n_pieces)]
    assert [cue.text for cue in result.cues] == [piece.text for piece in result.pieces]
    n_frames = 0
    for cue, piece in zip(result.cues, result.pieces, strict=True):
        n_frames += piece.n_frames
        assert cue.end == min(n_frames * quick.codec.samples_per_frame, len(result.samples))
    assert n_frames == result.codes.shape[1]
    assert len(result.samples) == max(0, n_frames * quick.codec.samples_per_frame - n_cut)


@pytest.mark.parametrize("max_frames", [1, 12, 13, 30])
def test_a_turn_that_is_cut_has_cues_for_the_pieces_that_were_begun(
    micro: LoadedModel, max_frames: int
) -> None:
    result = Room(micro).alone(Script("On", 3, n_pieces=4, max_frames=max_frames))
    tiles(result)
    assert len(result.samples) == max_frames * micro.codec.samples_per_frame
    assert [cue.text for cue in result.cues] == [f"On {n}" for n in range(-(-max_frames // 12))]


def test_a_turn_that_is_stopped_has_cues_for_what_was_heard(quick: LoadedModel) -> None:
    room = Room(quick)
    turn = room.submit(Script("Say it", 3, n_pieces=5))
    while len(room.events[turn]) < 20:
        room.step()
    result = room.speech.stop(turn)
    assert result.ended == "interrupted"
    assert len(result.samples)
    tiles(result)
    assert len(result.cues) > len(result.pieces)
