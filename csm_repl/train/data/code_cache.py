"""The codes of training clips on disk, so that a data set is encoded once.

Shards of some hundred clips and not a file a clip: 20,000 clips are read in a fraction of a second and take
no 20,000 inodes. A shard is written once, whole, and never changed, so reading stopped in the middle goes
on where it was; several processes may fill one folder. A damaged shard counts as missing, and failing to
write one is never an error.

    <root>/<codec and preparation>/<random>.npz    keys [n, 32], n_frames [n], codes int16 [sum of K * T],
                                                   stamps [m, 32], stamp_keys [m, 32]

A key is the SHA-256 of a clip's content. A stamp (path, size, times) leads to its key, so that unchanged
files are not read again to find it.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from csm_repl.audio import output_error, write_bytes_atomic
from csm_repl.errors import OutputError
from csm_repl.paths import remove_leftovers

__all__ = ["SHARD_CLIPS", "CodeCache"]

SHARD_CLIPS = 512
"""About 25 minutes of short utterances and 1.5 MB; what is lost by a kill is at most this."""

_MAX_CODE = torch.iinfo(torch.int16).max


@dataclass
class _Shard:
    path: Path
    n_frames: Any
    """int [n]."""
    starts: Any
    """Where each clip's codes start, int [n]."""
    codes: torch.Tensor | None = None
    """int16 [sum of K * T], once needed."""


class CodeCache:
    """Codes by content.

    Args:
        root: folder, made when first written to; None keeps nothing on disk.
        preparation: fingerprint of how sounds are prepared.
        codec_id: which codec makes the codes.
        n_codebooks: K.
    """

    def __init__(self, root: Path | None, *, preparation: str, codec_id: str, n_codebooks: int) -> None:
        name = hashlib.sha256(json.dumps([1, preparation, codec_id]).encode()).hexdigest()[:24]
        self.problem: OutputError | None = None
        """Why the last shard could not be written."""
        self._folder = None if root is None else root / name
        self._n_codebooks = n_codebooks
        self._where: dict[bytes, tuple[_Shard, int]] = {}
        self._keys: dict[bytes, bytes] = {}
        self._new: dict[bytes, torch.Tensor] = {}
        self._new_stamps: dict[bytes, bytes] = {}
        if self._folder is not None:
            remove_leftovers(self._folder)
        for path in sorted(self._folder.glob("*.npz")) if self._folder is not None else ():
            self._open(path)

    def __contains__(self, digest: str) -> bool:
        key = bytes.fromhex(digest)
        return key in self._where or key in self._new

    def digest_of(self, stamp: str | None) -> str | None:
        """Content digest of what had this stamp."""
        key = None if stamp is None else self._keys.get(_hash(stamp))
        return None if key is None else key.hex()

    def get(self, digest: str) -> torch.Tensor | None:
        """int16 [K, T], or None where it has to be encoded."""
        key = bytes.fromhex(digest)
        if key in self._new:
            return self._new[key]
        shard, index = self._where.get(key, (None, 0))
        if shard is None:
            return None
        codes = self._codes(shard)
        if codes is None:
            self._where = {key: place for key, place in self._where.items() if place[0] is not shard}
            # Its index would hide what is made again from the next run.
            with contextlib.suppress(OSError):
                shard.path.unlink()
            return None
        start, n_frames = int(shard.starts[index]), int(shard.n_frames[index])
        end = start + self._n_codebooks * n_frames
        return codes[start:end].view(self._n_codebooks, n_frames)

    def put(self, digest: str, codes: torch.Tensor) -> torch.Tensor:
        """Keeps codes [K, T]; returns them as int16. They are on disk after the next `flush`."""
        if codes.shape[0] != self._n_codebooks or int(codes.max()) > _MAX_CODE or int(codes.min()) < 0:
            raise ValueError(f"codes {list(codes.shape)} up to {int(codes.max())} cannot be kept")
        small = codes.to("cpu", torch.int16).contiguous()
        self._new[bytes.fromhex(digest)] = small
        if len(self._new) >= SHARD_CLIPS:
            self.flush()
        return small

    def remember(self, stamp: str | None, digest: str) -> None:
        """What has this stamp has this content."""
        if stamp is not None and self.digest_of(stamp) != digest:
            key = bytes.fromhex(digest)
            self._keys[_hash(stamp)] = self._new_stamps[_hash(stamp)] = key

    def flush(self) -> None:
        """Writes what is new as one shard; without success it stays in memory, and `problem` says why."""
        if not self._new and not self._new_stamps:
            return
        import numpy as np

        keys, clips = list(self._new), list(self._new.values())
        lengths = np.array([clip.shape[1] for clip in clips], dtype=np.int32)
        flat = torch.cat([clip.flatten() for clip in clips]) if clips else torch.zeros(0, dtype=torch.int16)
        shard = _Shard(Path(), lengths, self._starts(lengths), flat)
        for index, key in enumerate(keys):
            self._where[key] = shard, index
        if self._folder is not None:
            buffer = io.BytesIO()
            # A zip, because it has checksums: a flipped bit in a bare array would be trained on.
            np.savez(
                buffer,
                keys=_table(keys),
                n_frames=lengths,
                codes=flat.numpy(),
                stamps=_table(list(self._new_stamps)),
                stamp_keys=_table(list(self._new_stamps.values())),
            )
            self._write(self._folder / f"{secrets.token_hex(8)}.npz", buffer.getvalue())
        self._new, self._new_stamps = {}, {}

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomic(path, data, replace=True)
        except OutputError as error:
            self.problem = error
        except OSError as error:
            self.problem = output_error(path.parent, error)

    def _open(self, path: Path) -> None:
        import numpy as np

        arrays = _read_arrays(path, "keys", "n_frames", "stamps", "stamp_keys")
        if arrays is None:
            return
        keys, n_frames, stamps, stamp_keys = arrays
        if not all(map(_is_table, (keys, stamps, stamp_keys))) or n_frames.dtype != "int32":
            return
        if n_frames.shape != keys.shape[:1] or stamps.shape != stamp_keys.shape or (n_frames < 1).any():
            return
        n_frames = n_frames.astype(np.int64)
        shard = _Shard(path, n_frames, self._starts(n_frames))
        for index, key in enumerate(keys):
            self._where[key.tobytes()] = shard, index
        for stamp, key in zip(stamps, stamp_keys, strict=True):
            self._keys[stamp.tobytes()] = key.tobytes()

    def _codes(self, shard: _Shard) -> torch.Tensor | None:
        """The shard's codes, or None where it is damaged or gone."""
        if shard.codes is None:
            arrays = _read_arrays(shard.path, "codes")
            if arrays is None:
                return None
            [flat] = arrays
            if flat.dtype != "int16" or flat.shape != (int(shard.n_frames.sum()) * self._n_codebooks,):
                return None
            if (flat < 0).any():
                return None
            shard.codes = torch.from_numpy(flat)
        return shard.codes

    def _starts(self, n_frames: Any) -> Any:
        import numpy as np

        ends = np.cumsum(n_frames.astype(np.int64)) * self._n_codebooks
        return np.concatenate([np.zeros(1, dtype=np.int64), ends])


def _read_arrays(path: Path, *names: str) -> list[Any] | None:
    """Arrays of a shard; None where it is damaged or gone."""
    import numpy as np

    try:
        # Opened here, because numpy leaves the file open where it finds no zip in it.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as entry:
            arrays = [entry[name] for name in names]
    except Exception:  # what a flipped bit makes zipfile and numpy raise is not documented, and of ten kinds
        return None
    # What does not begin as an array does comes as bytes.
    return arrays if all(isinstance(array, np.ndarray) for array in arrays) else None


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _table(keys: list[bytes]) -> Any:
    """Digests as uint8 [n, 32]."""
    import numpy as np

    return np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 32)


def _is_table(array: Any) -> bool:
    return bool(array.dtype == "uint8" and array.ndim == 2 and array.shape[1] == 32)
