"""Whether decoding beside generation is faster end to end than decoding between the frames.

    python -m bench.overlap [--quantize int8] [--frames 60] [--rounds 3] [--context 500] [--dtype bfloat16]
                            [--device cpu] [--size full] [--patience 60]

One take through Mimi's stream, in the chunks of the console: by the same thread, as the console does it, and
by a second one. Both share the cores. Prints a table and writes `bench/results/overlap-*.json`.
"""

from __future__ import annotations

import json
import queue
import statistics
import threading
from collections.abc import Iterator

import torch

from bench.machine import machine_facts
from bench.parts import MODES, BenchmarkParser, measure_parts, succeeded
from bench.peers import codec as codec_peer
from bench.peers import ours
from bench.peers.base import Job, clock
from bench.report import print_machine, print_table, write_results
from csm_repl.codec import Codec, DecodeStream, chunk_sizes
from csm_repl.engine import Engine, SamplingOptions, open_engine

HOW = ("one thread", "two threads")


def chunks(engine: Engine, job: Job) -> Iterator[torch.Tensor]:
    """The take's codes, [K, n] at a time."""
    options = SamplingOptions(temperature=job.temperature, top_k=job.top_k)
    take = engine.generate(ours.prompt(job), options=options, seed=job.seed, max_frames=job.n_frames)
    sizes = chunk_sizes()
    waiting, size = list[torch.Tensor](), next(sizes)
    for frame in take:
        waiting.append(frame)
        if len(waiting) == size:
            yield torch.stack(waiting, dim=1)
            waiting, size = [], next(sizes)
    if waiting:
        yield torch.stack(waiting, dim=1)


def speak(engine: Engine, codec: Codec, job: Job, how: str) -> float:
    """Seconds from the prompt, which is in the prefix cache, to the last sample."""
    started = clock(job.device)
    with codec.stream() as stream:
        if how == "one thread":
            for codes in chunks(engine, job):
                stream.push(codes)
        else:
            _speak_beside(chunks(engine, job), stream)
        stream.flush()
    return clock(job.device) - started


def _speak_beside(codes: Iterator[torch.Tensor], stream: DecodeStream) -> None:
    waiting: queue.SimpleQueue[torch.Tensor | None] = queue.SimpleQueue()

    def decode() -> None:
        while (piece := waiting.get()) is not None:
            stream.push(piece)

    thread = threading.Thread(target=decode)
    thread.start()
    for piece in codes:
        waiting.put(piece)
    waiting.put(None)
    thread.join()


def main(words: list[str] | None = None) -> None:
    parser = BenchmarkParser(__doc__)
    parser.add_option("--quantize", default="int8", choices=MODES)
    parser.add_option("--context", type=int, default=500)
    parser.add_option("--frames", type=int, default=60)
    parser.add_option("--rounds", type=int, default=3)
    arguments = parser.parse_args(words)
    dtype = getattr(torch, arguments.dtype)
    if arguments.only:
        job = Job(
            dtype,
            arguments.context,
            arguments.frames,
            arguments.device,
            arguments.quantize,
            size=arguments.size,
        )
        engine = open_engine(ours.build(job.device, job.dtype, job.quantize, job.config))
        codec = codec_peer.build(job.device, job.size)
        speak(engine, codec, job, HOW[0])
        found = {how: [speak(engine, codec, job, how) for _ in range(arguments.rounds)] for how in HOW}
        print(json.dumps({how: statistics.median(seconds) for how, seconds in found.items()}))
        return
    results = measure_parts("bench.overlap", ["take"], parser, arguments)
    print_machine(machine_facts())
    print(
        f"{arguments.size} size, {arguments.dtype}, quantize {arguments.quantize}, {arguments.frames} frames"
    )
    for found in succeeded(results).values():
        print_table(
            ("decoded by", "s", "s per frame"),
            [(how, seconds, seconds / arguments.frames) for how, seconds in found.items()],
        )
    write_results("overlap", {"results": results}, arguments.results)


if __name__ == "__main__":
    main()
