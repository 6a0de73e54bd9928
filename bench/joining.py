"""What a take that is being spoken notices of a cold prompt that joins it.

    python -m bench.joining [--modes none,int8,int4] [--chunks 16,32,64,128,500] [--context 500] [--frames 12]
                            [--rounds 2] [--dtype bfloat16] [--device cpu] [--size full] [--patience 60]

One take speaks; after `--frames` frames a prompt of `--context` positions joins, of which nothing is cached.
A chunk is how many positions of it a step runs beside the speaking take; one of the whole context is what an
engine does that prefills a prompt at once. `longest gap` is between two frames of the speaking take while the
other one joins, `first frame after` the seconds from joining to the other take's first frame. Every mode is
measured in a process of its own. Prints a table and writes `bench/results/joining-*.json`. `--size tiny` only
shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import pairwise

import torch

from bench.machine import machine_facts
from bench.parts import MODES, BenchmarkParser, measure_parts, succeeded
from bench.peers import ours
from bench.peers.base import Job, clock
from bench.report import print_machine, print_table, write_results
from csm_repl.engine import Engine, Frame, SamplingOptions, TakeRequest, open_engine, text_positions


def join(engine: Engine, job: Job, chunk: int, n_before: int, n_after: int) -> dict[str, float]:
    """Seconds that matter to both takes, with prefills of `chunk` positions beside a speaking take."""
    engine.prefill_beside = chunk
    options = SamplingOptions(temperature=job.temperature, top_k=job.top_k)
    engine.forget()
    ids = list(range(1, 17))
    speaking = engine.submit(TakeRequest(text_positions(ids, engine.n_codebooks), options, seed=1))
    frames: list[float] = []
    joined_at, first_at, joining = 0.0, 0.0, -1
    while not first_at or len(frames) < n_before + n_after:
        if len(frames) == n_before and joining < 0:
            joining = engine.submit(TakeRequest(ours.prompt(job), options, seed=2))
            joined_at = clock(job.device)
        for event in engine.step():
            if isinstance(event, Frame) and event.take == speaking:
                frames.append(clock(job.device))
            elif isinstance(event, Frame) and not first_at:
                first_at = clock(job.device)
    for take in (speaking, joining):
        engine.abort(take)
    gaps = [later - earlier for earlier, later in pairwise(frames)]
    return {
        "frame_s": statistics.median(gaps[1 : n_before - 1]),
        "longest_gap_s": max(gaps[n_before - 1 :]),
        "first_frame_s": first_at - joined_at,
    }


def measure(mode: str, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One mode, in this process."""
    dtype = getattr(torch, arguments.dtype)
    job = Job(dtype, arguments.context, 1, arguments.device, mode, size=arguments.size)
    engine = open_engine(ours.build(job.device, job.dtype, job.quantize, job.config), 2)
    join(engine, job, 64, 4, 1)
    chunks = [int(chunk) for chunk in arguments.chunks.split(",")]
    found = {}
    for chunk in chunks:
        # The first round meets shapes that libraries have to prepare for.
        rounds = [join(engine, job, chunk, arguments.frames, 3) for _ in range(arguments.rounds)]
        found[str(chunk)] = {key: min(each[key] for each in rounds) for key in rounds[0]}
    return found


def main(words: list[str] | None = None) -> None:
    parser = BenchmarkParser(__doc__)
    parser.add_option("--chunks", default="16,32,64,128,500")
    parser.add_option("--context", type=int, default=500)
    parser.add_option("--frames", type=int, default=12)
    parser.add_option("--rounds", type=int, default=2)
    parser.add_parts("--modes", MODES)
    arguments = parser.parse_args(words)
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    results = measure_parts("bench.joining", arguments.modes, parser, arguments)
    print_machine(machine_facts())
    print(
        f"{arguments.size} size, {arguments.dtype}, {arguments.device}, a prompt of {arguments.context} joins"
    )
    print_table(
        ("quantize", "chunk", "s/frame alone", "longest gap s", "gap / frame", "first frame after s"),
        [
            (
                mode,
                chunk,
                row["frame_s"],
                row["longest_gap_s"],
                row["longest_gap_s"] / row["frame_s"],
                row["first_frame_s"],
            )
            for mode, chunks in succeeded(results).items()
            for chunk, row in chunks.items()
        ],
    )
    write_results("joining", {"results": results}, arguments.results)


if __name__ == "__main__":
    main()
