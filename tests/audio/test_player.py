from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from csm_repl.audio import player as player_module
from csm_repl.audio.player import LEAD_S, Miniaudio, Player, PortAudio, Pull, open_player, output_device

RATE = 1000


class _Card:
    """A back end without a sound card; `take` is what its thread would do."""

    name = "fake card"
    latency_s = 0.0
    working = True
    problem: Exception | None = None

    def __init__(self, rate: int, pull: Pull) -> None:
        if self.problem:
            raise self.problem
        self.take = pull
        self.closed = False

    def runs(self) -> bool:
        if self.problem:
            raise self.problem
        return self.working

    def close(self) -> None:
        self.closed = True
        if not self.working:
            raise OSError("the card is gone")


def _open() -> tuple[Player, _Card]:
    cards: list[_Card] = []

    class Kept(_Card):
        def __init__(self, rate: int, pull: Pull) -> None:
            super().__init__(rate, pull)
            cards.append(self)

    return Player(RATE, Kept), cards[0]


def _broken(name: str, problem: Exception) -> type[_Card]:
    return type("Broken", (_Card,), {"name": name, "problem": problem})


def _ramp(n: int) -> torch.Tensor:
    return torch.arange(1, n + 1, dtype=torch.float32)


def test_samples_come_out_in_order_across_chunks_and_blocks() -> None:
    player, card = _open()
    for part in _ramp(500).split(130):
        player.play(part)
    heard = np.concatenate([card.take(90) for _ in range(6)])
    np.testing.assert_array_equal(heard[:500], _ramp(500).numpy())
    assert not heard[500:].any()


def test_sound_starts_when_a_lead_is_there_or_the_end_is_said() -> None:
    player, card = _open()
    player.play(_ramp(int(LEAD_S * RATE) - 1))
    assert not card.take(10).any()
    player.end()
    np.testing.assert_array_equal(card.take(10), _ramp(10).numpy())


def test_a_gap_is_silence_and_what_follows_is_whole() -> None:
    player, card = _open()
    player.play(_ramp(200))
    card.take(200)
    assert not card.take(50).any()
    player.play(_ramp(200))
    np.testing.assert_array_equal(card.take(200), _ramp(200).numpy())


def test_stop_drops_what_was_not_heard() -> None:
    player, card = _open()
    player.play(_ramp(400))
    card.take(100)
    player.stop()
    assert not card.take(100).any()


def test_wait_returns_when_all_is_taken() -> None:
    player, card = _open()
    player.play(_ramp(5))
    player.end()
    card.take(5)
    player.wait()
    player.close()
    assert card.closed


@pytest.mark.parametrize("problem", [None, RuntimeError("device unavailable")])
def test_a_device_that_goes_away_costs_nothing_and_is_known(problem: Exception | None) -> None:
    player, card = _open()
    player.play(_ramp(400))
    assert not player.gone
    card.working, card.problem = False, problem
    for _ in range(100):
        player.play(_ramp(400))
    assert player.gone
    # Nothing is kept for it: hours of speech would be gigabytes.
    assert not card.take(10).any()
    player.wait()
    player.close()


def test_an_output_that_asks_for_nothing_any_more_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(player_module.time, "monotonic", lambda: now[0])
    player, card = _open()
    # One that only slept: time passes, and the next pull comes.
    now[0] = 3600.0
    player.play(_ramp(400))
    card.take(10)
    assert not player.gone
    # More sound at once than it can play is no reason.
    for _ in range(200):
        player.play(_ramp(400))
    assert not player.gone
    now[0] += 3.0
    player.play(_ramp(400))
    assert player.gone


def test_wait_does_not_wait_for_an_output_that_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    naps: list[float] = []
    monkeypatch.setattr(player_module.time, "sleep", naps.append)
    player, _ = _open()
    player.play(_ramp(400))
    player.wait()
    assert sum(naps) < 3.0


def test_the_first_back_end_that_works_is_taken(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    missing = _broken("PortAudio", OSError("PortAudio library not found"))
    monkeypatch.setattr(player_module, "BACK_ENDS", [missing, _Card])
    player, problem = open_player(RATE)
    assert player is not None
    assert player.name == "fake card"
    assert not problem
    assert output_device() == ("fake card", "")
    sys.stderr.write("still here")
    assert capfd.readouterr().err == "still here"


def test_without_any_there_is_one_sentence_and_no_player(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        player_module,
        "BACK_ENDS",
        [
            _broken("one", ImportError("no module")),
            _broken("two", OSError("PortAudio library not found")),
            _broken("three", ValueError("no default\noutput", -1)),
        ],
    )
    sentence = (
        "No playback: there is no usable audio output "
        "(one: not installed; two: its library is missing; three: no default). Files only."
    )
    assert open_player(RATE) == (None, sentence)
    assert output_device() == ("", sentence)


def test_what_libraries_write_about_missing_devices_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import os

    class Loud(_Card):
        def __init__(self, rate: int, pull: Pull) -> None:
            os.write(2, b"ALSA lib confmisc.c:855: cannot find card '0'\n")
            raise RuntimeError("no card")

    monkeypatch.setattr(player_module, "BACK_ENDS", [Loud])
    open_player(RATE)
    assert capfd.readouterr().err == ""


def test_portaudio_is_asked_for_mono_at_the_rate_and_gets_what_is_pulled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options: dict[str, Any] = {}

    class Stream:
        latency = 0.03
        active = True

        def __init__(self, **given: Any) -> None:
            options.update(given)

        def start(self) -> None: ...

        def abort(self) -> None: ...

        def close(self) -> None: ...

    module = SimpleNamespace(OutputStream=Stream, query_devices=lambda kind: {"name": f"fake {kind}"})
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    output = PortAudio(24_000, lambda n: np.arange(n, dtype=np.float32))
    assert (options["samplerate"], options["channels"], options["dtype"]) == (24_000, 1, "float32")
    out = np.full((4, 1), 9.0, np.float32)
    options["callback"](out, 4, None, None)
    assert out[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]
    assert output.runs()
    assert output.latency_s == 0.03
    output.close()
    assert output.name == "fake output (PortAudio)"


def test_miniaudio_plays_through_its_own_library() -> None:
    heard: list[float] = []

    class Nowhere(Miniaudio):
        outputs = ("NULL",)

        def __init__(self, rate: int, pull: Pull) -> None:
            super().__init__(rate, lambda n: self._note(pull(n)))

        def _note(self, samples: np.ndarray) -> np.ndarray:
            heard.append(float(samples.sum()))
            return samples

    player = Player(24_000, Nowhere)
    assert player.name == "Null (miniaudio)"
    player.play(torch.ones(2400))
    player.wait()
    assert sum(heard) == 2400
    player.play(torch.ones(240_000))
    player.stop()
    player.wait()
    assert sum(heard) < 242_400
    assert not player.gone
    player.close()
    player.play(torch.ones(2400))
    assert player.gone


def test_miniaudio_left_to_itself_never_plays_into_nothing() -> None:
    assert "NULL" not in Miniaudio.outputs
    import miniaudio

    assert all(hasattr(miniaudio.Backend, name) for name in Miniaudio.outputs)
