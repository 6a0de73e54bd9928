"""Files that appear whole or not at all, and never over another one."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING

from csm_repl.audio.encoder import Encoder, check_ending
from csm_repl.audio.samples import SAMPLE_RATE, to_pcm16
from csm_repl.errors import OutputError
from csm_repl.paths import unfinished_path

if TYPE_CHECKING:
    import torch

_REMEDIES = {
    errno.ENOSPC: "Free some space, or choose a folder on another disk.",
    errno.EDQUOT: "Free some of your disk quota, or choose a folder on another disk.",
    errno.EFBIG: "Choose another disk, or raise the limit on file sizes (ulimit -f).",
    errno.EROFS: "Choose a folder that you may write to.",
    errno.EACCES: "Choose a folder that you may write to.",
    errno.EPERM: "Choose a folder that you may write to.",
    errno.ENOENT: "Make the folder, or choose another one.",
    errno.ENOTDIR: "Choose a folder that exists.",
    errno.EISDIR: "Choose another name.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


def output_error(target: Path | str, error: OSError) -> OutputError:
    """The OutputError, with its remedy, for what the system said when `target` was written."""
    reason = error.strerror or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "Choose another folder or disk.")
    if error.errno in (errno.ENOTDIR, errno.EEXIST) and (obstacle := _obstacle(Path(target))) is not None:
        reason, remedy = f"{obstacle} is no folder", "Move it away, or choose another folder."
    return OutputError(f"{target} cannot be written: {reason}.", remedy)


def _obstacle(path: Path) -> Path | None:
    """What stands where a folder above `path` should be."""
    for above in path.parents:
        if os.path.lexists(above):
            return None if above.is_dir() else above
    return None


def write_bytes_atomic(path: Path | str, data: bytes, *, replace: bool = False) -> None:
    """Make the file `path` with `data`: it appears whole or not at all, and nothing else is left behind.

    Raises:
        FileExistsError: `path` exists and `replace` is False; it is untouched.
        OutputError: disk full, read-only, not allowed, no such folder, ...
    """
    path = real_path(Path(path)) if replace else Path(path)
    temp = unfinished_path(path.parent)
    try:
        try:
            with temp.open("xb") as file:
                file.write(data)
                sync(file)
            put_in_place(temp, path, replace)
        finally:
            remove(temp)
    except FileExistsError:
        raise
    except OSError as error:
        raise output_error(path, error) from error


def write_audio(
    path: Path | str, samples: torch.Tensor, rate: int = SAMPLE_RATE, *, replace: bool = False
) -> None:
    """Write `[N]` float samples at `rate` Hz as .wav (16-bit PCM), .flac, .mp3, .ogg or .opus, by its ending.

    Raises:
        UsageError: another ending.
        FileExistsError, OutputError: as `write_bytes_atomic`; also OutputError where N is 0.
    """
    path = Path(path)
    check_ending(path)
    if samples.numel() == 0:
        raise OutputError(f"{path} cannot be written: there is no sound.", "Say something first.")
    buffer = io.BytesIO()
    encoder = Encoder(buffer, path, rate)
    encoder.write(to_pcm16(samples))
    encoder.close()
    write_bytes_atomic(path, buffer.getvalue(), replace=replace)


def real_path(path: Path) -> Path:
    """Where links lead to: what is replaced is the link's target, and the link stays."""
    return Path(os.path.realpath(path))  # Path.resolve raises where links go in circles


def sync(file: IO[bytes]) -> None:
    """On the disk, not only on its way: the name is given after this."""
    file.flush()
    os.fsync(file.fileno())


def put_in_place(temp: Path, path: Path, replace: bool) -> None:
    """Give `temp` its final name `path`, a real path where it may be replaced.

    Raises FileExistsError, OutputError for a device, and OSError for everything else.
    """
    if replace:
        if path.exists() and not path.is_file():  # a device, say: os.replace would put a file in its place
            raise OutputError(f"{path} is no regular file, so it is not replaced.", "Choose another name.")
        temp.replace(path)
        return
    try:
        # The one call that gives a name and fails where it is taken.
        os.link(temp, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links (exFAT, some network shares)
        path.open("xb").close()  # takes the name, or says that it is taken
        try:
            temp.replace(path)
        except BaseException:
            remove(path)
            raise


def remove(path: Path) -> None:
    """Best effort; a missing file is fine."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
