"""Whether Mimi decodes the pieces of several slots faster in one pass than one after the other.

    python -m bench.codec_slots [--slots 1,2,4,8] [--frames 1,4,12] [--rounds 5] [--device cpu] [--size full]
                                [--patience 60]

Mimi with random weights, every slot amid a take. Pieces of equal length; then pieces of different length in
one push, cut to common lengths as the codec does it, beside one pass for each length. Prints tables and
writes `bench/results/codec_slots-*.json`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

from bench.machine import machine_facts
from bench.parts import BenchmarkParser, measure_parts, succeeded
from bench.peers import codec as codec_peer
from bench.peers.base import clock
from bench.report import print_machine, print_table, write_results
from csm_repl.codec import DecodeStreams

WARM_FRAMES = 24
"""Of every slot before it is timed."""


def measure(arguments: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Medians in ms, by slots and frames. The ways take turns, so that a busy moment meets all of them."""
    device, rounds = arguments.device, arguments.rounds
    counts = [int(word) for word in arguments.slots.split(",")]
    lengths = [int(word) for word in arguments.frames.split(",")]
    codec = codec_peer.build(device, arguments.size)
    generator = torch.Generator().manual_seed(0)

    def pieces(sizes: list[int]) -> dict[int, torch.Tensor]:
        return {
            slot: torch.randint(2048, (codec.n_codebooks, n), generator=generator)
            for slot, n in enumerate(sizes)
        }

    streams = codec.streams(max([*counts, len(lengths) + 1]))
    streams.push(pieces([WARM_FRAMES] * streams.n_slots))
    equal = []
    for n, count in itertools.product(lengths, counts):
        ways = {"one_pass_ms": streams.push, "in_turn_ms": lambda chosen: _in_turn(streams, chosen)}
        found = _timed(ways, pieces([n] * count), device, rounds)
        equal.append({"slots": count, "frames": n, **found})
    mixed = []
    for sizes in (lengths, [lengths[-1], *lengths]):
        ways = {
            "cut_ms": streams.push,
            "by_length_ms": lambda chosen: _by_length(streams, chosen),
            "in_turn_ms": lambda chosen: _in_turn(streams, chosen),
        }
        found = _timed(ways, pieces(sizes), device, rounds)
        mixed.append({"frames": " ".join(map(str, sizes)), **found})
    return {"equal": equal, "mixed": mixed}


def _in_turn(streams: DecodeStreams, pieces: Mapping[int, torch.Tensor]) -> None:
    for slot, piece in pieces.items():
        streams.push({slot: piece})


def _by_length(streams: DecodeStreams, pieces: Mapping[int, torch.Tensor]) -> None:
    for n in {piece.shape[1] for piece in pieces.values()}:
        streams.push({slot: piece for slot, piece in pieces.items() if piece.shape[1] == n})


def _timed(
    ways: Mapping[str, Callable[[dict[int, torch.Tensor]], object]],
    pieces: dict[int, torch.Tensor],
    device: str,
    rounds: int,
) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds + 1):
        for name, way in ways.items():
            started = clock(device)
            way(pieces)
            if index:
                seconds[name].append(clock(device) - started)
    return {name: 1000 * statistics.median(each) for name, each in seconds.items()}


def main(words: list[str] | None = None) -> None:
    parser = BenchmarkParser(__doc__)
    parser.add_option("--slots", default="1,2,4,8")
    parser.add_option("--frames", default="1,4,12")
    parser.add_option("--rounds", type=int, default=5)
    arguments = parser.parse_args(words)
    if arguments.only:
        print(json.dumps(measure(arguments)))
        return
    results = measure_parts("bench.codec_slots", ["slots"], parser, arguments)
    print_machine(machine_facts())
    for found in succeeded(results).values():
        print_table(
            ("slots", "frames", "one pass, ms", "one after the other, ms", "ratio"),
            [
                (row["slots"], row["frames"], row["one_pass_ms"], row["in_turn_ms"],
                 row["one_pass_ms"] / row["in_turn_ms"])
                for row in found["equal"]
            ],
        )  # fmt: skip
        print_table(
            ("frames of the slots", "cut to common lengths, ms", "by length, ms", "one after the other, ms"),
            [
                (row["frames"], row["cut_ms"], row["by_length_ms"], row["in_turn_ms"])
                for row in found["mixed"]
            ],
        )
    write_results("codec_slots", {"results": results}, arguments.results)


if __name__ == "__main__":
    main()
