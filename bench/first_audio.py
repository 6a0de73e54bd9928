"""Seconds from a turn's text to its first samples, with the context in the cache and without.

    python -m bench.first_audio [--modes none,int8,int4] [--context 500] [--text 16] [--rounds 5]
                                [--dtype bfloat16] [--device cpu] [--size full] [--patience 60]

The context is positions of earlier turns. `cached`: it is in the prefix cache, as in a running conversation;
`cold`: nothing is. Prefill, first frame and the codec's first chunk are in the time. Every mode is measured
in a process of its own; the median of the rounds counts, the first one being left out. Prints a table and
writes `bench/results/first_audio-*.json`. `--size tiny` only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from bench.machine import machine_facts
from bench.parts import MODES, BenchmarkParser, measure_parts, succeeded
from bench.peers import codec as codec_peer
from bench.peers import ours
from bench.peers.base import Job, clock
from bench.report import print_machine, print_table, write_results
from csm_repl.codec import Codec
from csm_repl.engine import Engine, SamplingOptions, open_engine, text_positions


def first_audio(
    engine: Engine, codec: Codec | None, job: Job, n_text: int, rounds: int, *, cached: bool
) -> dict[str, float]:
    """Medians of the seconds to the first frame and, with a codec, to the first samples."""
    context = ours.prompt(job)
    options = SamplingOptions(temperature=job.temperature, top_k=job.top_k)
    generator = torch.Generator().manual_seed(job.seed)
    frames_s, audio_s = [], []
    # Opened once, as the program does when it starts.
    streams = None if codec is None else codec.streams(1)
    for number in range(1 + rounds):
        ids = torch.randint(job.config.text_vocab_size, (n_text,), generator=generator).tolist()
        rows = torch.cat([context, text_positions(ids, job.config.n_codebooks)])
        if cached:
            engine.next_logits(context)
        else:
            engine.forget()
        started = clock(job.device)
        # Codes and samples are on the host when they are there, so nothing else has to be waited for.
        take = engine.generate(rows, options=options, seed=number)
        frame = next(take)
        frames_s.append(time.perf_counter() - started)
        if streams is not None:
            streams.push({0: frame.unsqueeze(1)})
            audio_s.append(time.perf_counter() - started)
            streams.reset(0)
        take.close()
    found = {"first_frame_s": statistics.median(frames_s[1:])}
    if audio_s:
        found["first_audio_s"] = statistics.median(audio_s[1:])
    return found


def measure(mode: str, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """One mode, in this process."""
    dtype = getattr(torch, arguments.dtype)
    job = Job(dtype, arguments.context, 1, arguments.device, mode, size=arguments.size)
    engine = open_engine(ours.build(job.device, job.dtype, job.quantize, job.config))
    codec = codec_peer.build(job.device, job.size)
    return {
        "cached" if cached else "cold": first_audio(
            engine, codec, job, arguments.text, arguments.rounds, cached=cached
        )
        for cached in (True, False)
    }


def main(words: list[str] | None = None) -> None:
    parser = BenchmarkParser(__doc__)
    parser.add_option("--context", type=int, default=500)
    parser.add_option("--text", type=int, default=16)
    parser.add_option("--rounds", type=int, default=5)
    parser.add_parts("--modes", MODES)
    arguments = parser.parse_args(words)
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    results = measure_parts("bench.first_audio", arguments.modes, parser, arguments)
    print_machine(machine_facts())
    print(
        f"{arguments.size} size, {arguments.dtype}, {arguments.device}, context {arguments.context}, "
        f"{arguments.text} positions of text"
    )
    rows = [
        (mode, state, row["first_frame_s"], row["first_audio_s"])
        for mode, states in succeeded(results).items()
        for state, row in states.items()
    ]
    print_table(("quantize", "context", "first frame s", "first audio s"), rows)
    write_results("first_audio", {"results": results}, arguments.results)


if __name__ == "__main__":
    main()
