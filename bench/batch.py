"""Throughput of takes side by side, per number of slots and quantisation.

    python -m bench.batch [--slots 1,2,4,8] [--modes none,int8,int4] [--dtype bfloat16] [--context 500]
                          [--frames 8] [--rounds 2] [--device cpu] [--size full] [--patience 60]

All slots get the same prompt, which is prefilled once, and seeds of their own. A step makes a frame for every
slot; the first two are left out. Every mode is measured in a process of its own. Prints a table and writes
`bench/results/batch-*.json`. `--size tiny` only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator

import torch

from bench.frame import FRAME_S, N_WARM_UP
from bench.machine import machine_facts
from bench.parts import MODES, BenchmarkParser, measure_parts, succeeded
from bench.peers import ours
from bench.peers.base import Job, clock
from bench.report import print_machine, print_table, write_results
from csm_repl.engine import Engine, SamplingOptions, open_engine
from csm_repl.model.csm import CSM


def steps(engine: Engine, job: Job) -> Iterator[float]:
    """Seconds of each step that makes a frame for every slot, the prefill's first."""
    options = SamplingOptions(temperature=job.temperature, top_k=job.top_k)
    prompt = ours.prompt(job)
    takes = [
        engine.generate(prompt, options=options, seed=job.seed + slot, max_frames=job.n_frames)
        for slot in range(engine.n_slots)
    ]
    before = clock(job.device)
    for _ in range(job.n_frames):
        for take in takes:
            next(take)
        now = clock(job.device)
        yield now - before
        before = now
    for take in takes:
        take.close()


def measure(model: CSM, job: Job, slots: list[int], rounds: int) -> dict[str, dict[str, float]]:
    """Of each number of slots: seconds per step and throughput."""
    found: dict[str, dict[str, float]] = {}
    for n_slots in slots:
        engine = open_engine(model, n_slots, say=_say)
        seconds = []
        for _ in range(rounds):
            seconds += list(steps(engine, job))[N_WARM_UP:]
        step_s = statistics.median(seconds)
        found[str(n_slots)] = {
            "step_s": step_s,
            "frames_per_s": engine.n_slots / step_s,
            "times_real_time": engine.n_slots * FRAME_S / step_s,
        }
        del engine
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure_mode(mode: str, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One mode, in this process."""
    job = Job(
        getattr(torch, arguments.dtype),
        arguments.context,
        N_WARM_UP + arguments.frames,
        arguments.device,
        mode,
        size=arguments.size,
    )
    model = ours.build(job.device, job.dtype, job.quantize, job.config)
    slots = [int(n) for n in arguments.slots.split(",")]
    return measure(model, job, slots, arguments.rounds)


def main(words: list[str] | None = None) -> None:
    parser = BenchmarkParser(__doc__)
    parser.add_option("--slots", default="1,2,4,8")
    parser.add_option("--context", type=int, default=500)
    parser.add_option("--frames", type=int, default=8)
    parser.add_option("--rounds", type=int, default=2)
    parser.add_parts("--modes", MODES)
    arguments = parser.parse_args(words)
    if arguments.only:
        print(json.dumps(measure_mode(arguments.only, arguments)))
        return
    results = measure_parts("bench.batch", arguments.modes, parser, arguments)
    print_machine(machine_facts())
    print(f"{arguments.size} size, {arguments.dtype}, context {arguments.context}, {arguments.device}")
    table = []
    for mode, found in succeeded(results).items():
        alone = next(iter(found.values()))["frames_per_s"]
        for n_slots, row in found.items():
            ratio = row["frames_per_s"] / alone
            table.append((mode, n_slots, row["step_s"], row["frames_per_s"], row["times_real_time"], ratio))
    columns = ("quantize", "slots", "s/step", "frames/s", "times real time", "throughput / first")
    print_table(columns, table)
    write_results("batch", {"results": results}, arguments.results)


if __name__ == "__main__":
    main()
