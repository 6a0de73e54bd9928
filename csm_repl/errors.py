"""The errors that a user can meet, each with its cause, its remedy and its exit code.

    CsmReplError
    ├── UsageError          2  a flag, setting or output path that cannot be used
    ├── LineError           1  one line cannot be spoken; the next ones can
    ├── ClipError           -  a reference clip cannot be used; listed, never fatal
    ├── OutputError         1  a file could not be written (disk full, stdout closed, ...)
    ├── ModelError          3  the model is not available
    │   ├── HubError           gated, not logged in, offline, not found
    │   └── CheckpointError    corrupt file, missing tensor, wrong shape, unknown config
    ├── TrainingError       1  a training run cannot go on; its last good checkpoint is kept
    └── DeviceError         4  the device is missing
        └── OutOfMemoryError   ... or too small

This module imports nothing but the standard library.
"""

from __future__ import annotations

import re
from enum import IntEnum

__all__ = [
    "CheckpointError",
    "ClipError",
    "CsmReplError",
    "DeviceError",
    "ExitCode",
    "HubError",
    "LineError",
    "ModelError",
    "OutOfMemoryError",
    "OutputError",
    "TrainingError",
    "UsageError",
    "in_words",
]

# As Python, Windows and Rust number what the system says.
_NUMBERS = re.compile(r"\[(?:Errno|WinError) -?\d+\]\s*|\s*\(os error \d+\)")


class ExitCode(IntEnum):
    """Exit codes of the program; scripts rely on them."""

    OK = 0
    SOME_LINES_FAILED = 1
    USAGE = 2
    MODEL_UNAVAILABLE = 3
    DEVICE = 4
    HUNG_UP = 129
    INTERRUPTED = 130
    TERMINATED = 143


def in_words(text: str) -> str:
    """The text of an error without the system's numbers: `[Errno 28] No space left` -> `No space left`."""
    return _NUMBERS.sub("", text)


class CsmReplError(Exception):
    """Base of everything this package raises on purpose.

    Args:
        cause: what is wrong, as a whole sentence.
        remedy: what the user can do about it, as a whole sentence.
    """

    exit_code = ExitCode.SOME_LINES_FAILED

    def __init__(self, cause: str, remedy: str = "") -> None:
        cause = in_words(cause)
        super().__init__(f"{cause} {remedy}".strip())
        self.cause = cause
        self.remedy = remedy


class UsageError(CsmReplError):
    exit_code = ExitCode.USAGE


class LineError(CsmReplError):
    exit_code = ExitCode.SOME_LINES_FAILED


class ClipError(CsmReplError):
    exit_code = ExitCode.SOME_LINES_FAILED


class OutputError(CsmReplError):
    exit_code = ExitCode.SOME_LINES_FAILED


class ModelError(CsmReplError):
    exit_code = ExitCode.MODEL_UNAVAILABLE


class HubError(ModelError):
    pass


class CheckpointError(ModelError):
    pass


class TrainingError(CsmReplError):
    exit_code = ExitCode.SOME_LINES_FAILED


class DeviceError(CsmReplError):
    exit_code = ExitCode.DEVICE


class OutOfMemoryError(DeviceError):
    pass
