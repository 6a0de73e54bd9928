"""Real sound files whose headers are wrong, made with ffmpeg from one recording."""

from __future__ import annotations

import functools
import random
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

Patch = Callable[[bytes], bytes]


def encode(source: Path, target: Path, *options: str) -> Path:
    """`source` in the format that `target`'s ending names."""
    target.write_bytes(_encoded(source, target.suffix, options))
    return target


@functools.cache
def _encoded(source: Path, ending: str, options: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{ending}")
        command = ["ffmpeg", "-v", "error", "-i", str(source), *options, str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path.read_bytes()


def piped(source: Path, target: Path, container: str) -> Path:
    """As a program writes it that cannot go back to the header."""
    command = ["ffmpeg", "-v", "error", "-i", str(source), "-f", container, "-"]
    target.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    return target


def with_size(chunk: bytes, layout: str, size: int) -> Patch:
    """States `size` in the header of `chunk`."""

    def patch(data: bytes) -> bytes:
        at = data.index(chunk) + 4
        return data[:at] + struct.pack(layout, size) + data[at + struct.calcsize(layout) :]

    return patch


def with_flac_total(n: int) -> Patch:
    """States `n` samples in a FLAC's STREAMINFO, 36 bits from the lower half of byte 21."""

    def patch(data: bytes) -> bytes:
        return data[:21] + bytes([data[21] & 0xF0 | n >> 32]) + struct.pack(">I", n & 0xFFFFFFFF) + data[26:]

    return patch


def with_xing_frames(n: int) -> Patch:
    """States `n` frames in an MP3's Xing or Info header."""

    def patch(data: bytes) -> bytes:
        at = max(data.find(b"Xing"), data.find(b"Info")) + 8
        return data[:at] + struct.pack(">I", n) + data[at + 4 :]

    return patch


def cut(fraction: float) -> Patch:
    """Only the start, as an interrupted copy leaves it."""
    return lambda data: data[: int(fraction * len(data))]


def twice(data: bytes) -> bytes:
    return data + data


def with_junk(data: bytes) -> bytes:
    """3 kB of noise in the middle."""
    half = len(data) // 2
    return data[:half] + random.Random(0).randbytes(3_000) + data[half:]
