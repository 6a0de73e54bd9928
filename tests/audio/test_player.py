from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from csm_repl.audio.player import LEAD_S, Player, open_player

RATE = 1000


class _Card:
    """sounddevice's module and its OutputStream; `take` is what the sound card's thread does."""

    latency = 0.0
    active = True

    def __init__(self) -> None:
        self.closed = False
        self.callback: Any = None

    def OutputStream(self, **options: Any) -> _Card:  # noqa: N802
        self.callback = options["callback"]
        self.options = options
        return self

    def query_devices(self, kind: str) -> dict[str, str]:
        return {"name": f"fake {kind}"}

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def close(self) -> None:
        self.closed = True

    def take(self, n: int) -> np.ndarray:
        out = np.full((n, 1), 9.0, dtype=np.float32)
        self.callback(out, n, None, None)
        return out[:, 0]


def _ramp(n: int) -> torch.Tensor:
    return torch.arange(1, n + 1, dtype=torch.float32)


def test_samples_come_out_in_order_across_chunks_and_blocks() -> None:
    card = _Card()
    player = Player(card, RATE)
    for part in _ramp(500).split(130):
        player.play(part)
    heard = np.concatenate([card.take(90) for _ in range(6)])
    np.testing.assert_array_equal(heard[:500], _ramp(500).numpy())
    assert not heard[500:].any()


def test_sound_starts_when_a_lead_is_there_or_the_end_is_said() -> None:
    card = _Card()
    player = Player(card, RATE)
    player.play(_ramp(int(LEAD_S * RATE) - 1))
    assert not card.take(10).any()
    player.end()
    np.testing.assert_array_equal(card.take(10), _ramp(10).numpy())


def test_a_gap_is_silence_and_what_follows_is_whole() -> None:
    card = _Card()
    player = Player(card, RATE)
    player.play(_ramp(200))
    card.take(200)
    assert not card.take(50).any()
    player.play(_ramp(200))
    np.testing.assert_array_equal(card.take(200), _ramp(200).numpy())


def test_stop_drops_what_was_not_heard() -> None:
    card = _Card()
    player = Player(card, RATE)
    player.play(_ramp(400))
    card.take(100)
    player.stop()
    assert not card.take(100).any()


def test_wait_returns_when_all_is_taken() -> None:
    card = _Card()
    player = Player(card, RATE)
    player.play(_ramp(5))
    player.end()
    card.take(5)
    player.wait()
    player.close()
    assert card.closed


def test_without_portaudio_there_is_one_sentence_and_no_player(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    player, problem = open_player(24_000)
    assert player is None
    assert "PortAudio" in problem


def test_without_a_device_there_is_one_sentence_and_no_player(monkeypatch: pytest.MonkeyPatch) -> None:
    def query_devices(kind: str) -> None:
        raise ValueError("no default output device")

    monkeypatch.setitem(sys.modules, "sounddevice", SimpleNamespace(query_devices=query_devices))
    player, problem = open_player(24_000)
    assert player is None
    assert "no default output device" in problem


def test_a_device_is_opened_at_the_codecs_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    card = _Card()
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    player, problem = open_player(24_000)
    assert player is not None
    assert not problem
    assert (card.options["samplerate"], card.options["channels"]) == (24_000, 1)
