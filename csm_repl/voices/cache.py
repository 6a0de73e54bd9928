"""What was worked out from a clip's content once, kept on disk: its codes, and what Whisper heard in it.

A damaged entry counts as missing, and failing to write one is never an error.

    codes/<key>.npz    codes and lengths; key: clip's bytes, how it was prepared, codec
    words/<key>.json   what Whisper heard; key: clip's bytes, how it was prepared, Whisper model
    notes/<key>.json   which words Whisper wrote for which content; key: path of the transcript

The JSON files begin with a line of their own checksum.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from csm_repl.audio import write_bytes_atomic
from csm_repl.errors import OutputError
from csm_repl.paths import remove_leftovers

if TYPE_CHECKING:
    import torch

_CHUNK = 1 << 20
_T = TypeVar("_T")


def content_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex. OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class CachedCodes:
    """What the codec made of a clip."""

    codes: torch.Tensor
    """int64 `[K, T]`."""
    seconds: float
    """Length as prepared."""
    recorded_s: float
    """Length as recorded."""


@dataclass(frozen=True)
class CachedWords:
    """What Whisper heard in a clip."""

    text: str
    doubt: str = ""
    """Why the text is not used, a whole sentence; '' where it is."""
    remedy: str = ""


@dataclass(frozen=True)
class WhisperNote:
    """What Whisper wrote to a transcript."""

    clip: str
    """Content digest of the clip that it heard."""
    text: str
    is_start: bool = False
    """It heard only the start of a recording that is too long."""


class ClipCache:
    """The entries under `root`. With None all look-ups miss, but notes live as long as the object.

    Args:
        root: folder; made when first written to.
        preparation: fingerprint of how clips are prepared.
        codec_id: which codec, with which weights and how many codebooks, makes the codes.
    """

    def __init__(self, root: Path | None, *, preparation: str, codec_id: str) -> None:
        self._root = root
        self._preparation = preparation
        self._codec_id = codec_id
        self._notes: dict[Path, WhisperNote] = {}
        if root is not None:
            for folder in ("codes", "words", "notes"):
                remove_leftovers(root / folder)

    def codes(self, digest: str, *, is_start: bool = False) -> CachedCodes | None:
        """Of the clip with this content digest, or of the start that is used of it."""
        data = self._read(self._codes_path(digest, is_start))
        if data is None:
            return None
        import numpy as np
        import torch

        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as entry:
                codes = entry["codes"]
                seconds, recorded_s = float(entry["seconds"]), float(entry["recorded_s"])
        except Exception:  # whatever zip and numpy run into in a damaged file
            return None
        if codes.ndim != 2 or codes.size == 0 or codes.dtype.kind != "i" or codes.min() < 0:
            return None
        return CachedCodes(torch.from_numpy(codes.astype(np.int64)), seconds, recorded_s)

    def store_codes(self, digest: str, entry: CachedCodes, *, is_start: bool = False) -> None:
        import numpy as np

        array = entry.codes.cpu().numpy()
        small = np.int16 if array.max() <= np.iinfo(np.int16).max else np.int32
        lengths = {"seconds": np.float64(entry.seconds), "recorded_s": np.float64(entry.recorded_s)}
        buffer = io.BytesIO()
        # A zip, because it has a checksum: a flipped bit in a bare array would be heard and not noticed.
        np.savez(buffer, codes=array.astype(small), **lengths)  # type: ignore[arg-type]
        self._write(self._codes_path(digest, is_start), buffer.getvalue())

    def words(self, digest: str, model: str) -> CachedWords | None:
        """What Whisper's `model` heard in the clip with this content digest."""
        return self._read_json(self._words_path(digest, model), CachedWords)

    def store_words(self, digest: str, model: str, words: CachedWords) -> None:
        self._write_json(self._words_path(digest, model), asdict(words))

    def note(self, txt: Path) -> WhisperNote | None:
        """What Whisper last wrote to the transcript `txt`."""
        if txt in self._notes:
            return self._notes[txt]
        return self._read_json(self._note_path(txt), WhisperNote)

    def store_note(self, txt: Path, note: WhisperNote) -> None:
        self._notes[txt] = note
        self._write_json(self._note_path(txt), asdict(note))

    def _codes_path(self, digest: str, is_start: bool) -> Path:
        start = ("start",) if is_start else ()
        return Path("codes", _key(digest, self._preparation, self._codec_id, *start) + ".npz")

    def _words_path(self, digest: str, model: str) -> Path:
        return Path("words", _key(digest, self._preparation, model) + ".json")

    def _note_path(self, txt: Path) -> Path:
        return Path("notes", _key(str(txt.absolute())) + ".json")

    def _read_json(self, entry: Path, kind: type[_T]) -> _T | None:
        data = self._read(entry)
        if data is None:
            return None
        checksum, _, text = data.partition(b"\n")
        if checksum != hashlib.sha256(text).hexdigest().encode():
            return None
        try:
            return kind(**json.loads(text))
        except TypeError:  # another version's
            return None

    def _write_json(self, entry: Path, value: dict[str, Any]) -> None:
        text = json.dumps(value).encode()
        self._write(entry, hashlib.sha256(text).hexdigest().encode() + b"\n" + text)

    def _read(self, entry: Path) -> bytes | None:
        if self._root is None:
            return None
        try:
            return (self._root / entry).read_bytes()
        except OSError:
            return None

    def _write(self, entry: Path, data: bytes) -> None:
        if self._root is None:
            return
        path = self._root / entry
        with contextlib.suppress(OSError, OutputError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, data, replace=True)


def _key(*parts: str) -> str:
    # As JSON, so that no two lists of parts run together into the same text.
    return hashlib.sha256(json.dumps(parts).encode("utf-8", "surrogatepass")).hexdigest()
