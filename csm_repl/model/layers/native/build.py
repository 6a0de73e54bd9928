"""Compiles `transformer.c` once on the machine that runs it, and loads it.

No headers, build system or installation step is involved: one C file, one call of the C compiler, some
three seconds. Without a compiler there is no library, and PyTorch's kernels do the work.

A library's name ends in its digest: a copy that broke off would else end the program in mid-frame, and what
somebody else put there would be run. It is looked at before it is loaded, and compiled again if need be.

CSM_NATIVE_FLAGS in the environment are the compiler's last flags, which make the library of another CPU
(`-march=haswell`): for tests. Libraries of different flags have different names.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from csm_repl.errors import in_words
from csm_repl.paths import remove_leftovers, unfinished_path

__all__ = ["Built", "build", "compilers", "library", "needs_compiling"]

SOURCE = Path(__file__).with_name("transformer.c")
_TIMEOUT_S = 120.0
_OPTIMISED = ("-O3", "-fno-math-errno", "-std=gnu11", "-fPIC")
"""`-fno-math-errno` lets square roots be instructions; nothing that changes results is switched on."""
_OPENMP = ("-Xclang", "-fopenmp") if platform.system() == "Darwin" else ("-fopenmp",)
"""Apple's compiler knows OpenMP and does not admit it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Built:
    """The library, or why there is none."""

    library: ctypes.CDLL | None
    reason: str
    """For users: what is used and why, one sentence."""


@functools.cache
def library() -> Built:
    """The library for this machine, compiled if it is not there yet. The answer is kept."""
    return build(SOURCE, _folders(), flags=_flags())


def needs_compiling() -> bool:
    """Whether `library` would call the compiler, which takes seconds."""
    runtime = _openmp_runtime()
    if runtime is None or not compilers():
        return False
    stem = _library_stem(SOURCE, runtime, _flags())
    return not any(_kept(folder, stem) for folder in _folders())


def build(source: Path, folders: Iterator[Path] | list[Path], *, flags: tuple[str, ...] = ()) -> Built:
    """Loads the library from the first of `folders` that has it or lets it be written.

    Args:
        source: the C file.
        folders: where the library may be kept.
        flags: for the compiler, behind the usual ones.
    """
    runtime = _openmp_runtime()
    if runtime is None:
        return Built(None, "No native kernels: PyTorch's OpenMP runtime was not found.")
    stem = _library_stem(source, runtime, flags)
    problem = "no folder can be written"
    for folder in folders:
        try:
            path = _kept(folder, stem) or _compile(source, folder, stem, runtime, flags)
            return Built(_declare(ctypes.CDLL(str(path))), "Native kernels, compiled for this CPU.")
        except _CompilerError as error:
            log.warning("%s", error)
            return Built(None, f"No native kernels: {error.summary}.")
        except OSError as error:
            log.info("no library in %s: %s", folder, error)
            problem = in_words(str(error))
    return Built(None, f"No native kernels: {problem}.")


def compilers() -> list[str]:
    """C compilers that are here; `CC` comes first."""
    if platform.system() == "Windows":
        return []
    wanted = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return [name for name in wanted if name and shutil.which(name)]


def _flags() -> tuple[str, ...]:
    return tuple(os.environ.get("CSM_NATIVE_FLAGS", "").split())


def _folders() -> Iterator[Path]:
    """Beside the source, as Python keeps its bytecode; else in the user's cache."""
    import platformdirs

    yield SOURCE.parent / "__pycache__"
    yield platformdirs.user_cache_path("csm-repl") / "native"


def _openmp_runtime() -> Path | None:
    """The OpenMP library that PyTorch has loaded; two of them in one process would fight for the cores."""
    import torch

    if torch.backends.openmp.is_available() is False:
        return None
    names = ("libgomp", "libiomp5", "libomp")
    maps = Path("/proc/self/maps")
    if maps.is_file():
        paths = {line.split(None, 5)[-1] for line in maps.read_text().splitlines() if line.count(" ") >= 5}
        loaded = sorted(path for path in paths if Path(path).name.startswith(names))
    else:
        folder = Path(torch.__file__).parent / "lib"
        loaded = sorted(str(path) for name in names for path in folder.glob(f"{name}*"))
    # torch's own before one that another package brought.
    loaded.sort(key=lambda path: "/torch" not in path)
    return Path(loaded[0]) if loaded else None


def _library_stem(source: Path, runtime: Path, flags: tuple[str, ...]) -> str:
    """The name without the digest; differs with whatever the results depend on; any compiler's will do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        cpu = platform.processor()
    facts = (source.read_text(), str(runtime), platform.machine(), cpu, flags)
    return f"{source.stem}-{_digest(repr(facts).encode())}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _kept(folder: Path, stem: str) -> Path | None:
    """The library in `folder` that is whole and ours; what is damaged is removed."""
    found = None
    for path in sorted(folder.glob(f"{stem}-*.so")):
        try:
            _check_owner(folder, folder.stat())
            # Not through a link, and not from a pipe, which would be waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                _check_owner(path, os.fstat(descriptor))
                if path.stem == f"{stem}-{_digest(file.read())}":
                    found = path
                    continue
            log.warning("compiled kernels %s are damaged, and are made again", path)
            path.unlink()
        except OSError as error:
            log.warning("compiled kernels %s are not used: %s", path, error)
    return found


def _check_owner(path: Path, status: os.stat_result) -> None:
    """PermissionError where somebody could have written it who cannot change the program anyway."""
    trusted = {0, os.geteuid(), SOURCE.stat().st_uid}
    # Everybody may write to a folder such as /tmp, but nobody may replace what is another's.
    others = stat.S_IWOTH if not status.st_mode & stat.S_ISVTX else 0
    if not stat.S_ISDIR(status.st_mode):
        others |= stat.S_IWGRP
    if status.st_uid not in trusted or status.st_mode & others:
        raise PermissionError(f"{path} can be written by others")


class _CompilerError(Exception):
    """There is no compiler, or it failed."""

    def __init__(self, summary: str, output: str = "") -> None:
        super().__init__(f"{summary}\n{output}")
        self.summary = summary


def _compile(source: Path, folder: Path, stem: str, runtime: Path, flags: tuple[str, ...]) -> Path:
    """Writes the library and returns its path; OSError where it cannot be written."""
    found = compilers()
    if not found:
        raise _CompilerError("there is no C compiler (gcc or clang)")
    compiler = found[0]
    native = "-mcpu=native" if platform.machine() in {"arm64", "aarch64"} else "-march=native"
    folder.mkdir(parents=True, exist_ok=True)
    _check_owner(folder, folder.stat())
    remove_leftovers(folder)
    work = unfinished_path(folder)
    work.mkdir(mode=0o700)
    try:
        compiled, linked = work / "transformer.o", work / "transformer.so"
        _call([compiler, *_OPTIMISED, *_OPENMP, native, *flags, "-c", str(source), "-o", str(compiled)])
        # Against the very file that is loaded: `-fopenmp` here could bring a second runtime.
        _call([compiler, "-shared", str(compiled), str(runtime), "-lm", "-o", str(linked)])
        linked.chmod(0o755)
        with linked.open("rb") as file:
            content = file.read()
            # Before it gets its name: after a loss of power it would else be there without its content.
            os.fsync(file.fileno())
        path = folder / f"{stem}-{_digest(content)}.so"
        linked.replace(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return path


def _call(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except subprocess.SubprocessError as error:
        output = str(getattr(error, "stderr", None) or error)
        first = next((line for line in output.splitlines() if line.strip()), "no message")
        raise _CompilerError(f"{command[0]} failed: {first[:160]}", output) from error


def _declare(loaded: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    for name, result, arguments in (
        ("csm_max_rows", number, []),
        ("csm_scratch_bytes", number, [pointer, number, number, number]),
        ("csm_pass", number, [pointer, pointer, number, number, *[pointer] * 5, number]),
        ("csm_multiply_bytes", number, [pointer, number, number]),
        ("csm_multiply", None, [pointer, pointer, number, pointer, pointer, number]),
    ):
        function = getattr(loaded, name, None)
        if function is None:
            raise _CompilerError(f"the compiled library lacks {name}")
        function.restype, function.argtypes = result, arguments
    return loaded
