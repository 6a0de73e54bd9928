"""What csm-repl does on a GPU: frames, first audio, memory and batches, beside transformers.

    python -m bench.gpu [--parts graphs,eager,compile,int8,fp8,int4,transformers,transformers-static,batch]
                        [--slots 1,8,32] [--context 500] [--frames 60] [--text 16] [--dtype bfloat16]
                        [--device cuda]

Full size, random weights, sampling on. `graphs` is what the program does by default, `eager` what it falls
back to, `compile` is --compile; `int8`, `fp8` and `int4` are `graphs` with such weights (fp8 from compute
capability 8.9 on). `transformers-static` is its static cache with what it compiles by itself.
`batch` are takes side by side, through graphs. Every part runs in a process of its own, so none finds the
other's memory or compiled code; one that fails is reported and the others go on. Needs PyTorch with CUDA
and the repository; without moshi the codec is left out, without transformers its parts are. Prints tables
and writes `bench/results/gpu-*.json`. `--size tiny` only shows that it runs, also with --device cpu.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from typing import Any

import torch

from bench.batch import measure as measure_batch
from bench.first_audio import first_audio
from bench.frame import FRAME_S, N_WARM_UP, bytes_per_frame
from bench.machine import machine_facts
from bench.parts import BenchmarkParser, measure_parts, succeeded
from bench.peers import codec as codec_peer
from bench.peers import ours
from bench.peers.base import Job, Take, clock
from bench.report import print_table, write_results
from csm_repl.codec import Codec
from csm_repl.engine import Engine, SamplingOptions, open_engine
from csm_repl.model.csm import CSM
from csm_repl.model.device import QUANTIZATIONS, choose_placement

TAKES = ("graphs", "eager", "compile", *QUANTIZATIONS, "transformers", "transformers-static")
PARTS = (*TAKES, "batch")
COLUMNS = {
    "ms/frame": "frame_ms",
    "best": "best_ms",
    "real-time factor": "real_time_factor",
    "GB/s of weights": "weights_gb_s",
    "prefill ms": "prefill_ms",
    "first frame ms": "first_frame_ms",
    "first frame, cached, ms": "first_frame_cached_ms",
    "first audio, cached, ms": "first_audio_cached_ms",
    "warm-up s": "warm_up_s",
    "memory GB": "memory_gb",
}


def gpu_facts(device: str) -> dict[str, Any]:
    facts = {**machine_facts(), "cuda": torch.version.cuda, "gpu": None}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        facts |= {"gpu": properties.name, "gpu_memory_gb": round(properties.total_memory / 1e9, 1)}
    return facts


def memory_gb(device: str) -> float | None:
    """The most that PyTorch held on the device so far."""
    return torch.cuda.max_memory_reserved() / 1e9 if device.startswith("cuda") else None


def our_engine(part: str, model: CSM) -> tuple[Engine, float, list[str]]:
    """The part's engine, the seconds that preparing it took, and what it said."""
    said: list[str] = []
    device = str(model.device)
    started = clock(device)
    if part == "eager":
        engine = Engine(model)
    else:
        engine = open_engine(model, compile=part == "compile", say=said.append)
    return engine, clock(device) - started, said


def time_frames(engine: Engine, job: Job) -> Take:
    """Seconds of each frame as the program gets it, codes on the host."""
    options = SamplingOptions(temperature=job.temperature, top_k=job.top_k)
    engine.forget()
    take = engine.generate(ours.prompt(job), options=options, seed=job.seed, max_frames=job.n_frames)
    frames_s = []
    # Not `clock`: waiting for the device would undo that frames are made ahead. A frame is there when its
    # codes are.
    before = time.perf_counter()
    for _ in take:
        now = time.perf_counter()
        frames_s.append(now - before)
        before = now
    return Take(0.0, take.prefill_s, frames_s)


def codec_or_none(job: Job) -> Codec | None:
    """None where moshi is not installed; it has bounds on PyTorch that a benchmark need not have."""
    try:
        return codec_peer.build(job.device, job.size)
    except ImportError as error:
        print(f"no codec: {error}", file=sys.stderr)
        return None


def measure_ours(part: str, job: Job, n_text: int) -> dict[str, Any]:
    if part in QUANTIZATIONS:
        job = dataclasses.replace(job, quantize=part)
        # Says in a sentence why a GPU is too old.
        choose_placement(job.device, "auto", job.quantize)
    model = ours.build(job.device, job.dtype, job.quantize, job.config)
    engine, warm_up_s, said = our_engine(part, model)
    time_frames(engine, dataclasses.replace(job, n_frames=N_WARM_UP + 1))
    take = time_frames(engine, job)
    # Before the codec, which is not in transformers' figure either.
    memory = memory_gb(job.device)
    first = first_audio(engine, codec_or_none(job), job, n_text, 5, cached=True)
    return {
        **summary(take, job),
        **{key.replace("_s", "_cached_ms"): seconds * 1e3 for key, seconds in first.items()},
        "warm_up_s": warm_up_s,
        "said": said,
        "memory_gb": memory,
    }


def measure_transformers(part: str, job: Job) -> dict[str, Any]:
    import transformers

    from bench.peers import transformers as peer

    model = peer.build(job, static=part.endswith("static"))
    started = clock(job.device)
    # The same length as the measured take: another one would be compiled anew.
    peer.generate(model, job)
    warm_up_s = clock(job.device) - started
    take = peer.generate(model, job)
    version = f"transformers {transformers.__version__}"
    return {
        **summary(take, job),
        "warm_up_s": warm_up_s,
        "said": [version],
        "memory_gb": memory_gb(job.device),
    }


def summary(take: Take, job: Job) -> dict[str, float]:
    frames = take.frames_s[N_WARM_UP:]
    frame_s = statistics.median(frames)
    n_bytes = 0
    if job.size == "full":
        n_bytes = bytes_per_frame(job.dtype, job.quantize, torch.device(job.device).type)
    return {
        "frame_ms": frame_s * 1e3,
        "best_ms": min(frames) * 1e3,
        "mean_ms": statistics.mean(frames) * 1e3,
        "real_time_factor": frame_s / FRAME_S,
        "weights_gb_s": n_bytes / frame_s / 1e9,
        "prefill_ms": take.prefill_s * 1e3,
        "first_frame_ms": take.frames_s[0] * 1e3,
    }


def measure(part: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One part, in this process."""
    n_frames = N_WARM_UP + arguments.frames
    dtype = getattr(torch, arguments.dtype)
    job = Job(dtype, arguments.context, n_frames, arguments.device, size=arguments.size)
    if part == "batch":
        model = ours.build(job.device, job.dtype, config=job.config)
        slots = [int(n) for n in arguments.slots.split(",")]
        return {"slots": measure_batch(model, job, slots, 1), "memory_gb": memory_gb(job.device)}
    if part.startswith("transformers"):
        return measure_transformers(part, job)
    return measure_ours(part, job, arguments.text)


def print_results(results: dict[str, dict[str, Any]]) -> None:
    takes = {part: found for part, found in succeeded(results).items() if part != "batch"}
    rows = [[part, *(found.get(key) for key in COLUMNS.values())] for part, found in takes.items()]
    if rows:
        print_table(["", *COLUMNS], rows)
    if "graphs" in takes:
        for part in set(takes) - {"graphs"}:
            print(f"{part}: {takes[part]['frame_ms'] / takes['graphs']['frame_ms']:.2f} × the time of graphs")
    batch = results.get("batch", {})
    if "slots" in batch:
        found = batch["slots"]
        alone = next(iter(found.values()))["frames_per_s"]
        print_table(
            ["slots", "ms/step", "frames/s", "times real time", "throughput / first"],
            [
                (
                    name,
                    row["step_s"] * 1e3,
                    row["frames_per_s"],
                    row["times_real_time"],
                    row["frames_per_s"] / alone,
                )
                for name, row in found.items()
            ],
        )
    for part, found in results.items():
        for sentence in [
            *found.get("said", []),
            *([f"FAILED: {found['failed']}"] if "failed" in found else []),
        ]:
            print(f"{part}: {sentence}")


def main(words: list[str] | None = None) -> None:
    parser = BenchmarkParser(__doc__, device="cuda")
    parser.add_option("--slots", default="1,8,32")
    parser.add_option("--context", type=int, default=500)
    parser.add_option("--frames", type=int, default=60)
    parser.add_option("--text", type=int, default=16)
    parser.add_parts("--parts", PARTS)
    arguments = parser.parse_args(words)
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        built = "" if torch.version.cuda else " and is built without CUDA"
        raise SystemExit(
            f"This benchmark needs a CUDA device. PyTorch {torch.__version__} sees none here{built}. "
            "On a CPU, run bench.frame, bench.batch and bench.first_audio."
        )
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    results = measure_parts("bench.gpu", arguments.parts, parser, arguments)
    facts = gpu_facts(arguments.device)
    print(f"{facts['gpu'] or facts['cpu']}, torch {facts['torch']}, CUDA {facts['cuda']}, {facts['date']}")
    print(f"{arguments.size} size, {arguments.dtype}, context {arguments.context}")
    print_results(results)
    write_results("gpu", {"gpu": facts, "results": results}, arguments.results)


if __name__ == "__main__":
    main()
