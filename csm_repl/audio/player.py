"""Plays samples while more are being made: one output stream, kept open."""

from __future__ import annotations

import collections
import threading
import time
from typing import Any

import numpy as np
import torch

__all__ = ["Player", "open_player", "output_device"]

BLOCK_S = 0.02
LEAD_S = 0.12
"""Gathered before sound starts, so that a late chunk is not heard as a gap."""


class Player:
    """A mono output stream at one rate. `play` never blocks; the sound card's thread takes what is due."""

    def __init__(self, sounddevice: Any, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._queue: collections.deque[np.ndarray[Any, Any]] = collections.deque()
        self._queued = 0
        self._running = False
        """Whether the card is taking samples; False while a lead is gathered."""
        self._stream = sounddevice.OutputStream(
            samplerate=rate,
            channels=1,
            dtype="float32",
            blocksize=int(rate * BLOCK_S),
            callback=self._callback,
        )
        self._stream.start()

    def play(self, samples: torch.Tensor) -> None:
        """Appends float32 samples [n]."""
        data = samples.detach().cpu().numpy().astype(np.float32, copy=False)
        with self._lock:
            if len(data):
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
        while True:
            with self._lock:
                left = self._queued
            if not left or not self._stream.active:
                break
            time.sleep(min(0.1, left / self._rate))
        # What was handed to the card is heard a latency later.
        latency = self._stream.latency
        time.sleep(min(0.5, float(latency) if isinstance(latency, (int, float)) else 0.1))

    def close(self) -> None:
        self._stream.stop()
        self._stream.close()

    def _callback(self, out: Any, n_wanted: int, when: Any, status: Any) -> None:
        filled = 0
        with self._lock:
            while self._running and filled < n_wanted and self._queue:
                head = self._queue[0]
                taken = min(len(head), n_wanted - filled)
                out[filled : filled + taken, 0] = head[:taken]
                filled += taken
                if taken == len(head):
                    self._queue.popleft()
                else:
                    self._queue[0] = head[taken:]
            self._queued -= filled
            if not self._queue:
                self._running = False
        out[filled:] = 0


def output_device() -> tuple[str, str]:
    """The audio output's name, or "" and why there is none, as one sentence."""
    return _probe()[1:]


def open_player(rate: int) -> tuple[Player | None, str]:
    """A player, or None and why there is none, as one sentence."""
    sounddevice, _, problem = _probe()
    if sounddevice is None:
        return None, problem
    try:
        return Player(sounddevice, rate), ""
    except Exception as error:  # PortAudio's errors differ from platform to platform
        return None, _no_device(error)


def _probe() -> tuple[Any, str, str]:
    try:
        import sounddevice
    except (ImportError, OSError):
        return None, "", "No playback: PortAudio is missing (Debian: apt install libportaudio2). Files only."
    try:
        return sounddevice, str(sounddevice.query_devices(kind="output")["name"]), ""
    except Exception as error:  # as above
        return None, "", _no_device(error)


def _no_device(error: Exception) -> str:
    reason = (str(error).splitlines() or ["no device"])[0]
    return f"No playback: there is no usable audio output ({reason[:120]}). Files only."
