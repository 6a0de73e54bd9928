"""What a sound file holds, whatever its header says.

Decoders stop where the header's length is reached, and headers are wrong: streams have none (0, 0xFFFFFFFF),
recorders that were killed never wrote one, and an MP3 without a Xing frame is guessed from its first frame.
`true_view` shows a decoder the same file without the claim, so that it reads to the real end.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Literal

__all__ = ["FileView", "Kind", "kind_of", "stated_seconds", "true_view"]

Kind = Literal["pcm", "flac", "mp3", "ogg", "other"]
"""'pcm': WAV, AIFF, CAF and others whose length is that of their data; 'other': for ffmpeg."""

_ENDLESS = 1 << 40
_HEAD = 4096
_MAX_CHUNKS = 10_000
_UNCLAIMED = 4096
"""Bytes after the sound that are no chunk and are not taken for sound either: what an editor left behind."""
_NO_SIZE = 0x7FFF0000
"""Bytes of sound from which a 32-bit size is what programs write that do not know it yet."""
_LONGEST_S = 6 * 3600.0
"""A header that says more is wrong."""


class FileView(io.RawIOBase):
    """A file as a decoder is to see it.

    Args:
        file: open for reading.
        size: bytes to show, from the start.
        patches: bytes to show in place of those in the file, by their offset.
        endless: pretend to be a terabyte; there are zeros behind the end for whoever seeks there, but who
            reads on meets the end of the file.
    """

    def __init__(
        self, file: IO[bytes], size: int, patches: Mapping[int, bytes] | None = None, *, endless: bool = False
    ) -> None:
        super().__init__()
        self._file = file
        self._size = size
        self._patches = dict(patches or {})
        self._end = _ENDLESS if endless else size
        self._at = 0
        self._furthest = 0
        self.error: OSError | None = None
        """What the system said when the file was read; a decoder sees the end of the file instead."""

    @property
    def was_read(self) -> bool:
        """Whether a decoder has got to the end."""
        return self._furthest >= self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if self._size < self._at < self._end:
            n = min(len(target), self._end - self._at)
            target[:n] = bytes(n)
            self._at += n
            return n
        # Whoever calls is C code, which an exception would not get through.
        try:
            self._file.seek(self._at)
            data = self._file.read(max(0, min(len(target), self._size - self._at)))
        except OSError as error:
            self.error = error
            return 0
        target[: len(data)] = data
        for offset, patch in self._patches.items():
            for i, byte in enumerate(patch, offset - self._at):
                if 0 <= i < len(data):
                    target[i] = byte
        self._at += len(data)
        self._furthest = max(self._furthest, self._at)
        return len(data)


def kind_of(head: bytes) -> Kind | None:
    """What a file that begins with `head` (12 bytes or more) is read as; None: nothing that sounds."""
    if head[:4] in (b"RIFF", b"RF64", b"RIFX", b"FORM"):
        # What calls itself so and holds something else, or nothing, is not worth asking ffmpeg for.
        return "pcm" if head[8:12] in (b"WAVE", b"AIFF", b"AIFC", b"8SVX") else None
    if head[:4] in (b"caff", b".snd", b"riff", b"NIST"):
        return "pcm"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"OggS":
        return "ogg"
    if head[:3] == b"ID3":
        return "mp3"
    # MP4 and its relatives, Matroska and WebM, Windows Media, AMR.
    if (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide")
        or head[:4] in (b"\x1aE\xdf\xa3", b"0&\xb2u")
        or head[:5] == b"#!AMR"
    ):
        return "other"
    if head[:1] == b"\xff" and len(head) > 1 and head[1] & 0xE0 == 0xE0:
        # The two bits are the layer, which is 0 in AAC.
        return "mp3" if head[1] & 0x06 else "other"
    return None


def true_view(file: IO[bytes], kind: Kind) -> FileView | None:
    """`file` without what its header claims; None where the decoder cannot be made to read all of it."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEAD)
    if kind == "pcm":
        return FileView(file, size, _true_size(file, head, size))
    if kind == "flac":
        return FileView(file, size, _without_total(head))
    if kind == "mp3":
        return _mp3_view(file, size)
    if kind == "ogg" and not _is_chained(file):
        return FileView(file, size)
    return None


def stated_seconds(file: IO[bytes], kind: Kind, there_s: float) -> float:
    """How long the sound is by its header, where that is more than there is; else `there_s`.

    Headers that cannot be right say nothing, and neither do Ogg and what ffmpeg reads.

    Args:
        file: open for reading.
        kind: as `kind_of` says.
        there_s: length of the sound in the file.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_HEAD)
    stated_s = 0.0
    if kind == "pcm":
        stated_s = there_s * _stated_share(file, head, size)
    elif kind == "flac" and len(head) > 26:
        # 20 bits of sample rate, 8 of channels and width, 36 of samples (RFC 9639, 8.2).
        fields = int.from_bytes(head[18:26], "big")
        stated_s = (fields & (1 << 36) - 1) / max(1, fields >> 44)
    elif kind == "mp3":
        stated_s = _stated_mp3_seconds(file)
    return stated_s if there_s < stated_s <= _LONGEST_S else there_s


# --- chunks: WAV, AIFF, CAF ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    first: int
    """Offset of the first chunk."""
    size: str
    """How a chunk's size is packed, after its four letters."""
    sound: bytes
    """Letters of the chunk with the sound."""
    even: bool
    """Whether chunks of odd size are padded."""


_LAYOUTS = {
    b"RIFF": _Layout(12, "<I", b"data", True),
    b"RF64": _Layout(12, "<I", b"data", True),
    b"RIFX": _Layout(12, ">I", b"data", True),
    b"FORM": _Layout(12, ">I", b"SSND", True),
    b"caff": _Layout(8, ">q", b"data", False),
}


def _true_size(file: IO[bytes], head: bytes, size: int) -> dict[int, bytes]:
    """The patch that makes the header state how much sound there is; none where it does."""
    layout = _LAYOUTS.get(head[:4])
    if head[:4] == b".snd" and len(head) >= 24:
        (start,) = struct.unpack(">I", head[4:8])
        return {8: struct.pack(">I", max(0, min(size - start, 0xFFFFFFFE)))}
    if layout is None or (sound := _sound_chunk(file, head, layout)) is None:
        return {}
    at, stated, wide = sound
    start = at + 4 + struct.calcsize(layout.size)
    there = size - start
    if wide is not None and stated == 0xFFFFFFFF:
        file.seek(wide)
        (stated,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        return {} if _is_believable(file, start + stated, size, layout) else {wide: struct.pack("<Q", there)}
    if 0 <= stated <= there and _is_believable(file, start + stated, size, layout):
        return {}
    room = 0xFFFFFFFE if layout.size[-1] == "I" else there
    return {at + 4: struct.pack(layout.size, min(there, room))}


def _stated_share(file: IO[bytes], head: bytes, size: int) -> float:
    """The stated size of the sound as a multiple of what there is; 0 where it says nothing."""
    layout = _LAYOUTS.get(head[:4])
    if layout is None or (sound := _sound_chunk(file, head, layout)) is None:
        return 0.0
    at, stated, _ = sound
    there = size - at - 4 - struct.calcsize(layout.size)
    return stated / there if there > 0 and stated < _NO_SIZE else 0.0


def _sound_chunk(file: IO[bytes], head: bytes, layout: _Layout) -> tuple[int, int, int | None] | None:
    """Where the chunk with the sound is, its stated size, and where an RF64 has the real one; None: none."""
    header = 4 + struct.calcsize(layout.size)
    at, wide = layout.first, None
    for _ in range(_MAX_CHUNKS):
        found = _chunk(file, at, layout)
        if found is None:
            return None
        name, stated = found
        if head[:4] == b"RF64" and name == b"ds64":
            wide = at + header + 8
        if name == layout.sound:
            return at, stated, wide
        at += header + stated + (stated % 2 if layout.even else 0)
    return None


def _chunk(file: IO[bytes], at: int, layout: _Layout) -> tuple[bytes, int] | None:
    """Letters and stated size of the chunk at `at`; None where there is none."""
    file.seek(at)
    data = file.read(4 + struct.calcsize(layout.size))
    if len(data) < 4 + struct.calcsize(layout.size) or not all(32 <= byte < 127 for byte in data[:4]):
        return None
    (stated,) = struct.unpack(layout.size, data[4:])
    return data[:4], stated


def _is_believable(file: IO[bytes], end: int, size: int, layout: _Layout) -> bool:
    """Whether the sound may end at `end`: nothing more comes, or further chunks."""
    at = end + (end % 2 if layout.even else 0)
    for _ in range(_MAX_CHUNKS):
        if size - at <= _UNCLAIMED:
            return at <= size + 1
        found = _chunk(file, at, layout)
        if found is None or found[1] < 0:
            return False
        at += 4 + struct.calcsize(layout.size) + found[1]
        at += at % 2 if layout.even else 0
    return False


# --- FLAC ---------------------------------------------------------------------------------------------


def _without_total(head: bytes) -> dict[int, bytes]:
    """The patch that makes the number of samples unknown."""
    # STREAMINFO comes first: 4 bytes of mark, 4 of block header, then 18 to the byte that ends in the upper
    # 4 of the number's 36 bits (RFC 9639, 8.2).
    return {21: bytes([head[21] & 0xF0, 0, 0, 0, 0])} if len(head) > 26 else {}


# --- Ogg ----------------------------------------------------------------------------------------------


def _is_chained(file: IO[bytes]) -> bool:
    """Whether one stream follows another; libsndfile reads the first one."""
    at, in_sound = 0, False
    while True:
        file.seek(at)
        page = file.read(27)
        if len(page) < 27 or page[:4] != b"OggS":
            return False
        is_first = bool(page[5] & 2)
        if is_first and in_sound:
            return True
        in_sound = in_sound or not is_first
        at += 27 + page[26] + sum(file.read(page[26]))


# --- MP3 ----------------------------------------------------------------------------------------------

_BITRATES = {
    True: (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s of layer III by index from 1, of MPEG 1 and of MPEG 2 (ISO 11172-3 and 13818-3)."""
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_SAME = 0xFFFE0C00
"""Of a frame's header, what all frames of a stream share: sync, version, layer, sample rate."""


def _frame_bytes(header: int) -> int | None:
    """Length of the layer III frame with this header; None where it is none."""
    version, layer = header >> 19 & 3, header >> 17 & 3
    bitrate, rate = header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer != 1 or bitrate in (0, 15) or rate == 3:
        return None
    slots = 144_000 if version == 3 else 72_000
    return slots * _BITRATES[version == 3][bitrate - 1] // _RATES[version][rate] + (header >> 9 & 1)


def _mp3_view(file: IO[bytes], size: int) -> FileView | None:
    """The whole frames of an MP3; None where something else lies between them."""
    start = _after_id3(file)
    at, n, first = start, 0, 0
    file.seek(at)
    while at + 4 <= size:
        (header,) = struct.unpack(">I", file.read(4))
        length = _frame_bytes(header)
        if length is None or (n and header & _SAME != first & _SAME):
            if not n or not _is_tail(header, size - at):
                return None
            break
        if at + length > size:
            break
        first = first or header
        at, n = at + length, n + 1
        file.seek(at)
    if not n:
        return None
    mark, is_true = _stated_frames(file, start, first, n, at - start)
    # An honest count is worth keeping: the decoder cuts the encoder's padding by it.
    return FileView(file, at) if is_true else FileView(file, at, mark, endless=True)


def _stated_mp3_seconds(file: IO[bytes]) -> float:
    """By the count of frames in the first one; 0 where there is none."""
    start = _after_id3(file)
    file.seek(start)
    data = file.read(4)
    header = int.from_bytes(data, "big")
    if len(data) < 4 or _frame_bytes(header) is None:
        return 0.0
    file.seek(start + 4 + _side_bytes(header))
    mark, flags, n_frames = struct.unpack(">4sII", file.read(12).ljust(12, b"\0"))
    if mark not in (b"Xing", b"Info") or not flags & 1:
        return 0.0
    version = header >> 19 & 3
    return float(n_frames * (1152 if version == 3 else 576) / _RATES[version][header >> 10 & 3])


def _side_bytes(header: int) -> int:
    """What lies between a frame's header and a count of frames."""
    is_mono, is_mpeg1 = header >> 6 & 3 == 3, header >> 19 & 3 == 3
    return (17 if is_mono else 32) if is_mpeg1 else (9 if is_mono else 17)


def _after_id3(file: IO[bytes]) -> int:
    at = 0
    while True:
        file.seek(at)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10:
            return at
        at += 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]) + (10 if head[5] & 0x10 else 0)


def _is_tail(header: int, n_left: int) -> bool:
    """Whether what lies behind the last frame is a tag, or nothing worth mentioning."""
    return header.to_bytes(4, "big") in (b"APET", b"LYRI") or header >> 8 == 0x544147 or n_left <= 1024


def _stated_frames(
    file: IO[bytes], start: int, first: int, n_frames: int, n_bytes: int
) -> tuple[dict[int, bytes], bool]:
    """The patch that hides the count of frames in the first one, and whether that count is true."""
    side = _side_bytes(first)
    file.seek(start + 4 + side)
    data = file.read(16)
    if data[:4] in (b"Xing", b"Info") and len(data) == 16:
        flags, stated, stated_bytes = struct.unpack(">III", data[4:])
        # The frame with the count does not count itself; some encoders count it.
        is_true = (
            flags & 3 == 3 and n_frames - stated in (0, 1) and abs(stated_bytes - n_bytes) < n_bytes / 100
        )
        return {start + 4 + side: bytes(4)}, is_true
    file.seek(start + 36)
    return ({start + 36: bytes(4)} if file.read(4) == b"VBRI" else {}), False
