"""Plays samples while more are being made: one output, kept open.

PortAudio is tried first. pip does not bring it on Linux, so miniaudio comes next: its wheels hold the whole
library, and it finds PulseAudio's, PipeWire's or ALSA's by itself.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch

from csm_repl.audio.samples import SAMPLE_RATE

__all__ = ["BACK_ENDS", "BackEnd", "Miniaudio", "Player", "PortAudio", "open_player", "output_device"]

Samples = np.ndarray[Any, Any]
Pull = Callable[[int], Samples]
"""Gives the next n samples, float32 [n]: silence where there is nothing to play. Never raises."""

BLOCK_S = 0.02
LEAD_S = 0.12
"""Gathered before sound starts, so that a late chunk is not heard as a gap."""
_DEAF_S = 2.0
_DEAF_CHUNKS = 25
"""An output that takes nothing for so long, and while so many chunks came, is gone."""


class BackEnd(Protocol):
    """An output that is open and pulls samples in a thread of its own."""

    name: str
    """What it plays through, for people."""
    latency_s: float
    """From a pull to the ear, about."""

    def __init__(self, rate: int, pull: Pull) -> None:
        """Opens the default output and starts it. Raises whatever its library raises."""
        ...

    def runs(self) -> bool:
        """Whether it goes on pulling, as far as its library knows."""
        ...

    def close(self) -> None: ...


class PortAudio:
    """Through the sounddevice package."""

    name = "PortAudio"

    def __init__(self, rate: int, pull: Pull) -> None:
        import sounddevice

        device = sounddevice.query_devices(kind="output")["name"]
        self.name = f"{device} (PortAudio)"
        self._pull = pull
        self._stream = sounddevice.OutputStream(
            samplerate=rate,
            channels=1,
            dtype="float32",
            blocksize=int(rate * BLOCK_S),
            callback=self._callback,
        )
        self._stream.start()
        latency = self._stream.latency
        self.latency_s = min(0.5, float(latency)) if isinstance(latency, (int, float)) else 0.1

    def runs(self) -> bool:
        return bool(self._stream.active)

    def close(self) -> None:
        # Not stop(): a device that is gone would never play what it holds.
        self._stream.abort()
        self._stream.close()

    def _callback(self, out: Any, n_wanted: int, when: Any, status: Any) -> None:
        out[:, 0] = self._pull(n_wanted)


class Miniaudio:
    """Through the miniaudio package, which holds its library."""

    name = "miniaudio"
    latency_s = 3 * BLOCK_S
    outputs: Sequence[str] = ("WASAPI", "DSOUND", "WINMM", "COREAUDIO", "PULSEAUDIO", "ALSA", "JACK")
    """All of its own that can be heard: left to itself, it would take one that throws samples away."""

    def __init__(self, rate: int, pull: Pull) -> None:
        import miniaudio

        self._device = miniaudio.PlaybackDevice(
            output_format=miniaudio.SampleFormat.FLOAT32,
            nchannels=1,
            sample_rate=rate,
            buffersize_msec=int(1000 * BLOCK_S),
            callback_periods=3,
            backends=[miniaudio.Backend[name] for name in self.outputs],
            app_name="csm-repl",
        )
        self.name = f"{self._device.backend} (miniaudio)"
        generator = _pulled(pull)
        next(generator)
        self._device.start(generator)

    def runs(self) -> bool:
        return bool(self._device.running)

    def close(self) -> None:
        self._device.close()


BACK_ENDS: list[type[BackEnd]] = [PortAudio, Miniaudio]


def _pulled(pull: Pull) -> Generator[Samples, int, None]:
    n_wanted = yield np.zeros(0, np.float32)
    while True:
        n_wanted = yield pull(n_wanted)


class Player:
    """A mono output at one rate. `play` never blocks and never fails: a back end's thread takes what is due.

    Args:
        rate: samples per second.
        back_end: what to play through; it is opened here.

    Raises:
        Exception: whatever the back end's library raises where it cannot be opened.
    """

    def __init__(self, rate: int, back_end: type[BackEnd]) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._queue: collections.deque[Samples] = collections.deque()
        self._queued = 0
        self._running = False
        """Whether samples are taken; False while a lead is gathered."""
        self._n_unheard = 0
        """Chunks that came since the output last asked for samples."""
        self._deaf_since = time.monotonic()
        self._gone = False
        self._back_end = back_end(rate, self._pull)

    @property
    def name(self) -> str:
        """What it plays through."""
        return self._back_end.name

    @property
    def gone(self) -> bool:
        """Whether the output has stopped for good: unplugged, or its server has ended."""
        return self._gone

    @property
    def farewell(self) -> str:
        """What to tell the user when it is gone."""
        return f"The sound has stopped: {self.name} takes no more. The file goes on."

    def play(self, samples: torch.Tensor) -> None:
        """Appends float32 samples [n]."""
        data = samples.detach().cpu().numpy().astype(np.float32, copy=False)
        self._look()
        with self._lock:
            if len(data) and not self._gone:
                self._n_unheard += 1
                self._queue.append(data)
                self._queued += len(data)
            if self._queued >= LEAD_S * self._rate:
                self._running = True

    def end(self) -> None:
        """Says that nothing more comes for now: what is queued is played, however short."""
        with self._lock:
            self._running = True

    def stop(self) -> None:
        """Drops what has not been heard yet."""
        with self._lock:
            self._queue.clear()
            self._queued = 0
            self._running = False

    def wait(self) -> None:
        """Returns when everything has been heard; Ctrl-C gets through."""
        self.end()
        left, naps = self._queued, 0
        while left and self._runs() and naps < _DEAF_S / 0.05:
            time.sleep(0.05)
            before, left = left, self._queued
            naps = naps + 1 if left == before else 0
        # What was handed to the output is heard a latency later.
        time.sleep(self._back_end.latency_s)

    def close(self) -> None:
        """Ends the output; what is not heard yet is dropped."""
        with contextlib.suppress(Exception):  # an output that is gone may refuse, each in its own way
            self._back_end.close()

    def _look(self) -> None:
        is_deaf = self._n_unheard >= _DEAF_CHUNKS and time.monotonic() - self._deaf_since >= _DEAF_S
        if not self._gone and (is_deaf or not self._runs()):
            self._gone = True
            self.stop()

    def _runs(self) -> bool:
        try:
            return self._back_end.runs()
        except Exception:  # so PortAudio answers for a device that is gone
            return False

    def _pull(self, n_wanted: int) -> Samples:
        out = np.zeros(n_wanted, np.float32)
        filled = 0
        with self._lock:
            self._n_unheard = 0
            self._deaf_since = time.monotonic()
            while self._running and filled < n_wanted and self._queue:
                head = self._queue[0]
                taken = min(len(head), n_wanted - filled)
                out[filled : filled + taken] = head[:taken]
                filled += taken
                if taken == len(head):
                    self._queue.popleft()
                else:
                    self._queue[0] = head[taken:]
            self._queued -= filled
            if not self._queue:
                self._running = False
        return out


def output_device() -> tuple[str, str]:
    """What `open_player` would play through, or "" and why it could not, as one sentence."""
    player, problem = open_player(SAMPLE_RATE)
    if player is None:
        return "", problem
    player.close()
    return player.name, ""


def open_player(rate: int) -> tuple[Player | None, str]:
    """A player through the first back end that can be opened, or None and why, as one sentence."""
    problems = []
    for back_end in BACK_ENDS:
        try:
            with _quiet_libraries():
                return Player(rate, back_end), ""
        except Exception as error:  # each library has errors of its own
            problems.append((back_end, error))
    return None, _no_playback(problems)


def _no_playback(problems: Sequence[tuple[type[BackEnd], Exception]]) -> str:
    reasons = "; ".join(f"{back_end.name}: {_reason(error)}" for back_end, error in problems)
    return f"No playback: there is no usable audio output ({reasons}). Files only."


def _reason(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "not installed"
    if isinstance(error, OSError):
        return "its library is missing"
    # miniaudio's errors are a text and a number.
    text = str(error.args[0]) if error.args else type(error).__name__
    return (text.splitlines() or ["no device"])[0][:80]


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """ALSA complains on the standard error, past Python and about every device that is not there."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (AttributeError, OSError, ValueError):  # closed
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
