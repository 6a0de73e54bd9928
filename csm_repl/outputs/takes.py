"""The only namer of output files: a folder per run, a number per line, a file per turn.

    outputs/2025-11-21_142301/001.wav 001.json      a line of one turn
                              002-1.wav 002-2.wav   the turns of a `||` line, each with its .json, and
                              002.wav               all of them joined
                              track-1-anna.wav      all that one speaker said, time-aligned

A WAV appears last: where there is one, its JSON and codes are there and whole. Nothing is ever overwritten,
by this process or another, and no link is followed below the output folder. A process that is killed can
leave a JSON without its WAV, which is harmless; what it has not finished goes when the next run starts.

A take that cannot be written there is kept among the system's temporary files, if that can be done.

Imports no torch, so that a folder that cannot be written is reported before a model is loaded.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csm_repl.audio import output_error, write_audio, write_bytes_atomic
from csm_repl.errors import OutputError, UsageError
from csm_repl.paths import is_plain_file, remove_leftovers, unfinished_path
from csm_repl.session.numbers import TakeNumber
from csm_repl.session.sidecars import codes_bytes, json_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["LineFiles", "TakeFolder"]

_ENDINGS = {".wav", ".json", ".npy"}
_RUN = re.compile(r"\d{4}-\d\d-\d\d_\d{6}(?:-\d+)?")
_RECENT = 20
"""So many runs' folders are cleared of what is unfinished: every start does it, so it is in one of these."""


class TakeFolder:
    """The folder of one run; it is made when the first take is written.

    Args:
        root: folder that holds the runs' folders.
        now: when the run started, local time; the clock's by default.
    """

    def __init__(self, root: Path, now: datetime | None = None) -> None:
        self.root = root
        self._name = (now or datetime.now()).strftime("%Y-%m-%d_%H%M%S")
        self._folder: Path | None = None
        self._refuge: Path | None = None
        self._last_number = 0

    @property
    def folder(self) -> Path | None:
        """The run's folder, or None as long as there is no take."""
        return self._folder

    def check_writable(self) -> None:
        """Makes sure that takes can be written, before anybody waits for a model.

        Clears away what runs that were killed have left.

        Raises:
            UsageError: the root cannot be made or written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe = unfinished_path(self.root)
            probe.open("xb").close()
            probe.unlink()
        except OSError as error:
            is_other = os.path.lexists(self.root) and not self.root.is_dir()
            reason = "it is no folder" if is_other else error.strerror or error
            raise UsageError(
                f"The output folder {self.root} cannot be written: {reason}.",
                "Make it writable, or choose another one with --output DIR.",
            ) from error
        for folder in (self.root, *self._recent_runs()):
            remove_leftovers(folder)

    def _recent_runs(self) -> list[Path]:
        with suppress(OSError):
            names = [entry.name for entry in os.scandir(self.root) if entry.is_dir(follow_symlinks=False)]
            return [self.root / name for name in sorted(names) if _RUN.fullmatch(name)][-_RECENT:]
        return []

    def make(self) -> Path:
        """The run's folder, made if need be; no other process has it.

        It may have been removed meanwhile: then it is made again. Where something else has taken its place, a
        link even to a folder, the run goes on in another one.

        Raises:
            OutputError: it cannot be made.
        """
        folder = self._folder
        try:
            if folder is not None and folder.is_dir() and not folder.is_symlink():
                return folder
            self.root.mkdir(parents=True, exist_ok=True)
            if folder is None or not _made(folder):
                folder = next(filter(_made, _numbered(self.root, self._name)))
        except OSError as error:
            raise output_error(folder or self.root / self._name, error) from error
        self._folder = folder
        return folder

    def in_refuge(self, write: Callable[[Path], Path]) -> Path | None:
        """What `write` returns for a folder among the system's temporary files; None if it fails there too.

        It is the run's, and only the user may read it.
        """
        try:
            if self._refuge is None or not self._refuge.is_dir():
                self._refuge = Path(tempfile.mkdtemp(prefix="csm-repl-takes-"))
            return write(self._refuge)
        except (OSError, OutputError):
            if self._refuge is not None:
                with suppress(OSError):
                    self._refuge.rmdir()
            return None

    def go_on_after(self, number: int) -> None:
        """Gives no number up to this one any more: a conversation that was loaded has them."""
        self._last_number = max(self._last_number, number)

    def begin_line(self, n_turns: int) -> LineFiles:
        """Reserves the next number for a line that will speak `n_turns` turns, at least one."""
        if n_turns < 1:
            raise ValueError(f"a line has at least one turn, not {n_turns}")
        return LineFiles(self, self.next_number(), n_turns)

    def next_number(self) -> int:
        """Reserves the smallest number after the last one of which the folder has no file."""
        used = {number.line for number, _ in self._files()}
        number = self._last_number + 1
        while number in used:
            number += 1
        self._last_number = number
        return number

    def lines(self) -> list[int]:
        """Numbers of the run's lines that have sound, in order."""
        return sorted({number.line for number, _ in self._sound()})

    def find(self, number: TakeNumber) -> list[Path]:
        """The WAVs of a line or of one of its turns, as they are to be heard; empty: there are none.

        A `||` line is found joined; one that was stopped before it was joined, turn by turn.
        """
        wavs = dict(self._sound())
        of_line = sorted(found for found in wavs if found.line == number.line)
        if number in wavs:
            return [wavs[number]]
        # The only turn of a line has no file of its own, and no number either.
        alone = number.turn == 1 and of_line == [TakeNumber(number.line)]
        return [wavs[found] for found in of_line] if number.turn == 0 or alone else []

    def track_path(self, speaker: int, voice: str = "") -> Path:
        """A free name for the track of a speaker, with the name of the voice if it has one."""
        name = f"track-{speaker}" + ("-" + re.sub(r"[^\w.-]+", "_", voice) if voice else "")
        folder = self.make()
        return next(path for path in _numbered(folder, name, ".wav") if not os.path.lexists(path))

    def _sound(self) -> list[tuple[TakeNumber, Path]]:
        """Every WAV; what somebody else has put under such a name is none."""
        return [each for each in self._files() if each[1].suffix == ".wav" and is_plain_file(each[1])]

    def _files(self) -> list[tuple[TakeNumber, Path]]:
        """Whatever has the name of a file of a take."""
        if self._folder is None:
            return []
        files = []
        # The user may have removed the folder meanwhile, or put something else in its place.
        with suppress(OSError):
            for path in self._folder.iterdir():
                number = TakeNumber.of_stem(path.stem)
                if number is not None and path.suffix in _ENDINGS:
                    files.append((number, path))
        return files


class LineFiles:
    """The files of one line. Made by `TakeFolder.begin_line`.

    Should a name be taken when it is written, by another process or by hand, this file and the line's next
    ones go on under the next free number: the paths that come back are the truth.
    """

    def __init__(self, takes: TakeFolder, number: int, n_turns: int) -> None:
        self._takes = takes
        self._number = number
        self._n_turns = n_turns

    @property
    def number(self) -> int:
        """The take's number, from 1."""
        return self._number

    @property
    def joined_path(self) -> Path:
        """Where the whole line goes; for a line of one turn, where that turn goes."""
        return self._takes.make() / f"{self._name(0).stem}.wav"

    def turn_path(self, position: int) -> Path:
        """Where the turn at `position` in the line goes, from 1; moot in a line of one turn."""
        return self._takes.make() / f"{self._name(position).stem}.wav"

    def save_turn(
        self,
        samples: torch.Tensor,
        rate: int,
        meta: Mapping[str, Any],
        codes: torch.Tensor | None = None,
        *,
        position: int,
    ) -> Path:
        """Writes a turn's WAV, its JSON, and its codes if there are any.

        Args:
            samples: float32 [N].
            rate: samples per second.
            meta: goes into the JSON in its own order, after the name of the file.
            codes: whole numbers [K, T].
            position: place in the line, from 1.

        Returns:
            The path of the WAV.

        Raises:
            ValueError: the position is below 1.
            OutputError: it could not be written; nothing of it is left behind, or the error says where it is.
        """
        if position < 1:
            raise ValueError(f"positions count from 1, not {position}")
        return self._save(position, samples, rate, meta, codes)

    def save_joined(self, samples: torch.Tensor, rate: int, meta: Mapping[str, Any]) -> Path:
        """Writes the whole line of a `||` line: samples float32 [N], as `save_turn`.

        Raises:
            ValueError: the line has one turn only, whose file is the whole line.
            OutputError: as `save_turn`.
        """
        if self._n_turns == 1:
            raise ValueError("a line of one turn is not joined")
        return self._save(0, samples, rate, meta, None)

    def _name(self, position: int) -> TakeNumber:
        return TakeNumber(self._number, 0 if self._n_turns == 1 else position)

    def _save(
        self,
        position: int,
        samples: torch.Tensor,
        rate: int,
        meta: Mapping[str, Any],
        codes: torch.Tensor | None,
    ) -> Path:
        def write(folder: Path) -> Path:
            path = folder / f"{self._name(position).stem}.wav"
            name = {"file": path.name, "number": str(self._name(position))}
            sidecars = {".json": json_bytes({**name, **meta, **name})}
            if codes is not None:
                sidecars[".npy"] = codes_bytes(codes)
            _write_take(path, samples, rate, sidecars)
            return path

        while True:
            try:
                return write(self._takes.make())
            except FileExistsError:
                self._number = self._takes.next_number()
            except OutputError as error:
                kept = self._takes.in_refuge(write)
                if kept is None:
                    raise
                raise OutputError(error.cause, f"{error.remedy} The take is kept: {kept}.") from error


def _write_take(path: Path, samples: torch.Tensor, rate: int, sidecars: Mapping[str, bytes]) -> None:
    """Sidecars first, so that a WAV that is there is complete; FileExistsError if a name is taken."""
    written: list[Path] = []
    try:
        for ending, data in sidecars.items():
            sidecar = path.with_suffix(ending)
            write_bytes_atomic(sidecar, data)
            written.append(sidecar)
        write_audio(path, samples, rate)
    except Exception:
        for sidecar in written:
            with suppress(OSError):
                sidecar.unlink()
        raise


def _made(folder: Path) -> bool:
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _numbered(folder: Path, name: str, ending: str = "") -> Iterator[Path]:
    yield folder / f"{name}{ending}"
    for number in count(2):
        yield folder / f"{name}-{number}{ending}"
