"""Thousands of lines in one process, with a fault at every twentieth: what is lost, and what grows.

    python -m bench.soak [--lines 2000] [--every 20] [--model DIR] [--tracks] [--folder DIR]

A studio, a listener and an `-o` file as the pipe has them. The faults, in turn: the disk of `-o` is full, the
disk of the takes is full, a file is in the output folder's place, a broken clip lies in the references
folder, Ctrl-C comes in the middle of a line, a line cannot be spoken. Now and then a line is undone or spoken
again. What was heard is compared, sample by sample, with each take, with every `-o` and with the tracks;
takes may not change afterwards. Without --model a tiny one with random weights speaks. Full disks are limits
on the size of files, so it needs POSIX; the memory's size is read from /proc. Prints a table and writes
`bench/results/soak-*.json`; exit code 1 if anything was lost, a fault had another exit code than the pipe
promises, or memory or descriptors grew.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import hashlib
import io
import itertools
import os
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import machine_facts
from bench.report import FOLDER, print_machine, print_table, write_results
from csm_repl.audio import SAMPLE_RATE, AudioSink, open_sink, read_audio, to_pcm16
from csm_repl.errors import CsmReplError, LineError
from csm_repl.events import Audio, Event, LineDone, Notice, TurnDone, TurnStarted, Withdrawn
from csm_repl.front.jobs import Interrupts, run_job
from csm_repl.front.pipe.listener import Listener
from csm_repl.front.printers import PlainPrinter
from csm_repl.settings import load_settings
from csm_repl.studio import Studio, open_studio
from csm_repl.studio.reading import run_line
from tests.support.speech import write_clip

FAULTS = ("-o is full", "disk is full", "no output folder", "broken clip", "Ctrl-C", "bad line")
HARMLESS = ("broken clip", "Ctrl-C")
"""Faults that make no line fail; with any other the pipe's exit code is 1."""
BAD_LINES = ("Hello!-5", "$NOSUCH$", "$SET temperature high$", "$PLAY 999999$", "Hi.||Ho.-9", "$LOAD x$")
BROKEN_CLIPS = (b"", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"\x00" * 5000, b"ID3\x04" + bytes(range(256)) * 20)
LINES = ("Well, this is line {n}.", "Is it?||It is, line {n}.", "So it is.1", "One, two.||Three.||Four.")
_ENOUGH = 20
"""Measurements from which growth can be told from unrest."""
_TINY_LIMIT = 1_000
"""Bytes; no take and no sidecar fits."""
_MOST_GROWTH = 15.0
"""MB that 1,000 lines may add, besides the conversation's codes: the history that `$HISTORY$` shows, and the
soak's own books (digests and paths of every file)."""


@dataclass(frozen=True)
class Measured:
    """What the process holds after so many lines."""

    line: int
    held_mb: float
    """Resident, without what the heap keeps for later."""
    untrimmed_mb: float
    """Resident as it was."""
    descriptors: int
    threads: int


@dataclass
class Ledger:
    """What was made, as it was heard; keeps digests and no sound."""

    problems: list[str] = field(default_factory=list)
    takes: dict[Path, str] = field(default_factory=dict)
    """Digest of each file as it was when it was told of."""
    accepted: dict[Path, tuple[int, bytes]] = field(default_factory=dict)
    """Speaker and digest of each turn's samples, in order, without what was stopped or taken back."""
    joined: list[Path] = field(default_factory=list)
    """The turns that belong into the `-o` file that is open now."""
    events: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)
    _heard: list[bytes] = field(default_factory=list)
    _line: list[bytes] = field(default_factory=list)

    def complain(self, text: str) -> None:
        self.problems.append(text)

    def take(self, event: Event) -> None:
        self.events[type(event).__name__] += 1
        if isinstance(event, TurnStarted):
            self._heard.clear()
            if event.index == 0:
                self._line.clear()
        elif isinstance(event, Audio):
            self._heard.append(to_pcm16(event.samples))
        elif isinstance(event, TurnDone):
            self._take_turn(event)
        elif isinstance(event, LineDone):
            self._check(event.file, b"".join(self._line))
        elif isinstance(event, Withdrawn):
            for file in event.files:
                self.accepted.pop(file, None)
                if file in self.joined:
                    self.joined.remove(file)
        elif isinstance(event, Notice) and event.level == "warning":
            self.warnings.append(event.text)

    def _take_turn(self, event: TurnDone) -> None:
        pcm = b"".join(self._heard)
        if event.file in self.takes:
            self.complain(f"{event.file.name} was told of twice")
        self._check(event.file, pcm, whole=event.ended != "interrupted")
        if event.ended != "interrupted":
            self._line.append(pcm)
            self.accepted[event.file] = event.speaker, hashlib.sha256(pcm).digest()
            self.joined.append(event.file)

    def _check(self, file: Path, pcm: bytes, *, whole: bool = True) -> None:
        """Of a take that was stopped, more may be in the file than was heard."""
        try:
            found = pcm_of(file)
        except (OSError, CsmReplError) as error:
            self.complain(f"{file.name} cannot be read: {error}")
            return
        if not (found == pcm if whole else found.startswith(pcm)):
            self.complain(f"{file.name} holds {len(found)} bytes of sound, and {len(pcm)} were heard")
        if not file.with_suffix(".json").is_file():
            self.complain(f"{file.name} has no JSON")
        self.takes[file] = digest(file)

    def check_kept(self, file: Path) -> None:
        """That the turn that was heard last and could not be written where it belongs is in `file`."""
        self._check(file, b"".join(self._heard))

    def check_joined(self, path: Path) -> None:
        """That an `-o` file, now closed, holds what was accepted since the last one."""
        expected, self.joined = self.joined, []
        if not expected:
            if path.exists():
                self.complain(f"{path.name} should not be there")
            return
        whole = b"".join(pcm_of(file) for file in expected)
        found = pcm_of(path) if path.is_file() else b""
        if found != whole:
            self.complain(f"{path.name} holds {len(found)} bytes of sound; {len(whole)} were accepted")
        path.unlink(missing_ok=True)

    def check_tracks(self, paths: Sequence[Path]) -> None:
        """That the tracks, laid over each other, are what was accepted."""
        whole = b"".join(pcm_of(file) for file in self.accepted)
        summed = sum((np.frombuffer(pcm_of(path), "<i2").astype(np.int32) for path in paths), np.int32(0))
        if np.asarray(summed, "<i2").tobytes() != whole:
            self.complain("the tracks are not what was accepted")

    def check_files(self, folders: Sequence[Path]) -> None:
        """That every take is as it was, and that nothing unfinished is left."""
        for file, was in self.takes.items():
            if not file.is_file():
                self.complain(f"{file.name} is gone")
            elif digest(file) != was:
                self.complain(f"{file.name} has changed")
        for folder in folders:
            for path in folder.rglob("*.part"):
                self.complain(f"{path.name} is left over")
            for path in folder.rglob("*.json"):
                if not path.with_suffix(".wav").is_file():
                    self.complain(f"{path.name} has no sound")


class Soak:
    """Lines and faults.

    Args:
        flags: of the program.
        folder: for references, takes and `-o`; empty.
        seed: of what happens when.
    """

    def __init__(self, flags: dict[str, Any], folder: Path, seed: int = 1) -> None:
        self._folder = folder
        self._references = folder / "references"
        write_clip(self._references / "reference.wav", "The first voice.")
        write_clip(self._references / "reference1-anna.wav", "The second voice.", pitch_hz=210)
        usual = {"dtype": "float32", "whisper_model": "off", "max_seconds": "0.5", "seed": "1"}
        usual |= {"references": str(self._references), "output": str(folder / "outputs")}
        self.studio: Studio = open_studio(load_settings(usual | flags, environ={}, dotenv=None))
        self.ledger = Ledger()
        self.faults: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._said = io.StringIO()
        self._chapters = itertools.count(1)
        self._interrupts = Interrupts()
        self._failed = False
        """Whether a line has failed since the last fault."""
        self._interrupt_after: int | None = None
        """So many more events until Ctrl-C comes."""
        self._open()

    # --- `-o` -----------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Begins a new `-o` file."""
        self._path = self._folder / f"joined-{next(self._chapters)}.wav"
        self._sink: AudioSink = open_sink(str(self._path), raw=False, rate=SAMPLE_RATE, replace=False)
        self._listener = Listener(PlainPrinter(None, self._said), self._sink, None)

    def _close(self) -> None:
        self._listener.finish([], interrupted=False)
        self._sink.close()
        self.ledger.check_joined(self._path)

    # --- lines ----------------------------------------------------------------------------------------

    def run(self, n_lines: int, every: int) -> list[Measured]:
        """Speaks; what the process held meanwhile."""
        measured = []
        kinds = itertools.cycle(FAULTS)
        with self._interrupts, temporary_files(self._folder / "temporary"):
            for number in range(1, n_lines + 1):
                if number % every == 0:
                    if self._failed:
                        self.ledger.complain(f"a line before line {number} failed without a fault")
                    kind = next(kinds)
                    self._with_fault(kind, number)
                    self._check_failed(kind, number)
                    self._check_words()
                    measured.append(measure(number))
                elif number % every == every // 2:
                    self._speak(self._random.choice(["$UNDO$", "$RETRY$"]), number)
                else:
                    self._speak(self._random.choice(LINES).format(n=number), number)
        self._close()
        tracks = list(self.studio.finish())
        if tracks:
            self.ledger.check_tracks(tracks)
        self.ledger.check_files([self._folder])
        self.ledger.problems += growth(measured, kept_mb(self.studio))
        return measured

    def _speak(self, text: str, number: int, *, may_fail: bool = False) -> bool:
        """Whether the line came to its end; it has to, unless it may fail."""
        done = self.ledger.events["LineDone"]

        def handle(event: Event) -> None:
            self._listener.handle(event, number)
            self.ledger.take(event)
            if self._interrupt_after is not None:
                self._interrupt_after -= 1
                if self._interrupt_after < 0:
                    self._interrupt_after = None
                    os.kill(os.getpid(), signal.SIGINT)

        try:
            stopped = run_job(run_line(self.studio, text), handle)
        except Exception as error:
            self._listener.fail(error, number)
            # An undone conversation has nothing more to undo.
            if not (text in ("$UNDO$", "$RETRY$") and isinstance(error, LineError)):
                self._failed = True
                if not may_fail:
                    self.ledger.complain(f"line {number} failed: {error!r}")
            self._listener.failed = False
            return False
        self._failed |= self._listener.failed
        self._listener.failed = False
        if (
            not may_fail
            and not stopped
            and not text.startswith("$")
            and self.ledger.events["LineDone"] == done
        ):
            self.ledger.complain(f"line {number} has no take")
        return not stopped

    # --- faults ---------------------------------------------------------------------------------------

    def _with_fault(self, kind: str, number: int) -> None:
        self.faults[kind] += 1
        text = LINES[1].format(n=number)
        if kind == "-o is full":
            self._fill_joined(text, number)
        elif kind == "disk is full":
            self._fill_disk(text, number)
        elif kind == "no output folder":
            self._take_folder_away(text, number)
        elif kind == "broken clip":
            self._break_clip(text, number)
        elif kind == "Ctrl-C":
            self._interrupt(text, number)
        elif self._speak(self._random.choice(BAD_LINES), number, may_fail=True):
            self.ledger.complain(f"line {number} should have failed")

    def _fill_joined(self, text: str, number: int) -> None:
        """The line is spoken and kept; `-o` is closed on what it has, and said once."""
        while self._sink.n_samples < 2 * SAMPLE_RATE:  # or a take would not fit either
            self._speak(LINES[1].format(n=number), number)
        before, n_said = list(self.ledger.joined), self._n_said("without -o")
        with file_limit(44 + 2 * self._sink.n_samples):
            self._speak(text, number)
            self._speak(text, number)
        if self._n_said("without -o") != n_said + 1:
            self.ledger.complain(f"line {number}: the full -o was not said once")
        self.ledger.joined = before
        self.ledger.check_joined(self._path)
        self._open()

    def _fill_disk(self, text: str, number: int) -> None:
        """The line fails and leaves nothing; what was made before stays."""
        self._close()
        self._open_none()
        files = set(self._files())
        with file_limit(_TINY_LIMIT):
            if self._speak(text, number, may_fail=True):
                self.ledger.complain(f"line {number} should not have fitted")
        if left := set(self._files()) - files:
            self.ledger.complain(f"line {number} left {len(left)} files on a full disk")
        self.ledger.joined.clear()
        self._open()

    def _take_folder_away(self, text: str, number: int) -> None:
        """The line fails, and its first turn is kept elsewhere; with the folder back, the next is spoken."""
        outputs, moved = self._folder / "outputs", self._folder / "moved"
        outputs.rename(moved)
        outputs.touch()
        if self._speak(text, number, may_fail=True):
            self.ledger.complain(f"line {number} was written without an output folder")
        outputs.unlink()
        moved.rename(outputs)
        kept = re.findall(r"The take is kept: (\S+)\.$", self._said.getvalue(), re.MULTILINE)
        if len(kept) == 1:
            self.ledger.check_kept(Path(kept[0]))
        else:
            self.ledger.complain(f"line {number} says {len(kept)} times where its take is kept")

    def _open_none(self) -> None:
        self._listener = Listener(PlainPrinter(None, self._said), None, None)

    def _break_clip(self, text: str, number: int) -> None:
        """The clip is named and the line is spoken."""
        clip = self._references / f"reference{number}.wav"
        clip.write_bytes(BROKEN_CLIPS[self.faults["broken clip"] % len(BROKEN_CLIPS)])
        self.ledger.warnings.clear()
        self._speak(text, number)
        self._speak(text, number)
        if sum(clip.name in warning for warning in self.ledger.warnings) != 1:
            self.ledger.complain(f"{clip.name} was not named once, but in {self.ledger.warnings}")
        clip.unlink()

    def _interrupt(self, text: str, number: int) -> None:
        """The line stops; what it had is in its file."""
        self._interrupts.forget()
        self._interrupt_after = self._random.randrange(12)
        n_stopped = self.ledger.events["Stopped"]
        self._speak(text, number, may_fail=True)
        came, self._interrupt_after = self._interrupt_after is None, None
        if came and self.ledger.events["Stopped"] != n_stopped + 1:
            self.ledger.complain(f"line {number} was not stopped in order")

    def _check_failed(self, kind: str, number: int) -> None:
        """That the pipe's exit code would be what it promises."""
        if self._failed != (kind not in HARMLESS):
            self.ledger.complain(f"line {number}, {kind}: the exit code would be {int(self._failed)}")
        self._failed = False

    def _files(self) -> Iterator[Path]:
        return (path for path in (self._folder / "outputs").rglob("*") if path.is_file())

    def _n_said(self, text: str) -> int:
        return self._said.getvalue().count(text)

    def _check_words(self) -> None:
        """That no error was one that nobody foresaw."""
        for line in self._said.getvalue().splitlines():
            if "Unexpected error" in line or "should not" in line:
                self.ledger.complain(line)
        self._said.seek(0)
        self._said.truncate()


@contextlib.contextmanager
def file_limit(n_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond `n_bytes`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def temporary_files(folder: Path) -> Iterator[None]:
    """Temporary files of this process go into `folder`."""
    folder.mkdir()
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def measure(line: int) -> Measured:
    """What is held now, once the heap has given back what it keeps for later."""
    resident = _status()["VmRSS"]
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    status = _status()
    return Measured(
        line,
        _megabytes(status["VmRSS"]),
        _megabytes(resident),
        len(list(Path("/proc/self/fd").iterdir())) - 1,
        int(status["Threads"]),
    )


def _megabytes(kilobytes: str) -> float:
    return int(kilobytes.split()[0]) * 1024 / 1e6


def _status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def slope(measured: Sequence[Measured]) -> float:
    """Megabytes that 1,000 lines add to what is held; least squares, without the first quarter."""
    rest = measured[len(measured) // 4 :]
    lines = np.array([each.line for each in rest], float)
    return float(np.polyfit(lines, [each.held_mb for each in rest], 1)[0] * 1000)


def growth(measured: Sequence[Measured], kept: float) -> list[str]:
    """What is not flat; `kept` is what the conversation has to keep, in MB."""
    problems = []
    if len({each.descriptors for each in measured}) > 1:
        problems.append("the number of open descriptors changes")
    if len(measured) >= _ENOUGH and slope(measured) - kept > _MOST_GROWTH:
        problems.append(f"1,000 lines add {slope(measured):.1f} MB")
    return problems


def kept_mb(studio: Studio) -> float:
    """What the conversation's codes take: the session needs them."""
    turns = studio.conversation.turns
    return sum(piece.codes.nbytes for turn in turns for piece in turn.pieces) / 1e6


def pcm_of(path: Path) -> bytes:
    samples, rate = read_audio(path)
    assert rate == SAMPLE_RATE
    return to_pcm16(samples[0])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tiny_model(folder: Path) -> Path:
    """A model folder, of which a frame costs a few milliseconds."""
    from tests.support.models import QUICK_FLAVORS
    from tools.random_checkpoint import write_checkpoint

    return write_checkpoint(folder, flavors=QUICK_FLAVORS, ends=True)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--lines", type=int, default=2_000)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tracks", action="store_true")
    parser.add_argument("--folder", type=Path, help="for the takes; by default a temporary one")
    parser.add_argument("--results", type=Path, default=FOLDER)
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="csm-repl-soak-") as temporary:
        model = arguments.model or tiny_model(Path(temporary) / "model")
        folder = arguments.folder or Path(temporary) / "run"
        soak = Soak({"model": str(model), "tracks": arguments.tracks}, folder)
        started = time.perf_counter()
        measured = soak.run(arguments.lines, arguments.every)
        seconds = time.perf_counter() - started
        kept = kept_mb(soak.studio)
    ledger, steps = soak.ledger, max(1, len(measured) // 10)
    print_machine(machine_facts())
    print_table(
        ("lines", "MB held", "MB resident", "descriptors", "threads"),
        [
            (each.line, each.held_mb, each.untrimmed_mb, each.descriptors, each.threads)
            for each in measured[steps - 1 :: steps]
        ],
    )
    grows = slope(measured)
    faults = ", ".join(f"{n} x {kind}" for kind, n in soak.faults.items())
    print(f"\n{arguments.lines} lines, {len(ledger.takes)} files, {seconds:.0f} s. Faults: {faults}.")
    print(f"1,000 lines add {grows:.2f} MB; the conversation's codes have {kept:.1f} MB in all.")
    print(f"{len(ledger.problems)} problems.")
    for problem in ledger.problems[:20]:
        print(f"- {problem}")
    results = {
        "measured": [vars(each) for each in measured],
        "mb_per_1000_lines": grows,
        "codes_mb": kept,
        "faults": soak.faults,
        "events": ledger.events,
        "problems": ledger.problems,
    }
    write_results("soak", results, arguments.results)
    return 1 if ledger.problems else 0


if __name__ == "__main__":
    sys.exit(main())
