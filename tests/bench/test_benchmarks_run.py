"""Every benchmark runs at tiny size on a CPU and writes what it says. Its figures mean nothing here."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import batch, codec_slots, conversation, first_audio, gpu, joining, parts, text
from bench.peers.base import Job, Take
from bench.report import print_table
from csm_repl.errors import UsageError
from tests.support.paths import ROOT

TINY: dict[str, Any] = {"size": "tiny", "device": "cpu", "dtype": "float32"}


def arguments(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(**TINY, **values)


def positive(value: Any) -> bool:
    """Whether all numbers in a result are above zero."""
    if isinstance(value, dict):
        return all(positive(item) for item in value.values())
    if isinstance(value, list):
        return all(positive(item) for item in value)
    return isinstance(value, str) or value > 0


@pytest.mark.parametrize("mode", ["none", "int8"])
def test_batch(mode: str) -> None:
    found = batch.measure_mode(mode, arguments(slots="1,3", context=20, frames=3, rounds=1))
    assert list(found) == ["1", "3"]
    assert positive(found)
    assert found["3"]["frames_per_s"] == pytest.approx(3 / found["3"]["step_s"])


@pytest.mark.parametrize("peer", conversation.PEERS)
def test_conversation(peer: str) -> None:
    turns = conversation.measure(peer, arguments(turns=3, frames=4, text=6, quantize="none"))
    assert [turn["n_positions"] for turn in turns] == [6, 17, 28]
    assert positive(turns)
    assert all(turn["prefill_s"] <= turn["first_frame_s"] <= turn["turn_s"] for turn in turns)


def test_first_audio() -> None:
    found = first_audio.measure("none", arguments(context=30, text=5, rounds=2))
    assert list(found) == ["cached", "cold"]
    assert positive(found)
    assert all(state["first_frame_s"] < state["first_audio_s"] for state in found.values())


def test_joining() -> None:
    found = joining.measure("none", arguments(chunks="8,30", context=30, frames=4, rounds=1))
    assert list(found) == ["8", "30"]
    assert positive(found)


def test_text() -> None:
    found = text.measure(["It costs 5 dollars.", "I see."], n_bytes=1000, n_lines=3, rounds=1)
    assert list(found) == [
        "normalise, the texts",
        "normalise, the tests' cases",
        "--dry-run, the texts",
        "--dry-run, numbers",
        "--help",
    ]
    assert positive(found)


def test_codec_slots() -> None:
    found = codec_slots.measure(arguments(slots="1,3", frames="1,2", rounds=1))
    assert [(row["slots"], row["frames"]) for row in found["equal"]] == [(1, 1), (3, 1), (1, 2), (3, 2)]
    assert [row["frames"] for row in found["mixed"]] == ["1 2", "2 1 2"]
    assert positive(found)


@pytest.mark.parametrize("part", ["graphs", "eager", "int8", "int4", "transformers", "transformers-static"])
def test_gpu_takes(part: str) -> None:
    found = gpu.measure(part, arguments(slots="1", context=20, frames=3, text=5))
    figures = {key: found[key] for key in ("frame_ms", "best_ms", "first_frame_ms", "warm_up_s")}
    assert positive(figures)
    # With its static cache it is a difference of two times, which noise can make nothing.
    assert found["prefill_ms"] > 0 or (part == "transformers-static" and found["prefill_ms"] == 0)
    assert found["memory_gb"] is None


def test_gpu_says_why_there_is_no_fp8() -> None:
    with pytest.raises(UsageError, match="need a GPU of Ada"):
        gpu.measure("fp8", arguments(slots="1", context=20, frames=3, text=5))


def test_gpu_counts_the_bytes_of_each_kind_of_weights() -> None:
    speeds = {}
    for quantize in ("none", "int8", "fp8", "int4"):
        job = Job(torch.bfloat16, 20, 5, "cuda", quantize)
        speeds[quantize] = gpu.summary(Take(0.0, 0.1, [0.5] * 3 + [1.0] * 5), job)["weights_gb_s"]
    expected = {"none": 9.11, "int8": 4.69, "fp8": 4.69, "int4": 2.75}
    assert {quantize: round(speed, 2) for quantize, speed in speeds.items()} == expected


def test_gpu_batch() -> None:
    found = gpu.measure("batch", arguments(slots="2", context=20, frames=3, text=5))
    assert list(found["slots"]) == ["2"]


def test_gpu_goes_on_without_a_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise ImportError("No module named 'moshi'")

    monkeypatch.setattr(gpu.codec_peer, "build", missing)
    found = gpu.measure("graphs", arguments(slots="1", context=20, frames=3, text=5))
    assert found["first_frame_cached_ms"] > 0
    assert "first_audio_cached_ms" not in found


def test_parts_that_do_not_exist_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for module, option in ((batch, "--modes"), (conversation, "--peers"), (first_audio, "--modes")):
        with pytest.raises(SystemExit):
            module.main([option, "none,nonsense"])
        assert "there is no" in capsys.readouterr().err


def test_a_benchmark_whose_parts_all_fail_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise parts.PartFailedError("broken")

    monkeypatch.setattr(parts, "measure_apart", fail)
    with pytest.raises(SystemExit) as caught:
        batch.main(["--size", "tiny", "--modes", "none,int8"])
    assert caught.value.code == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_refuses_politely_without_cuda() -> None:
    with pytest.raises(SystemExit, match="needs a CUDA device") as caught:
        gpu.main([])
    assert "bench.frame" in str(caught.value)


def test_gpu_reports_parts_that_fail(capsys: pytest.CaptureFixture[str]) -> None:
    frames = {"frame_ms": 4.0, "said": ["Recording took 1.0 s."]}
    batch_slots = {"1": {"step_s": 0.01, "frames_per_s": 100.0, "times_real_time": 8.0}}
    gpu.print_results(
        {"graphs": frames, "eager": {**frames, "frame_ms": 10.0}, "compile": {"failed": "exit code 1"},
         "batch": {"slots": batch_slots}}
    )  # fmt: skip
    out = capsys.readouterr().out
    assert "| graphs | 4 |" in out
    assert "eager: 2.50 × the time of graphs" in out
    assert "compile: FAILED: exit code 1" in out
    assert "| 1 | 10 | 100 | 8 | 1 |" in out


def test_a_table_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "b"], [("x", 0.012345), (None, 12345.6)])
    assert capsys.readouterr().out == "\n| a | b |\n|---|---|\n| x | 0.0123 |\n| - | 12346 |\n"


COMMANDS = {
    "frame": ["--peers", "ours,plain-int8,codec", "--context", "10", "--frames", "2", "--rounds", "1"],
    "batch": ["--slots", "1,2", "--modes", "none", "--context", "10", "--frames", "2", "--rounds", "1"],
    "conversation": ["--turns", "2", "--frames", "3", "--text", "4", "--peers", "cached,uncached"],
    "joining": ["--modes", "none", "--chunks", "8", "--context", "10", "--frames", "4", "--rounds", "1"],
    "first_audio": ["--modes", "none", "--context", "10", "--rounds", "1"],
    "overlap": ["--frames", "4", "--context", "10", "--rounds", "1", "--quantize", "none"],
    "codec_slots": ["--slots", "1,3", "--frames", "1,2", "--rounds", "1"],
    "gpu": ["--parts", "graphs,batch", "--slots", "2", "--context", "10", "--frames", "2", "--device", "cpu"],
}


@pytest.mark.slow(reason="runs every benchmark")
@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_prints_a_table_and_writes_json(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"bench.{name}", "--size", "tiny", "--dtype", "float32"]
    done = subprocess.run(
        [*command, *COMMANDS[name], "--results", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "|---|" in done.stdout
    [path] = tmp_path.glob(f"{name}-*.json")
    content = json.loads(path.read_text())
    assert str(path) in done.stdout
    assert content["takes" if name == "frame" else "results"]
    assert content["machine"]["torch"] == torch.__version__
