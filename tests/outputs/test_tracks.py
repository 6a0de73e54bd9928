"""Tracks: equally long, aligned, and together exactly the run."""

from __future__ import annotations

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


def test_a_run_without_speech_writes_nothing(takes):
    tracks = Tracks(RATE)
    assert tracks.write(takes) == []
    tracks.add(Path("001.wav"), 0, torch.zeros(0))
    assert tracks.write(takes) == []
    assert takes.folder is None


def test_the_name_carries_speaker_and_voice(takes):
    tracks = Tracks(RATE)
    tracks.add(Path("002.wav"), 1, torch.ones(5), "anna")
    tracks.add(Path("003.wav"), 0, torch.ones(5))
    tracks.add(Path("004.wav"), 1, torch.ones(5))
    assert [path.name for path in tracks.write(takes)] == ["track-0.wav", "track-1-anna.wav"]
    assert [path.name for path in tracks.write(takes)] == ["track-0-2.wav", "track-1-anna-2.wav"]


def test_turns_that_are_withdrawn_take_no_time(takes):
    tracks = Tracks(RATE)
    tracks.add(Path("a"), 0, torch.full((3,), 0.5))
    tracks.add(Path("b"), 1, torch.full((2,), -0.5))
    tracks.add(Path("c"), 2, torch.full((4,), -0.5))
    tracks.add(Path("d"), 0, torch.full((1,), 0.25))
    tracks.withdraw((Path("b"), Path("c"), Path("unknown")))
    tracks.add(Path("e"), 1, torch.full((1,), -0.25))
    first, second = map(int16, tracks.write(takes))
    assert first.tolist() == [16384, 16384, 16384, 8192, 0]
    assert second.tolist() == [0, 0, 0, 0, -8192]


def test_silence_where_others_speak(takes):
    tracks = Tracks(RATE)
    tracks.add(Path("005.wav"), 0, torch.full((3,), 0.5))
    tracks.add(Path("006.wav"), 1, torch.full((2,), -0.5))
    tracks.add(Path("007.wav"), 0, torch.full((1,), 0.25))
    first, second = map(int16, tracks.write(takes))
    assert first.tolist() == [16384, 16384, 16384, 0, 0, 8192]
    assert second.tolist() == [0, 0, 0, -16384, -16384, 0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5000)), min_size=1, max_size=6), st.integers(0, 99)
)
def test_all_tracks_are_equally_long_and_add_up_to_the_run(tmp_path, turns, seed):
    """Blocks smaller than a turn, so that their borders are met; sample-exact with the takes' WAVs."""
    takes = TakeFolder(tmp_path, NOW)
    generator = torch.Generator().manual_seed(seed)
    samples = [torch.rand(n, generator=generator) * 2.2 - 1.1 for _, n in turns]
    tracks = Tracks(RATE)
    for (speaker, _), turn in zip(turns, samples, strict=True):
        tracks.add(Path("008.wav"), speaker, turn)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracks_module, "_BLOCK", 1000)
        paths = tracks.write(takes)
    if not sum(n for _, n in turns):
        assert paths == []
        return
    assert len(paths) == len({speaker for speaker, _ in turns})
    run = takes.make() / f"run-{takes.next_number()}-{len(list(takes.make().iterdir()))}.wav"
    write_audio(run, torch.cat(samples), RATE)
    assert torch.equal(torch.stack([int16(path) for path in paths]).sum(0), int16(run).long())


def test_a_failure_midway_leaves_no_short_track(takes, monkeypatch):
    class DiskFullError(Exception):
        pass

    def broken(self, speaker):
        yield torch.ones(10)
        raise DiskFullError

    tracks = Tracks(RATE)
    tracks.add(Path("009.wav"), 0, torch.ones(20))
    monkeypatch.setattr(Tracks, "_blocks", broken)
    with pytest.raises(DiskFullError):
        tracks.write(takes)
    assert list(takes.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").touch()
    tracks = Tracks(RATE)
    tracks.add(Path("010.wav"), 0, torch.ones(20))
    with pytest.raises(OutputError):
        tracks.write(TakeFolder(tmp_path / "file"))


def test_memory_is_two_bytes_a_sample_for_any_number_of_speakers():
    tracks = Tracks(RATE)
    for speaker in range(10):
        tracks.add(Path("011.wav"), speaker, torch.ones(RATE))
    assert sum(len(pcm) for _, _, pcm in tracks._chunks) == 10 * RATE * 2
