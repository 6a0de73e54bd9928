"""What was worked out from a clip's content once, kept on disk: its codes, and what Whisper heard in it.

A damaged entry counts as missing, and failing to write one is never an error.

    codes/<key>.npz         codes and length; key: clip's bytes, how it was prepared, codec
    transcripts/<key>.txt   words; key: clip's bytes, how it was prepared, Whisper model
    notes/<key>.json        which words Whisper wrote for which content; key: path of the transcript
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from csm_repl.audio import write_bytes_atomic
from csm_repl.errors import OutputError

if TYPE_CHECKING:
    import torch

_CHUNK = 1 << 20


def content_digest(path: Path) -> str:
    """SHA-256 of the file's bytes, in hex. OSError where it cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


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
        self._notes: dict[Path, tuple[str, str]] = {}

    def codes(self, digest: str) -> tuple[torch.Tensor, float] | None:
        """int64 codes `[K, T]` and the prepared clip's seconds, for the clip with this content digest."""
        data = self._read(self._codes_path(digest))
        if data is None:
            return None
        import numpy as np
        import torch

        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as entry:
                codes, seconds = entry["codes"], float(entry["seconds"])
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
            return None
        if codes.ndim != 2 or codes.size == 0 or codes.dtype.kind != "i" or codes.min() < 0:
            return None
        return torch.from_numpy(codes.astype(np.int64)), seconds

    def store_codes(self, digest: str, codes: torch.Tensor, seconds: float) -> None:
        """Keep int64 codes `[K, T]` of the clip with this content digest."""
        import numpy as np

        array = codes.cpu().numpy()
        small = np.int16 if array.max() <= np.iinfo(np.int16).max else np.int32
        buffer = io.BytesIO()
        # A zip, because it has a checksum: a flipped bit in a bare array would be heard and not noticed.
        np.savez(buffer, codes=array.astype(small), seconds=np.float64(seconds))
        self._write(self._codes_path(digest), buffer.getvalue())

    def transcript(self, digest: str, model: str) -> str | None:
        """What Whisper's `model` heard in the clip with this content digest."""
        data = self._read(self._transcript_path(digest, model))
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("utf-8") if data else None
        return None

    def store_transcript(self, digest: str, model: str, text: str) -> None:
        self._write(self._transcript_path(digest, model), text.encode("utf-8"))

    def note(self, txt: Path) -> tuple[str, str] | None:
        """Content digest of the clip and words that Whisper last wrote to the transcript `txt`."""
        if txt in self._notes:
            return self._notes[txt]
        data = self._read(self._note_path(txt))
        try:
            entry = json.loads(data) if data else None
            return (str(entry["clip"]), str(entry["text"])) if entry else None
        except (ValueError, KeyError, TypeError):
            return None

    def store_note(self, txt: Path, digest: str, text: str) -> None:
        self._notes[txt] = digest, text
        self._write(self._note_path(txt), json.dumps({"clip": digest, "text": text}).encode())

    def _codes_path(self, digest: str) -> Path:
        return Path("codes", _key(digest, self._preparation, self._codec_id) + ".npz")

    def _transcript_path(self, digest: str, model: str) -> Path:
        return Path("transcripts", _key(digest, self._preparation, model) + ".txt")

    def _note_path(self, txt: Path) -> Path:
        return Path("notes", _key(str(txt.absolute())) + ".json")

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
