"""Tracks: equally long, aligned, and together exactly the run."""

from __future__ import annotations

import pickle
from datetime import datetime
from pathlib import Path

import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csm_repl.audio import write_audio
from csm_repl.errors import OutputError
from csm_repl.outputs import tracks as tracks_module
from csm_repl.outputs.takes import TakeFolder
from csm_repl.outputs.tracks import Tracks

NOW = datetime(2025, 11, 21, 14, 23, 1)
RATE = 24_000


@pytest.fixture
def takes(tmp_path):
    return TakeFolder(tmp_path, NOW)


def int16(path) -> torch.Tensor:
    return torch.from_numpy(soundfile.read(path, dtype="int16")[0])


def add(tracks: Tracks, takes: TakeFolder, speaker: int, samples: torch.Tensor, voice: str = "") -> Path:
    """A turn that is in its file, as the studio adds it."""
    if not len(samples):
        tracks.add(Path("000.wav"), speaker, 0, voice)
        return Path("000.wav")
    file = takes.begin_line(n_turns=1).save_turn(samples, RATE, {}, position=1)
    tracks.add(file, speaker, len(samples), voice)
    return file


def test_a_run_without_speech_writes_nothing(takes):
    tracks = Tracks(RATE)
    assert list(tracks.write(takes)) == []
    add(tracks, takes, 0, torch.zeros(0))
    assert list(tracks.write(takes)) == []
    assert takes.folder is None


def test_the_name_carries_speaker_and_voice(takes):
    tracks = Tracks(RATE)
    add(tracks, takes, 1, torch.ones(5), "anna")
    add(tracks, takes, 0, torch.ones(5))
    add(tracks, takes, 1, torch.ones(5))
    assert [path.name for path in tracks.write(takes)] == ["track-0.wav", "track-1-anna.wav"]
    assert [path.name for path in tracks.write(takes)] == ["track-0-2.wav", "track-1-anna-2.wav"]


def test_turns_that_are_withdrawn_take_no_time(takes):
    tracks = Tracks(RATE)
    add(tracks, takes, 0, torch.full((3,), 0.5))
    second = add(tracks, takes, 1, torch.full((2,), -0.5))
    third = add(tracks, takes, 2, torch.full((4,), -0.5))
    add(tracks, takes, 0, torch.full((1,), 0.25))
    tracks.withdraw((second, third, Path("unknown")))
    add(tracks, takes, 1, torch.full((1,), -0.25))
    first, second = map(int16, tracks.write(takes))
    assert first.tolist() == [16384, 16384, 16384, 8192, 0]
    assert second.tolist() == [0, 0, 0, 0, -8192]


def test_silence_where_others_speak(takes):
    tracks = Tracks(RATE)
    add(tracks, takes, 0, torch.full((3,), 0.5))
    add(tracks, takes, 1, torch.full((2,), -0.5))
    add(tracks, takes, 0, torch.full((1,), 0.25))
    first, second = map(int16, tracks.write(takes))
    assert first.tolist() == [16384, 16384, 16384, 0, 0, 8192]
    assert second.tolist() == [0, 0, 0, -16384, -16384, 0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000)), min_size=1, max_size=6), st.integers(0, 99)
)
def test_all_tracks_are_equally_long_and_add_up_to_the_run(tmp_path, turns, seed):
    """Silence in blocks smaller than a turn, so that their borders are met."""
    takes = TakeFolder(tmp_path, NOW)
    generator = torch.Generator().manual_seed(seed)
    samples = [torch.rand(n, generator=generator) * 2.2 - 1.1 for _, n in turns]
    tracks = Tracks(RATE)
    for (speaker, _), turn in zip(turns, samples, strict=True):
        add(tracks, takes, speaker, turn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracks_module, "_BLOCK", 1000)
        paths = list(tracks.write(takes))
    if not sum(n for _, n in turns):
        assert paths == []
        return
    assert len(paths) == len({speaker for speaker, n in turns if n})
    run = takes.make() / f"run-{takes.next_number()}-{len(list(takes.make().iterdir()))}.wav"
    write_audio(run, torch.cat(samples), RATE)
    assert torch.equal(torch.stack([int16(path) for path in paths]).sum(0), int16(run).long())


def test_a_failure_midway_leaves_no_short_track(takes, monkeypatch):
    class DiskFullError(Exception):
        pass

    def broken(self, speaker, lost):
        yield torch.ones(10)
        raise DiskFullError

    tracks = Tracks(RATE)
    add(tracks, takes, 0, torch.ones(20))
    monkeypatch.setattr(Tracks, "_blocks", broken)
    with pytest.raises(DiskFullError):
        list(tracks.write(takes))
    assert sorted(path.name for path in takes.folder.iterdir()) == ["001.json", "001.wav"]


def test_a_folder_that_cannot_be_made_is_an_output_error(takes, tmp_path):
    (tmp_path / "file").touch()
    tracks = Tracks(RATE)
    add(tracks, takes, 0, torch.ones(20))
    with pytest.raises(OutputError, match="cannot be written"):
        list(tracks.write(TakeFolder(tmp_path / "file")))


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda file: file.write_bytes(b"RIFF"),
        lambda file: write_audio(file, torch.ones(7), replace=True),
    ],
)
def test_a_take_that_is_not_what_it_was_is_silent_and_named(takes, harm):
    tracks = Tracks(RATE)
    file = add(tracks, takes, 0, torch.full((3,), 0.5))
    add(tracks, takes, 0, torch.full((2,), 0.25))
    harm(file)
    with pytest.raises(OutputError, match=r"in place of 001\.wav, "):
        list(tracks.write(takes))
    assert int16(takes.make() / "track-0.wav").tolist() == [0, 0, 0, 8192, 8192]


def test_without_any_of_its_takes_there_are_no_tracks(takes):
    tracks = Tracks(RATE)
    add(tracks, takes, 0, torch.ones(3)).unlink()
    with pytest.raises(OutputError, match="There are no tracks"):
        list(tracks.write(takes))
    assert [path.name for path in takes.make().iterdir()] == ["001.json"]


def test_no_sound_is_kept_in_memory(takes):
    tracks = Tracks(RATE)
    for speaker in range(10):
        add(tracks, takes, speaker, torch.ones(RATE))
    assert len(pickle.dumps(tracks)) < RATE
