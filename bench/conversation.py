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
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bench.machine import machine_facts, wait_until_idle
from bench.peers import ours
from bench.peers.base import SIZES, Job, clock
from bench.report import FOLDER, print_machine, print_table, write_results
from csm_repl.engine import SamplingOptions, open_engine, prompt_rows

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
        rows = prompt_rows(context, ids, job.config.n_codebooks)
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


def _measure_apart(peer: str, arguments: argparse.Namespace) -> Turns:
    command = [sys.executable, "-m", "bench.conversation", "--only", peer]
    for name in ("turns", "frames", "text", "dtype", "quantize", "device", "size"):
        command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--text", type=int, default=16)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--quantize", default="none", choices=["none", "int8", "int4"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="full", choices=SIZES)
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for an idle machine")
    parser.add_argument("--results", type=Path, default=FOLDER)
    parser.add_argument("--only", choices=PEERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    peers = arguments.peers.split(",")
    results: dict[str, Turns] = {}
    for peer in peers:
        if arguments.size == "full":
            wait_until_idle(arguments.patience)
        results[peer] = _measure_apart(peer, arguments)
        print(f"{peer} is done", file=sys.stderr, flush=True)
    print_machine(machine_facts())
    print(
        f"{arguments.size} size, {arguments.dtype}, quantize {arguments.quantize}, {arguments.device}, "
        f"{arguments.frames} frames a turn"
    )
    columns = ["turn", "context"]
    columns += [f"{peer}, {what}" for peer in peers for what in ("first frame s", "turn s")]
    rows: list[list[Any]] = []
    for number in range(arguments.turns):
        row: list[Any] = [number + 1, int(results[peers[0]][number]["n_positions"])]
        for peer in peers:
            row += [results[peer][number]["first_frame_s"], results[peer][number]["turn_s"]]
        rows.append(row)
    print_table(columns, rows)
    write_results("conversation", {"results": results}, arguments.results)


if __name__ == "__main__":
    main()
