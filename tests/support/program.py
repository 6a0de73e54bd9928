"""The program as a subprocess: its command line, and runs that need not load torch anew each time."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from tests.support.paths import ROOT

_PARENT = """
import os, socket, sys

import moshi.models, numpy, pydub, rich, safetensors.torch, soundfile, tokenizers, torch, torchaudio
from csm_repl import cli
from csm_repl.front import jobs
from csm_repl.front.pipe import run, speak
from csm_repl.studio import open

encodings = {"encoding": "utf-8", "closefd": False}


def child(words, cwd, descriptors):
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, "r", errors="surrogateescape", **encodings)
    sys.stdout = os.fdopen(1, "w", errors="surrogateescape", **encodings)
    sys.stderr = os.fdopen(2, "w", errors="backslashreplace", buffering=1, **encodings)
    os.chdir(cwd)
    code = 1
    try:
        code = cli.main(words)
    except SystemExit as error:
        code = error.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


asked = socket.socket(fileno=int(sys.argv[1]))
while True:
    told, descriptors, _, _ = socket.recv_fds(asked, 1 << 20, 3)
    if not told:
        break
    cwd, *words = told.decode().split("\\0")
    pid = os.fork()
    if not pid:
        asked.close()
        child(words, cwd, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    asked.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]).to_bytes(2, "big", signed=True))
"""


def command(model: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "csm_repl", *words(model, *arguments)]


def words(model: Path, *arguments: str) -> list[str]:
    return ["--model", str(model), "--whisper-model", "off", *arguments]


class Programs:
    """Runs the program in processes of their own, forked where everything has been imported.

    A run takes the time of its work instead of two seconds for torch. How a process starts, what it imports
    and how it meets signals is tested with real ones.
    """

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._parent = subprocess.Popen(
                [sys.executable, "-c", _PARENT, str(theirs.fileno())], cwd=ROOT, pass_fds=[theirs.fileno()]
            )

    def run(
        self, words: Sequence[str], *, cwd: Path, input: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """As `subprocess.run` with pipes."""
        pipes = [os.pipe() for _ in range(3)]
        theirs, ours = [pipes[0][0], pipes[1][1], pipes[2][1]], [pipes[0][1], pipes[1][0], pipes[2][0]]
        socket.send_fds(self._socket, ["\0".join([str(cwd), *words]).encode()], theirs)
        for descriptor in theirs:
            os.close(descriptor)
        with ThreadPoolExecutor(3) as pool:
            pool.submit(_write, ours[0], input)
            out, err = (pool.submit(_read, descriptor) for descriptor in ours[1:])
        code = int.from_bytes(self._socket.recv(2), "big", signed=True)
        return subprocess.CompletedProcess(list(words), code, out.result(), err.result())

    def close(self) -> None:
        self._socket.close()
        self._parent.wait(timeout=60)


def _write(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _read(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def speak_as_they_arrive(command: Sequence[str], cwd: Path) -> None:
    """Gives the program two lines, the second only when the first's take is there."""
    process = subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    requests, answers = _pipes(process)
    with process:
        for number in (1, 2):
            requests.write(f"Line {number}.\n")
            requests.flush()
            assert answers.readline().strip().endswith(f"00{number}.wav")
        requests.close()
        assert process.wait(timeout=60) == 0
