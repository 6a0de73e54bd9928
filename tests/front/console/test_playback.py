from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from csm_repl.audio import player, write_audio
from csm_repl.events import Audio, Notice
from csm_repl.front.console.playback import Playback
from csm_repl.settings import Settings

RATE = 24_000


class FakePlayer:
    """`Player` without a sound card."""

    name = "fake card"
    farewell = player.Player.farewell

    def __init__(self) -> None:
        self.gone = False
        self.calls: list[str] = []
        self.n_samples = 0

    def play(self, samples: torch.Tensor) -> None:
        self.n_samples += len(samples)

    def end(self) -> None:
        self.calls.append("end")

    def stop(self) -> None:
        self.calls.append("stop")

    def wait(self) -> None:
        self.calls.append("wait")

    def close(self) -> None:
        self.calls.append("close")


class Room:
    """A playback with its settings, its notices and the players that it opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, problem: str = "") -> None:
        self.settings = Settings()
        self.notices: list[str] = []
        self.problem = problem
        self.opened: list[FakePlayer] = []
        monkeypatch.setattr(player, "open_player", self._open)
        self.playback = Playback(RATE, lambda: self.settings, self._say)

    def set_play(self, value: bool | None) -> None:
        self.settings = self.settings.with_value("play", value, "$SET$")

    def _open(self, rate: int) -> tuple[Any, str]:
        assert rate == RATE
        if self.problem:
            self.opened.append(FakePlayer())
            return None, self.problem
        self.opened.append(FakePlayer())
        return self.opened[-1], ""

    def _say(self, notice: Notice) -> None:
        if notice.level == "detail":
            assert notice.text == "Playing through fake card."
        else:
            self.notices.append(notice.text)


def _audio(n_samples: int) -> Audio:
    return Audio(torch.zeros(n_samples), RATE, 1.0, 1.0)


def test_nothing_is_opened_before_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(monkeypatch)
    room.playback.end()
    room.playback.stop()
    room.playback.wait()
    room.playback.close()
    assert not room.opened


def test_one_player_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(monkeypatch)
    for _ in range(3):
        room.playback.prepare()
        room.playback.add(_audio(10))
        room.playback.add(_audio(0))
    assert len(room.opened) == 1
    assert room.opened[0].n_samples == 30


def test_no_play_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(monkeypatch)
    room.set_play(False)
    room.playback.prepare()
    room.playback.add(_audio(10))
    assert not room.opened


def test_without_a_device_there_is_one_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(monkeypatch, "No playback. Files only.")
    for _ in range(3):
        room.playback.prepare()
        room.playback.add(_audio(10))
    assert room.notices == ["No playback. Files only."]
    room.problem = ""
    room.set_play(True)
    room.playback.prepare()
    room.playback.add(_audio(10))
    assert room.opened[-1].n_samples == 10


def test_switching_it_off_silences_what_is_playing(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(monkeypatch)
    room.playback.prepare()
    room.set_play(False)
    room.playback.add(_audio(10))
    assert room.opened[0].calls == ["stop"]
    room.set_play(True)
    room.playback.prepare()
    room.playback.add(_audio(10))
    assert room.opened[0].n_samples == 10


def test_a_device_that_goes_away_is_said_once_and_the_next_line_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room = Room(monkeypatch)
    room.playback.prepare()
    room.opened[0].gone = True
    for _ in range(3):
        room.playback.add(_audio(10))
    room.playback.end()
    room.playback.stop()
    assert room.notices == ["The sound has stopped: fake card takes no more. The file goes on."]
    assert room.opened[0].calls == ["close"]
    room.playback.prepare()
    room.playback.add(_audio(10))
    assert room.opened[1].n_samples == 10


def test_a_file_is_played_at_the_players_rate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    room = Room(monkeypatch)
    write_audio(tmp_path / "001.wav", torch.zeros(12_000), 12_000)
    room.playback.file(tmp_path / "001.wav")
    assert room.opened[0].n_samples == pytest.approx(RATE, abs=2)
    assert room.opened[0].calls == ["end"]
    assert room.notices == ["Playing 001.wav, 1.0 s."]


def test_a_file_that_is_not_played_is_answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    room = Room(monkeypatch, "No playback. Files only.")
    room.playback.file(tmp_path / "001.wav")
    room.set_play(False)
    room.playback.file(tmp_path / "001.wav")
    assert "Files only." in room.notices[0]
    assert "$SET play on$" in room.notices[1]
