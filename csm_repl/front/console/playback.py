"""Sound while it is made: one player, opened when the first sound is due."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from csm_repl.audio import read_audio, resample, to_mono
from csm_repl.events import Audio, Notice
from csm_repl.settings import Settings

if TYPE_CHECKING:
    from csm_repl.audio.player import Player

__all__ = ["Playback"]


class Playback:
    """Plays if the settings of the moment want it and there is something to play on.

    Args:
        rate: samples per second.
        settings: gives the settings of the moment.
        say: shows a notice.
    """

    def __init__(self, rate: int, settings: Callable[[], Settings], say: Callable[[Notice], None]) -> None:
        self._rate = rate
        self._settings = settings
        self._say = say
        self._player: Player | None = None
        self._problem = ""
        self._failed_with: bool | None = None

    @property
    def wanted(self) -> bool:
        return self._settings().play is not False

    def prepare(self) -> None:
        """Opens the player before a take begins, so that the first sound need not wait for it."""
        # Whoever sets `play` again may have plugged something in.
        if self._problem and self._settings().play == self._failed_with:
            return
        if self.wanted and self._open():
            self._say(Notice(self._problem, "warning"))

    def add(self, event: Audio) -> None:
        if self._player is None:
            return
        if not self.wanted:
            self._player.stop()
            return
        self._player.play(event.samples)
        if self._player.gone:
            farewell = self._player.farewell
            self.close()
            self._say(Notice(farewell, "warning"))

    def file(self, path: Path) -> None:
        """Plays a file after what is playing already.

        Raises:
            CsmReplError: it cannot be read.
        """
        if not self.wanted:
            self._say(Notice(f"{path} cannot be played: playback is off. $SET play on$ turns it on."))
            return
        if self._open():
            self._say(Notice(f"{path} cannot be played. {self._problem}", "warning"))
            return
        samples, rate = read_audio(path)
        assert self._player is not None
        self._player.play(resample(to_mono(samples), rate, self._rate))
        self._player.end()
        self._say(Notice(f"Playing {path.name}, {samples.shape[-1] / rate:.1f} s."))

    def end(self) -> None:
        """Nothing more comes for now."""
        if self._player is not None:
            self._player.end()

    def stop(self) -> None:
        """Silence, at once."""
        if self._player is not None:
            self._player.stop()

    def wait(self) -> None:
        """Returns when everything has been heard; Ctrl-C gets through."""
        if self._player is not None:
            self._player.wait()

    def close(self) -> None:
        if self._player is not None:
            self._player.close()
            self._player = None

    def _open(self) -> str:
        """Why there is no player; empty if there is one."""
        if self._player is None:
            from csm_repl.audio.player import open_player

            self._player, self._problem = open_player(self._rate)
            self._failed_with = self._settings().play
            if self._player is not None:
                self._say(Notice(f"Playing through {self._player.name}.", "detail"))
        return self._problem
