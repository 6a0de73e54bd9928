"""Two processes in one place overwrite nothing, and a killed one leaves only whole files."""

from __future__ import annotations

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from csm_repl.audio import read_audio
from csm_repl.errors import LineError
from csm_repl.outputs.takes import TakeFolder
from csm_repl.session.conversation import Conversation, ConversationTurn, Piece
from csm_repl.session.store import load_session, save_session, saved_folder

NOW = datetime(2025, 11, 21, 14, 23, 1)
RATE = 24_000


def _run(root: str, who: int, n_takes: int, barrier, results) -> None:
    takes = TakeFolder(Path(root), NOW)
    barrier.wait(60)
    paths = [
        str(takes.begin_line(1).save_turn(torch.ones(9), RATE, {"who": who}, position=1))
        for _ in range(n_takes)
    ]
    results.put((who, paths))


def _run_in_one_folder(root: str, who: int, n_takes: int, barrier, results) -> None:
    takes = TakeFolder(Path(root), NOW)
    # What no two runs do on their own: share a folder, as if one had been copied into the other.
    takes._folder = Path(root)
    barrier.wait(60)
    paths = []
    for _ in range(n_takes):
        line = takes.begin_line(2)
        for position in (1, 2):
            samples = torch.full((480,), who / 8)
            codes = torch.full((2, 2), who)
            paths.append(str(line.save_turn(samples, RATE, {"who": who}, codes, position=position)))
    results.put((who, paths))


def _race(target, root: Path, n_takes: int) -> dict[int, list[Path]]:
    # The processes begin where torch has been imported.
    multiprocessing.set_forkserver_preload([__name__])
    context = multiprocessing.get_context("forkserver")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=target, args=(str(root), who, n_takes, barrier, results)) for who in (1, 2)
    ]
    for process in processes:
        process.start()
    written = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return {who: [Path(path) for path in paths] for who, paths in written.items()}


def test_two_processes_that_start_in_the_same_second_never_meet(tmp_path):
    written = _race(_run, tmp_path, 5)
    folders = {who: {path.parent for path in paths} for who, paths in written.items()}
    assert all(len(own) == 1 for own in folders.values())
    assert not folders[1] & folders[2]


def test_two_processes_in_one_folder_overwrite_nothing(tmp_path):
    written = _race(_run_in_one_folder, tmp_path, 15)
    paths = written[1] + written[2]
    assert len(set(paths)) == 2 * 2 * 15
    for who, own in written.items():
        for path in own:
            assert read_audio(path)[0][0, 0] == who / 8
            assert json.loads(path.with_suffix(".json").read_text())["file"] == path.name
            assert np.load(path.with_suffix(".npy")).tolist() == [[who, who]] * 2
    assert len(list(tmp_path.iterdir())) == 3 * len(paths)


_ENDLESS_TAKES = """
import sys, torch
from pathlib import Path
from csm_repl.outputs.takes import TakeFolder
takes = TakeFolder(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    line = takes.begin_line(1)
    line.save_turn(torch.zeros(240_000), 24_000, {"n": line.number}, torch.zeros(8, 99).long(), position=1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_killed_process_leaves_only_whole_files(tmp_path):
    roots = [tmp_path / str(attempt) for attempt in range(4)]
    # Together, because most of their time goes into imports.
    processes = [
        subprocess.Popen([sys.executable, "-c", _ENDLESS_TAKES, str(root)], stdout=subprocess.PIPE, text=True)
        for root in roots
    ]
    for attempt, (root, process) in enumerate(zip(roots, processes, strict=True)):
        with process:
            assert process.stdout.readline() == "ready\n"
            while not list(root.glob("*/002.wav")):
                time.sleep(0.01)
            time.sleep(0.013 * attempt)
            process.send_signal(signal.SIGKILL)
        wavs = list(root.glob("*/*.wav"))
        assert len(wavs) >= 2
        for wav in wavs:
            assert read_audio(wav)[0].shape == (1, 240_000)
            assert wav.with_suffix(".json").is_file()
            assert wav.with_suffix(".npy").is_file()
        for sidecar in root.glob("*/*.json"):
            assert json.loads(sidecar.read_text())["file"] == sidecar.with_suffix(".wav").name
        for sidecar in root.glob("*/*.npy"):
            assert np.load(sidecar).shape == (8, 99)


_ENDLESS_SAVES = """
import sys, torch
from itertools import count
from pathlib import Path
from csm_repl.session.conversation import Conversation, ConversationTurn, Piece
from csm_repl.session.store import save_session, saved_folder
conversation = Conversation()
for n in range(1, 6):
    piece = Piece("Hi.", (1, 2), torch.full((4, 200), n))
    conversation.append(ConversationTurn(n, 0, 0, "", "Hi.", (piece,), 1.0, 1, "end"))
print("ready", flush=True)
for n in count():
    save_session(conversation, saved_folder(Path(sys.argv[1]), f"s{n}"), header={})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_a_killed_process_leaves_only_whole_sessions(tmp_path):
    command = [sys.executable, "-c", _ENDLESS_SAVES, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        while not (tmp_path / "saved" / "s3").exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    names = [path.name for path in (tmp_path / "saved").iterdir() if not path.name.startswith(".")]
    assert len(names) >= 4
    for name in names:
        assert len(load_session(saved_folder(tmp_path, name), n_codebooks=4)[0]) == 5


def _save(root: str, who: int, barrier, results) -> None:
    conversation = Conversation()
    for n in range(1, who + 1):
        piece = Piece("Hi.", (1, 2), torch.full((4, 200), n))
        conversation.append(ConversationTurn(n, 0, 0, "", "Hi.", (piece,), 1.0, 1, "end"))
    barrier.wait(60)
    try:
        save_session(conversation, saved_folder(Path(root), "demo"), header={"who": who})
        results.put((who, True))
    except LineError:
        results.put((who, False))


def test_of_two_processes_that_save_one_name_one_wins_whole(tmp_path):
    # The processes begin where torch has been imported.
    multiprocessing.set_forkserver_preload([__name__])
    context = multiprocessing.get_context("forkserver")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_save, args=(str(tmp_path), who, barrier, results)) for who in (1, 2)]
    for process in processes:
        process.start()
    won = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(60)
    assert sorted(won.values()) == [False, True]
    loaded, header = load_session(saved_folder(tmp_path, "demo"), n_codebooks=4)
    assert won[header["who"]]
    assert len(loaded) == header["who"]
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["demo"]
