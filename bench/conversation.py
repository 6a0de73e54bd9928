"""What turns 1 to 20 of a conversation cost, with and without the prefix cache, beside transformers.

    python -m bench.conversation [--turns 20] [--frames 12] [--text 16] [--peers cached,uncached,transformers]
                                 [--dtype bfloat16] [--quantize none] [--device cpu] [--size full]
                                 [--patience 60]

Every turn is `--text` positions of text and `--frames` frames; the turns before it are its context, with the
frames that were generated. `uncached` empties the prefix cache before each turn. transformers prefills the
whole context every time; it gets text ids for all positions, which costs it less than frames would. Every
peer runs in a process of its own. Prints a table and writes `bench/results/conversation-*.json`.
`--size tiny` only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch

from bench.machine import machine_facts
from bench.parts import MODES, BenchmarkParser, measure_parts, succeeded
from bench.peers import ours
from bench.peers.base import Job, clock
from bench.report import print_machine, print_table, write_results
from csm_repl.engine import SamplingOptions, build_prompt, open_engine

PEERS = ("cached", "uncached", "transformers")

Turns = list[dict[str, float]]


def our_turns(job: Job, n_turns: int, n_text: int, *, cached: bool) -> Turns:
    """Each turn's context, prefill, first frame and whole cost, in positions and seconds."""
    model = ours.build(job.device, job.dtype, job.quantize, job.config)
    engine = open_engine(model)
    options = SamplingOptions(temperature=job.temperature, top_k=job.top_k)
    generator = torch.Generator().manual_seed(job.seed)
    context: list[tuple[list[int], torch.Tensor]] = []
    turns: Turns = []
    for number in range(n_turns):
        ids = torch.randint(job.config.text_vocab_size, (n_text,), generator=generator).tolist()
        rows = build_prompt(context, ids, job.config.n_codebooks)
        if not cached:
            engine.forget()
        started = clock(job.device)
        take = engine.generate(rows, options=options, seed=number, max_frames=job.n_frames)
        frames = [next(take)]
        first_frame_s = clock(job.device) - started
        frames += list(take)
        turns.append(_turn(len(rows), take.prefill_s, first_frame_s, clock(job.device) - started))
        context.append((ids, torch.stack(frames, dim=1)))
    return turns


def transformers_turns(job: Job, n_turns: int, n_text: int) -> Turns:
    from dataclasses import replace

    from bench.peers import transformers

    model = transformers.build(job)
    turns: Turns = []
    for number in range(n_turns):
        n_positions = number * (n_text + job.n_frames + 1) + n_text
        take = transformers.generate(model, replace(job, n_context=n_positions))
        turns.append(_turn(n_positions, take.prefill_s, take.frames_s[0], sum(take.frames_s)))
    return turns


def _turn(n_positions: int, prefill_s: float, first_frame_s: float, turn_s: float) -> dict[str, float]:
    return {
        "n_positions": n_positions,
        "prefill_s": prefill_s,
        "first_frame_s": first_frame_s,
        "turn_s": turn_s,
    }


def measure(peer: str, arguments: argparse.Namespace) -> Turns:
    """One peer, in this process."""
    job = Job(
        getattr(torch, arguments.dtype),
        0,
        arguments.frames,
        arguments.device,
        arguments.quantize,
        size=arguments.size,
    )
    if peer == "transformers":
        return transformers_turns(job, arguments.turns, arguments.text)
    return our_turns(job, arguments.turns, arguments.text, cached=peer == "cached")


def main(words: list[str] | None = None) -> None:
    parser = BenchmarkParser(__doc__)
    parser.add_option("--turns", type=int, default=20)
    parser.add_option("--frames", type=int, default=12)
    parser.add_option("--text", type=int, default=16)
    parser.add_option("--quantize", default="none", choices=MODES)
    parser.add_parts("--peers", PEERS)
    arguments = parser.parse_args(words)
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    results = measure_parts("bench.conversation", arguments.peers, parser, arguments)
    turns: dict[str, Turns] = succeeded(results)
    print_machine(machine_facts())
    print(
        f"{arguments.size} size, {arguments.dtype}, quantize {arguments.quantize}, {arguments.device}, "
        f"{arguments.frames} frames a turn"
    )
    columns = ["turn", "context"]
    columns += [f"{peer}, {what}" for peer in turns for what in ("first frame s", "turn s")]
    rows: list[list[Any]] = []
    for number, same_turn in enumerate(zip(*turns.values(), strict=True)):
        row: list[Any] = [number + 1, int(same_turn[0]["n_positions"])]
        for turn in same_turn:
            row += [turn["first_frame_s"], turn["turn_s"]]
        rows.append(row)
    print_table(columns, rows)
    write_results("conversation", {"results": results}, arguments.results)


if __name__ == "__main__":
    main()
