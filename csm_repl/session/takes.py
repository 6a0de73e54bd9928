"""The only namer of output files: a folder per run, a number per line, a file per turn.

    outputs/2025-11-21_142301/001.wav 001.json      a line of one turn
                              002-1.wav 002-2.wav   the turns of a `||` line, each with its .json, and
                              002.wav               all of them joined

A WAV appears last: where there is one, its JSON and codes are there and whole. Nothing is ever overwritten, by
this process or another. A process that is killed can leave a JSON without its WAV, or a temporary file of
`csm_repl.audio`; both are harmless and may be deleted, and the numbers are not used again in that folder.

Knows nothing about what is in the metadata. Imports no torch, so that a folder that cannot be written is
reported before a model is loaded.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csm_repl.errors import LineError, OutputError, UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["LineFiles", "TakeFolder", "codes_bytes", "json_bytes"]

_TAKE = re.compile(r"([0-9]{3,})(?:-([0-9]+))?\.(wav|json|npy)")
# A raw line break never stands inside a JSON string, so this matches printed lists of numbers only.
_NUMBERS = re.compile(r"\[\n\s+(-?\d+(?:,\n\s+-?\d+)*)\n\s*\]")


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """`value` as indented UTF-8 JSON in the mapping's own order, lists of whole numbers on one line.

    What JSON has no word for is written as text: paths, and numbers that are not finite ('inf').
    """
    text = json.dumps(_plain(value), ensure_ascii=False, indent=2)
    text = _NUMBERS.sub(lambda match: f"[{re.sub(r'\s+', ' ', match[1])}]", text)
    # Undecodable input bytes reach us as lone surrogates; escaped they are valid JSON.
    return (text + "\n").encode("utf-8", errors="backslashreplace")


def codes_bytes(codes: torch.Tensor) -> bytes:
    """Whole-number codes [K, T] as the content of a .npy file, int16 where they fit, else int32."""
    import numpy as np

    array = codes.detach().cpu().numpy()
    small = array.size == 0 or bool(np.abs(array).max() <= np.iinfo(np.int16).max)
    buffer = io.BytesIO()
    np.save(buffer, array.astype(np.int16 if small else np.int32), allow_pickle=False)
    return buffer.getvalue()


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
        self._last_number = 0

    @property
    def folder(self) -> Path | None:
        """The run's folder, or None as long as there is no take."""
        return self._folder

    def check_writable(self) -> None:
        """Makes sure that takes can be written, before anybody waits for a model.

        Raises:
            UsageError: the root cannot be made or written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle, probe = tempfile.mkstemp(prefix=".probe-", dir=self.root)
            os.close(handle)
            Path(probe).unlink()
        except OSError as error:
            raise UsageError(
                f"The output folder {self.root} cannot be written: {error.strerror or error}.",
                "Make it writable, or choose another one with --output DIR.",
            ) from error

    def make(self) -> Path:
        """The run's folder, made if need be; no other process has it.

        Raises:
            OutputError: it cannot be made.
        """
        try:
            if self._folder is not None:
                # The user may have removed it meanwhile.
                self._folder.mkdir(parents=True, exist_ok=True)
                return self._folder
            self.root.mkdir(parents=True, exist_ok=True)
            self._folder = _mkdir_exclusive(self.root, self._name)
        except OSError as error:
            raise OutputError(
                f"The folder for this run's takes cannot be made in {self.root}: {error.strerror or error}.",
                "Check the disk and the folder's permissions.",
            ) from error
        return self._folder

    def begin_line(self, n_turns: int) -> LineFiles:
        """Reserves the next number for a line that will speak `n_turns` turns, at least one."""
        if n_turns < 1:
            raise ValueError(f"a line has at least one turn, not {n_turns}")
        return LineFiles(self, self.next_number(), n_turns)

    def next_number(self) -> int:
        """Reserves the smallest number after the last one of which the folder has no file."""
        used = {number for number, _ in self._wavs_and_sidecars()}
        number = self._last_number + 1
        while number in used:
            number += 1
        self._last_number = number
        return number

    def find(self, number: int | None = None) -> Path:
        """The WAV of take `number`, by default of the newest take.

        A `||` line is found joined; one that was stopped before it was joined, by its first turn.

        Raises:
            LineError: there is no such take.
        """
        wavs = self._wavs_and_sidecars(".wav")
        numbers = sorted({found for found, _ in wavs})
        if not numbers:
            raise LineError("There is no take yet.", "Type a line to make one.")
        if number is None:
            number = numbers[-1]
        paths = [path for found, path in sorted(wavs.items()) if found[0] == number]
        if number not in numbers:
            takes = f"take {numbers[0]}" if len(numbers) == 1 else f"takes {numbers[0]} to {numbers[-1]}"
            raise LineError(f"There is no take {number}.", f"This run has {takes}.")
        return paths[0]

    def _wavs_and_sidecars(self) -> None: ...


class LineFiles:
    pass


def _mkdir_exclusive(root: Path, name: str) -> Path:
    suffix = 1
    while True:
        folder = root / (name if suffix == 1 else f"{name}-{suffix}")
        try:
            folder.mkdir()
        except FileExistsError:
            suffix += 1
        else:
            return folder
