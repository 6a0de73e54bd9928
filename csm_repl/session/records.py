"""A turn as an entry of `session.json` beside its codes, and back, with every value checked.

A file that a person may edit is read here, and what is in it ends up as indices into the model's tables: on a
GPU a wrong one would cost the whole process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from csm_repl.paths import is_plain_file
from csm_repl.session.conversation import ConversationTurn, Piece
from csm_repl.session.numbers import LAST_LINE
from csm_repl.settings import LAST_SPEAKER

if TYPE_CHECKING:
    import torch

__all__ = ["Limits", "OtherModelError", "get", "joined_codes", "read_turn", "turn_entry", "whole"]

_MAX_CODES_BYTES = 64 * 2**20
"""Hours of speech in one turn."""
_MOST_SECONDS = 1e6
_FILE = re.compile(r"[0-9]{3,6}(?:-[0-9]{1,6})?\.(?:wav|npy)")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """What the loaded model can look up; None: not checked."""

    n_codebooks: int
    codebook_size: int | None
    vocab_size: int | None


class OtherModelError(Exception):
    """Half a sentence on its way into a LineError."""


def joined_codes(pieces: tuple[Piece, ...]) -> torch.Tensor:
    """The codes of a turn's pieces, at least one, as one tensor [K, T]."""
    import torch

    return torch.cat([piece.codes for piece in pieces], dim=1)


def turn_entry(turn: ConversationTurn, wav: str | None, codes: str | None) -> dict[str, Any]:
    """A turn as JSON values; `wav` and `codes` are the names of its files, if it has any."""
    return {
        "number": str(turn.number),
        "line": turn.line,
        "position": turn.position,
        "n_turns": turn.n_turns,
        "speaker": turn.speaker,
        "voice": turn.voice,
        "text": turn.text,
        "seconds": turn.seconds,
        "seed": turn.seed,
        "ended": turn.ended,
        "in_context": turn.in_context,
        "n_pieces_out": turn.n_pieces_out,
        "wav": wav,
        "codes": codes,
        "pieces": [
            {"text": piece.text, "n_frames": piece.n_frames, "text_ids": piece.text_ids}
            for piece in turn.pieces
        ],
    }


def read_turn(entry: Any, folder: Path, limits: Limits) -> ConversationTurn:
    """The turn that `turn_entry` wrote, with its codes out of `folder`.

    Raises:
        ValueError, OSError, EOFError: the entry or its codes are damaged.
        OtherModelError: they are whole, but the loaded model has no such codebooks, codes or tokens.
    """
    if not isinstance(entry, dict):
        raise ValueError("a turn is no object")
    wav = _file(entry, "wav", folder)
    pieces = _read_pieces(entry, folder, limits)
    return ConversationTurn(
        line=whole(entry, "line", 1, LAST_LINE),
        position=whole(entry, "position", 0, LAST_LINE - 1),
        # In the first format the number of a line's turns is for the caller to count.
        n_turns=whole(entry, "n_turns", 1, LAST_LINE) if "n_turns" in entry else 1,
        speaker=whole(entry, "speaker", 0, LAST_SPEAKER),
        voice=get(entry, "voice", str),
        text=get(entry, "text", str),
        pieces=pieces,
        seconds=_seconds(entry),
        seed=whole(entry, "seed", 0, 2**63 - 1),
        ended=get(entry, "ended", str),
        # A link may lead out of the session, to a file that is then played and copied as if it were a take.
        file=wav if wav is not None and is_plain_file(wav) else None,
        in_context=get(entry, "in_context", bool),
        n_pieces_out=whole(entry, "n_pieces_out", 0, len(pieces)),
    )


def _seconds(entry: dict[str, Any]) -> float:
    value = entry.get("seconds")
    seconds = value if type(value) is int else get(entry, "seconds", float)
    if not 0 <= seconds <= _MOST_SECONDS:
        raise ValueError("'seconds' is out of range")
    return float(seconds)


def _read_pieces(entry: dict[str, Any], folder: Path, limits: Limits) -> tuple[Piece, ...]:
    entries = get(entry, "pieces", list)
    if not entries:
        return ()
    path = _file(entry, "codes", folder)
    if path is None:
        raise ValueError("a turn has pieces but no codes")
    lengths = [whole(piece, "n_frames", 0, _MAX_CODES_BYTES) for piece in entries]
    codes = _read_codes(path, limits)
    if sum(lengths) != codes.shape[1]:
        raise ValueError(f"{path.name} has {codes.shape[1]} frames, the turn's pieces {sum(lengths)}")
    parts = codes.split(lengths, dim=1)
    return tuple(
        Piece(get(piece, "text", str), _text_ids(piece, limits), part.clone())
        for piece, part in zip(entries, parts, strict=True)
    )


def _read_codes(path: Path, limits: Limits) -> torch.Tensor:
    """Int64 [K, T]."""
    import numpy as np
    import torch

    # A FIFO would be waited for; an array of any size would be read.
    if not is_plain_file(path) or path.stat().st_size > _MAX_CODES_BYTES:
        path.stat()
        raise ValueError(f"{path.name} holds no codes")
    with path.open("rb") as file:
        try:
            # numpy.load would open an archive as gladly.
            array = np.lib.format.read_array(file, allow_pickle=False)
        except OSError:
            raise
        except Exception as error:  # a damaged header raises whatever its parser stumbles on
            raise ValueError(f"{path.name} holds no codes") from error
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise ValueError(f"{path.name} holds no codes")
    if array.shape[0] != limits.n_codebooks:
        raise OtherModelError(f"it has {array.shape[0]} codebooks, the model {limits.n_codebooks}")
    codes = torch.from_numpy(array.astype(np.int64))
    if codes.numel():
        _check_range(int(codes.min()), int(codes.max()), limits.codebook_size, f"a code in {path.name}")
    return codes


def _text_ids(piece: dict[str, Any], limits: Limits) -> tuple[int, ...]:
    ids = get(piece, "text_ids", list)
    if any(type(number) is not int for number in ids):
        raise ValueError("text_ids holds something else than whole numbers")
    if ids:
        _check_range(min(ids), max(ids), limits.vocab_size, "a text token")
    return tuple(ids)


def _check_range(low: int, high: int, size: int | None, what: str) -> None:
    if low < 0:
        raise ValueError(f"{what} is negative")
    if size is not None and high >= size:
        raise OtherModelError(f"{what} is {high}, the model knows those below {size}")


def _file(entry: dict[str, Any], name: str, folder: Path) -> Path | None:
    if entry.get(name) is None:
        return None
    value = get(entry, name, str)
    if not _FILE.fullmatch(value):
        raise ValueError(f"{value[:40]!r} is no file of this session")
    return folder / value


def whole(entry: Any, name: str, low: int, high: int) -> int:
    """The whole number `name` of a JSON object; ValueError if it is none, or out of range."""
    value = get(entry, name, int)
    if not low <= value <= high:
        raise ValueError(f"{name!r} is not between {low} and {high}")
    return value


def get(entry: Any, name: str, kind: type[_T]) -> _T:
    """The value `name` of a JSON object; ValueError if it is missing or not of this kind."""
    value = entry.get(name) if isinstance(entry, dict) else None
    # JSON's true is no number, though Python's is.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name!r} is missing or of the wrong kind")
    return value
