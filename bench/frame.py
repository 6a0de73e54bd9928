"""Seconds per frame, prefill and first frame of csm-repl beside transformers and the original.

    python -m bench.frame [--peers ours,ours-int8,ours-int4,transformers,original,codec] [--dtype bfloat16]
                          [--context 500] [--frames 20] [--rounds 2] [--device cpu] [--size full]

Full size, random weights, batch 1, sampling on. Every peer builds its model in a process of its own, one
at a time, and the peers take turns round after round, so a change in the machine's load hits all of them.
`-int8` and `-int4` are csm-repl's quantised weights; `mapped` is `ours` from a cached file, and `plain` is
`ours` without native kernels. Prints a table and writes `bench/results/frame-*.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import statistics
import sys
import time
from typing import Any

import torch

from bench.machine import cpu_seconds, machine_facts, peak_rss_gb, read_bandwidth
from bench.parts import BenchmarkParser, measure_apart, wait_where_it_counts
from bench.peers.base import SIZES, Job
from bench.report import print_machine, write_results

N_WARM_UP = 2
FRAME_S = 0.08
DEFAULT_PEERS = ("ours", "ours-int8", "ours-int4", "transformers", "original", "codec")
PEERS = (*DEFAULT_PEERS, *(name + mode for name in ("mapped", "plain") for mode in ("", "-int8", "-int4")))
_NOT_READ = ("text_embeddings", "audio_embeddings")


def split_peer(peer: str) -> tuple[str, str]:
    """Module and quantisation of a peer: `ours-int8` is ("ours", "int8")."""
    name, _, quantize = peer.partition("-")
    return name, quantize or "none"


def measure(peer: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One peer, in this process."""
    name, quantize = split_peer(peer)
    module = importlib.import_module(f"bench.peers.{name}")
    everybody, own = cpu_seconds()
    started = time.perf_counter()
    if peer == "codec":
        result: dict[str, Any] = module.run(arguments.device, arguments.size)
    else:
        n_frames = N_WARM_UP + arguments.frames
        dtype = getattr(torch, arguments.dtype)
        job = Job(dtype, arguments.context, n_frames, arguments.device, quantize, size=arguments.size)
        result = dataclasses.asdict(module.run(job))
    wall = time.perf_counter() - started
    everybody_after, own_after = cpu_seconds()
    others = (everybody_after - everybody) - (own_after - own)
    return {**result, "peak_rss_gb": peak_rss_gb(), "others_cpus": max(0.0, others / wall)}


def bytes_per_frame(
    dtype: torch.dtype, quantize: str = "none", kernels: str = "cpu", size: str = "full"
) -> int:
    """Weights that one frame reads, with their scales: the backbone once, the depth decoder for each
    further codebook.
    """
    from csm_repl.model.quantize import empty_csm

    config = SIZES[size]
    model = empty_csm(config, dtype=dtype, quantize=quantize, kernels=kernels)
    n_depth = config.n_codebooks - 1
    n_bytes = 0
    for name, parameter in model.named_parameters():
        if name not in _NOT_READ:
            n_bytes += parameter.nbytes * (n_depth if name.startswith(("decoder", "projection")) else 1)
    return n_bytes


def summary(rounds: list[dict[str, Any]]) -> dict[str, float]:
    frames = [seconds for take in rounds for seconds in take["frames_s"][N_WARM_UP:]]
    return {
        "frame_s": statistics.median(frames),
        "frame_best_s": min(statistics.median(take["frames_s"][N_WARM_UP:]) for take in rounds),
        "prefill_s": min(take["prefill_s"] for take in rounds),
        "first_frame_s": min(take["frames_s"][0] for take in rounds),
        "peak_rss_gb": max(take["peak_rss_gb"] for take in rounds),
        "others_cpus": max(take["others_cpus"] for take in rounds),
    }


def print_table(summaries: dict[str, dict[str, float]], n_bytes: dict[str, int], bandwidth: float) -> None:
    """Args:
    summaries: one per peer.
    n_bytes: of weights per frame, per peer.
    bandwidth: GB/s; 0: not known.
    """
    print(
        "\n| | s/frame | best round | real-time factor | ratio to ours | GB/frame | limit s | share "
        "| prefill s | first frame s | memory GB |"
    )
    print("|---" * 11 + "|")
    ours = summaries.get("ours", {}).get("frame_s")
    for peer, row in summaries.items():
        ratio = f"{row['frame_s'] / ours:.2f}" if ours else "-"
        read_gb = n_bytes[peer] / 1e9
        limit_s = read_gb / bandwidth if bandwidth else None
        limit = "- | -" if limit_s is None else f"{limit_s:.3f} | {limit_s / row['frame_s']:.0%}"
        print(
            f"| {peer} | {row['frame_s']:.3f} | {row['frame_best_s']:.3f} | {row['frame_s'] / FRAME_S:.2f} "
            f"| {ratio} | {read_gb:.2f} | {limit} | {row['prefill_s']:.2f} | {row['first_frame_s']:.2f} "
            f"| {row['peak_rss_gb']:.1f} |"
        )


def main(words: list[str] | None = None) -> None:
    parser = BenchmarkParser(__doc__)
    parser.add_option("--context", type=int, default=500)
    parser.add_option("--frames", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_parts("--peers", PEERS, DEFAULT_PEERS)
    arguments = parser.parse_args(words)
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments)))
        return
    peers = arguments.peers
    takes: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    bandwidth = 0.0
    for turn in range(arguments.rounds):
        # Between the rounds, because the machine's bandwidth changes with what its neighbours do.
        if arguments.device == "cpu":
            bandwidth = max(bandwidth, read_bandwidth())
        for peer in peers:
            wait_where_it_counts(arguments)
            takes[peer].append(measure_apart("bench.frame", parser.words_for(peer, arguments)))
            print(f"round {turn + 1} {peer}: {_short(takes[peer][-1])}", file=sys.stderr, flush=True)
    dtype = getattr(torch, arguments.dtype)
    n_bytes = {
        peer: bytes_per_frame(dtype, split_peer(peer)[1], size=arguments.size)
        for peer in peers
        if peer != "codec"
    }
    print_machine(machine_facts())
    print(f"{arguments.size} size, {arguments.dtype}, context {arguments.context}", end="")
    print(f", read bandwidth {bandwidth:.1f} GB/s" if bandwidth else "")
    summaries = {peer: summary(rounds) for peer, rounds in takes.items() if peer != "codec"}
    print_table(summaries, n_bytes, bandwidth)
    if bandwidth:
        print("\nlimit: the weights' bytes through the read bandwidth; share: limit over s/frame")
    if "codec" in takes:
        codec = {key: min(take[key] for take in takes["codec"]) for key in takes["codec"][0]}
        print(
            f"\ncodec: {codec['whole']:.3f} s per second of audio as a whole, {codec['streamed']:.3f} in a "
            f"stream's chunks, first chunk after {codec['first_chunk_s']:.3f} s"
        )
    busy = max(take["others_cpus"] for rounds in takes.values() for take in rounds)
    print(f"\nOther processes used up to {busy:.2f} CPUs during a take.")
    write_results(
        "frame",
        {
            "read_bandwidth_gb_s": bandwidth,
            "bytes_per_frame": n_bytes,
            "summaries": summaries,
            "takes": takes,
        },
        arguments.results,
    )


def _short(take: dict[str, Any]) -> str:
    if "frames_s" not in take:
        return f"whole {take['whole']:.3f}, streamed {take['streamed']:.3f} s per second of audio"
    frame_s = statistics.median(take["frames_s"][N_WARM_UP:])
    return f"{frame_s:.3f} s/frame, prefill {take['prefill_s']:.2f} s, others {take['others_cpus']:.2f} CPUs"


if __name__ == "__main__":
    main()
