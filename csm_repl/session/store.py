"""A conversation as a folder, and back: readable JSON, a WAV per turn, and the codes exactly as generated.

    outputs/saved/NAME/session.json 001.wav 001.npy 002-1.wav ...

Codes are never made from audio again: a loaded session continues as if it had not been left. A folder appears
whole or not at all. What a process that was killed has left beside it goes with the next save, but for a
session that it was replacing, which stays as `.NAME-….old`.
"""

from __future__ import annotations

import errno
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csm_repl.audio import output_error, write_bytes_atomic
from csm_repl.errors import LineError
from csm_repl.files.json_files import read_json
from csm_repl.paths import is_plain_file, remove_leftovers, unfinished_path
from csm_repl.session.conversation import Conversation, ConversationTurn
from csm_repl.session.records import Limits, OtherModelError, get, joined_codes, read_turn, turn_entry
from csm_repl.session.sidecars import codes_bytes, json_bytes

__all__ = ["FORMAT", "Saved", "load_session", "save_session", "saved_folder", "saved_names"]

FORMAT = 2
"""Version of the folder's layout; raised when an older program could not read it. Older ones are read."""
_SESSION = "session.json"
_MAX_JSON_BYTES = 32 * 2**20
"""Tens of thousands of turns."""
_MOST_FRAMES = 1_000_000
"""A day of speech; its codes take 256 MB for 32 codebooks."""
_NAME = re.compile(r"[\w-][\w.-]*")
_LONGEST_NAME = 100
_MOST_NAMES = 20


@dataclass(frozen=True)
class Saved:
    """What `save_session` wrote."""

    folder: Path
    n_turns: int
    without_audio: tuple[str, ...]
    """Numbers of the turns whose WAV is gone; their codes are saved all the same."""

    @property
    def notice(self) -> str:
        """A whole sentence on what is missing; empty if nothing is."""
        if not self.without_audio:
            return ""
        turns = "turn" if len(self.without_audio) == 1 else "turns"
        numbers = ", ".join(self.without_audio)
        return f"Saved without the sound of {turns} {numbers}, which is gone; the conversation is whole."


def saved_folder(root: Path, name: str) -> Path:
    """Where the session `name` lies under the output folder `root`.

    Raises:
        LineError: not a name for a folder.
    """
    if not _NAME.fullmatch(name) or len(name.encode()) > _LONGEST_NAME:
        raise LineError(
            f"{name[:40]!r} cannot be the name of a session.",
            f"Use letters, digits, '-', '_' and '.', up to {_LONGEST_NAME}, with no '.' at the start.",
        )
    return root / "saved" / name


def saved_names(root: Path) -> list[str]:
    """Names of the sessions saved under the output folder `root`, sorted."""
    return sorted(
        path.parent.name
        for path in (root / "saved").glob(f"*/{_SESSION}")
        if _NAME.fullmatch(path.parent.name)
    )


def save_session(
    conversation: Conversation, folder: Path, *, header: Mapping[str, Any], replace: bool = False
) -> Saved:
    """Writes the conversation into `folder`, as a whole or not at all.

    Args:
        conversation: turns without pieces are saved without codes.
        folder: as from `saved_folder`.
        header: JSON values that `load_session` hands back.
        replace: let a session of that name be replaced.

    Raises:
        LineError: there is a session of that name.
        OutputError: it could not be written; nothing is left behind.
    """
    if folder.exists() and not replace:
        raise _name_taken(folder)
    draft = unfinished_path(folder.parent)
    try:
        remove_leftovers(folder.parent)
        draft.mkdir(parents=True)
        without_audio = _write(conversation, draft, header)
        _put_in_place(draft, folder, replace)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Saved(folder, len(conversation), tuple(without_audio))


def load_session(
    folder: Path, *, n_codebooks: int, codebook_size: int | None = None, vocab_size: int | None = None
) -> tuple[Conversation, dict[str, Any]]:
    """Reads what `save_session` wrote.

    Args:
        folder: as from `saved_folder`.
        n_codebooks: of the loaded model.
        codebook_size: of the loaded model; codes beyond it are refused, because they would be looked up.
        vocab_size: of the loaded model; the same for text tokens.

    Returns:
        The conversation, its turns' files in `folder` (None where there is no WAV), and the header. Whether
        the header's model is the loaded one is for the caller to judge.

    Raises:
        LineError: missing, damaged, from another version, or not for this model.
    """
    limits = Limits(n_codebooks, codebook_size, vocab_size)
    data = _read_json(folder)
    if data.get("format") not in range(1, FORMAT + 1):
        raise LineError(
            f"The session {folder.name} has format {str(data.get('format'))[:20]}; "
            f"this version reads 1 to {FORMAT}.",
            "Load it with the version of csm-repl that saved it.",
        )
    conversation = Conversation()
    try:
        header = get(data, "header", dict)
        for turn in _read_turns(data, folder, limits):
            conversation.append(turn)
    except OtherModelError as error:
        made_with = f" ({header['model'][:100]})" if isinstance(header.get("model"), str) else ""
        raise LineError(
            f"The session {folder.name} is not for the loaded model: {error}.",
            f"Start with the model that it was made with{made_with}.",
        ) from error
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise _damaged(folder, error) from error
    return conversation, header


# --- writing ------------------------------------------------------------------------------------------


def _write(conversation: Conversation, draft: Path, header: Mapping[str, Any]) -> list[str]:
    """Fills the folder `draft`; returns the numbers of the turns whose WAV is gone."""
    without_audio = []
    turns = []
    for turn in conversation.turns:
        stem = turn.number.stem
        wav = f"{stem}.wav" if _copy(turn.file, draft / f"{stem}.wav") else None
        if wav is None:
            without_audio.append(str(turn.number))
        codes = f"{stem}.npy" if turn.pieces else None
        if codes is not None:
            write_bytes_atomic(draft / codes, codes_bytes(joined_codes(turn.pieces)))
        turns.append(turn_entry(turn, wav, codes))
    session = {"format": FORMAT, "header": header, "turns": turns}
    write_bytes_atomic(draft / _SESSION, json_bytes(session))
    return without_audio


def _copy(source: Path | None, target: Path) -> bool:
    # Whatever took its place since is no take: a link would copy a file from anywhere, a FIFO never end.
    if source is None or not is_plain_file(source):
        return False
    try:
        shutil.copyfile(source, target)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _put_in_place(draft: Path, folder: Path, replace: bool) -> None:
    old = None
    if replace and folder.exists():
        old = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}.old")
        folder.rename(old)
    try:
        draft.rename(folder)
    except BaseException as error:
        if old is not None:
            with suppress(OSError):
                old.rename(folder)
        # The system's refusal is the only check that another process cannot slip past.
        if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise _name_taken(folder) from error
        raise
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _name_taken(folder: Path) -> LineError:
    return LineError(
        f"There is a session {folder.name} already.", f"Choose another name, or delete {folder} first."
    )


# --- reading ------------------------------------------------------------------------------------------


def _read_json(folder: Path) -> dict[str, Any]:
    try:
        data = read_json(folder / _SESSION, _MAX_JSON_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        names = saved_names(folder.parent.parent)
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        has = (
            f"Saved are: {', '.join(names[:_MOST_NAMES])}{more}."
            if names
            else "None is saved yet; $SAVE name$ saves one."
        )
        raise LineError(f"There is no saved session {folder.name}.", has) from error
    except OSError as error:
        raise _damaged(folder, error) from error
    except ValueError as error:
        raise _damaged(folder, ValueError(f"{_SESSION}: {error}")) from error
    if not isinstance(data, dict):
        raise _damaged(folder, ValueError(f"{_SESSION} holds no object"))
    return data


def _read_turns(data: dict[str, Any], folder: Path, limits: Limits) -> list[ConversationTurn]:
    turns: list[ConversationTurn] = []
    n_frames = 0
    for entry in get(data, "turns", list):
        turns.append(read_turn(entry, folder, limits))
        n_frames += sum(piece.n_frames for piece in turns[-1].pieces)
        if n_frames > _MOST_FRAMES:
            raise ValueError(f"it holds more than {_MOST_FRAMES} frames")
    if data["format"] == 1:
        n_turns = Counter(turn.line for turn in turns)
        for turn in turns:
            turn.n_turns = n_turns[turn.line]
    return turns


def _damaged(folder: Path, error: BaseException) -> LineError:
    reason = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.filename and error.strerror:
        reason = f"{Path(error.filename).name}: {error.strerror}"
    return LineError(
        f"The session {folder.name} is damaged: {reason}.",
        f"Repair {folder / _SESSION} by hand, or load another session.",
    )
