"""The micro-benchmarks behind the choices in `csm_repl/model/layers/linear.py` and `cpu_linear.py`.

    python -m bench.kernels [--rounds 7] [--only rows1,rows,pages,quant1,quant,native,fetch] [--patience 60]

Every contestant runs once per round, in turn, over a set of weights that no cache holds; the best round
counts. GB/s are bytes of weights per second, so they compare with the read bandwidth in the last line.
Prints tables and writes `bench/results/kernels-*.json`.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from bench.machine import machine_facts, read_bandwidth, wait_until_idle
from bench.report import print_machine, write_results
from csm_repl.model.layers import cpu_linear, native
from csm_repl.model.layers.cpu_linear import Int4Linear, Int4NativeLinear, Int8Linear, QuantizedLinear
from csm_repl.model.layers.linear import FEW_ROWS_BLOCK, MANY_ROWS_BLOCK, Linear, _upcast_linear
from csm_repl.model.layers.native.build import SOURCE, build

SET_BYTES = 2**29
SHAPES = {
    "backbone gate/up": (16384, 2048),
    "backbone down": (2048, 8192),
    "backbone qkv": (3072, 2048),
    "depth gate/up": (16384, 1024),
    "depth down": (1024, 8192),
    "depth qkv": (1536, 1024),
}
ROWS = (2, 3, 4, 8, 16, 32, 64, 128, 500)
NATIVE_ROWS = (1, 2, 4, 8, 16, 32)
QUANTIZED_ROWS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 128, 256)

Times = dict[str, float]
Kernel = Callable[[Any], torch.Tensor]
"""Of a weight or a whole layer."""


def weight_set(shape: tuple[int, int], dtype: torch.dtype, n_bytes: int = SET_BYTES) -> list[torch.Tensor]:
    n = max(2, n_bytes // (shape[0] * shape[1] * dtype.itemsize))
    return list(torch.empty(n, *shape, dtype=dtype).normal_())


def race(contestants: dict[str, tuple[Kernel, list[Any]]], rounds: int) -> Times:
    """Seconds per call of each kernel over its weights, the best of `rounds`."""
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, (kernel, weights) in contestants.items():
            started = time.perf_counter()
            for weight in weights:
                kernel(weight)
            best[name] = min(best[name], (time.perf_counter() - started) / len(weights))
    return best


def linear(x: torch.Tensor) -> Kernel:
    return lambda weight: F.linear(x, weight)


def mv(x: torch.Tensor) -> Kernel:
    return lambda weight: torch.mv(weight, x)


def mm(x: torch.Tensor) -> Kernel:
    return lambda weight: torch.mm(x, weight.t())


def mv_per_row(x: torch.Tensor) -> Kernel:
    return lambda weight: torch.stack([torch.mv(weight, row) for row in x])


def upcast_whole(x: torch.Tensor) -> Kernel:
    return lambda weight: F.linear(x.float(), weight.float()).to(x.dtype)


def upcast_blocks(x: torch.Tensor, block: int) -> Kernel:
    return lambda weight: _upcast_linear(x, weight, block)


def one_row(rounds: int) -> dict[str, Times]:
    """A single row, as in every step of a frame: GB/s by kernel."""
    results = {}
    for dtype in (torch.bfloat16, torch.float32):
        for name, shape in SHAPES.items():
            weights = weight_set(shape, dtype)
            columns = [weight.t().contiguous().t() for weight in weights]
            x = torch.randn(1, shape[1]).to(dtype)
            times = race(
                {
                    "F.linear": (linear(x), weights),
                    "torch.mv": (mv(x[0]), weights),
                    "mv by columns": (mv(x[0]), columns),
                    "mm by columns": (mm(x), columns),
                },
                rounds,
            )
            n_bytes = shape[0] * shape[1] * dtype.itemsize
            label = f"{str(dtype).removeprefix('torch.')} {name} {shape[0]}x{shape[1]}"
            results[label] = {kernel: n_bytes / seconds / 1e9 for kernel, seconds in times.items()}
    return results


def many_rows(rounds: int) -> dict[str, Times]:
    """More rows in bf16: milliseconds by kernel."""
    results = {}
    for name in ("backbone gate/up", "backbone down"):
        shape = SHAPES[name]
        weights = weight_set(shape, torch.bfloat16, n_bytes=SET_BYTES // 2)
        for n_rows in ROWS:
            x = torch.randn(n_rows, shape[1]).bfloat16()
            contestants = {"F.linear": (linear(x), weights), "upcast whole": (upcast_whole(x), weights)}
            for block in (FEW_ROWS_BLOCK, MANY_ROWS_BLOCK, 2 * MANY_ROWS_BLOCK):
                contestants[f"blocks of {block // 1024}k"] = (upcast_blocks(x, block), weights)
            if n_rows <= 8:
                contestants["mv per row"] = (mv_per_row(x), weights)
            times = race(contestants, max(2, rounds // 2))
            results[f"{name}, {n_rows} rows"] = {key: seconds * 1e3 for key, seconds in times.items()}
    return results


def pages(rounds: int) -> dict[str, Times]:
    """torch.mv over weights mapped from a file, in anonymous memory, and there in huge pages: GB/s."""
    shape = SHAPES["backbone gate/up"]
    anonymous = weight_set(shape, torch.bfloat16)
    stacked = torch.stack(anonymous)
    memory = mmap.mmap(-1, stacked.numel() * 2, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    huge = torch.frombuffer(memory, dtype=torch.bfloat16).view(stacked.shape).copy_(stacked)
    x = torch.randn(shape[1]).bfloat16()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({"weights": stacked}, path)
        del stacked
        mapped = list(load_file(path)["weights"])
        times = race(
            {
                "mapped file": (mv(x), mapped),
                "anonymous": (mv(x), anonymous),
                "huge pages": (mv(x), list(huge)),
            },
            rounds * 2,
        )
    n_bytes = shape[0] * shape[1] * 2
    return {"bfloat16 16384x2048": {key: n_bytes / seconds / 1e9 for key, seconds in times.items()}}


def plain_layers(weights: list[torch.Tensor]) -> list[Linear]:
    layers = row_major_layers(weights)
    for layer in layers:
        layer.prepare()
    return layers


def quantized_layers(kind: type[QuantizedLinear], weights: list[torch.Tensor]) -> list[QuantizedLinear]:
    layers = [kind(weight.shape[1], weight.shape[0]) for weight in weights]
    for layer, weight in zip(layers, weights, strict=True):
        layer.load_state_dict(kind.quantize(weight), assign=True)
        layer.prepare()
    return layers


def forward(x: torch.Tensor) -> Kernel:
    return lambda layer: layer(x)


def few(x: torch.Tensor) -> Kernel:
    return lambda layer: layer._multiply_few(x)


def many(x: torch.Tensor, block: int) -> Kernel:
    def kernel(layer: QuantizedLinear) -> torch.Tensor:
        cpu_linear.BLOCK = block
        return layer._multiply_many(x)

    return kernel


def one_row_quantized(rounds: int) -> dict[str, Times]:
    """A single bf16 row through whole layers: GB/s, of the bytes that the layer holds."""
    results = {}
    for name, shape in SHAPES.items():
        weights = weight_set(shape, torch.bfloat16)
        layers: dict[str, list[Any]] = {
            "bfloat16": plain_layers(weights),
            "int8": quantized_layers(Int8Linear, weights),
            "int4": quantized_layers(Int4Linear, weights),
        }
        x = torch.randn(1, 1, shape[1]).bfloat16()
        results[f"{name} {shape[0]}x{shape[1]}"] = speeds(layers, forward(x), rounds)
    return results


def many_rows_quantized(rounds: int) -> dict[str, Times]:
    """More rows: milliseconds by the kernels for few rows, and by blocks of so many weights."""
    results = {}
    usual = cpu_linear.BLOCK
    for name in ("backbone gate/up", "backbone down"):
        shape = SHAPES[name]
        weights = weight_set(shape, torch.bfloat16, n_bytes=SET_BYTES // 2)
        plain = plain_layers(weights)
        quantized = {
            "int8": quantized_layers(Int8Linear, weights),
            "int4": quantized_layers(Int4Linear, weights),
        }
        for n_rows in QUANTIZED_ROWS:
            x = torch.randn(n_rows, shape[1]).bfloat16()
            contestants: dict[str, tuple[Kernel, list[Any]]] = {"bfloat16": (forward(x), plain)}
            for mode, layers in quantized.items():
                contestants[f"{mode} kernel"] = (few(x), layers)
                for block in (usual // 2, usual, 2 * usual, 4 * usual):
                    contestants[f"{mode} {block // 1024}k"] = (many(x, block), layers)
            times = race(contestants, max(2, rounds // 2))
            results[f"{name}, {n_rows} rows"] = {key: seconds * 1e3 for key, seconds in times.items()}
    cpu_linear.BLOCK = usual
    return results


def native_rows(rounds: int) -> dict[str, Times]:
    """The native kernels, by the number of float32 rows: GB/s, of the bytes that the layer holds."""
    results = {}
    for name, shape in SHAPES.items():
        layers = native_layers(weight_set(shape, torch.bfloat16))
        results[f"{name} {shape[0]}x{shape[1]}"] = {
            f"{mode}, {n_rows}": speed
            for n_rows in NATIVE_ROWS
            for mode, speed in speeds(layers, natively(torch.randn(n_rows, shape[1])), rounds).items()
        }
    return results


def speeds(layers: dict[str, list[Any]], kernel: Kernel, rounds: int) -> Times:
    """GB/s of each kind of layer, of the bytes that it holds."""
    times = race({kind: (kernel, items) for kind, items in layers.items()}, rounds)
    n_bytes = {kind: sum(p.nbytes for p in items[0].parameters()) for kind, items in layers.items()}
    return {kind: n_bytes[kind] / seconds / 1e9 for kind, seconds in times.items()}


def fetching(rounds: int) -> dict[str, Times]:
    """The native kernels with one row, with fetching ahead and without: GB/s."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        without = build(SOURCE, [Path(folder)], flags=("-DNO_FETCH_AHEAD",))
        assert without.library is not None, without.reason
        for name, shape in SHAPES.items():
            layers = native_layers(weight_set(shape, torch.bfloat16))
            x = torch.randn(1, shape[1])
            results[f"{name} {shape[0]}x{shape[1]}"] = {
                f"{kind}, {how}": speed
                for how, kernel in (("ahead", natively(x)), ("not", natively(x, without.library)))
                for kind, speed in speeds(layers, kernel, rounds).items()
            }
    return results


def native_layers(weights: list[torch.Tensor]) -> dict[str, list[Any]]:
    return {
        "bfloat16": row_major_layers(weights),
        "int8": quantized_layers(Int8Linear, weights),
        "int4": quantized_layers(Int4NativeLinear, weights),
    }


def row_major_layers(weights: list[torch.Tensor]) -> list[Linear]:
    layers = [Linear(weight.shape[1], weight.shape[0]) for weight in weights]
    for layer, weight in zip(layers, weights, strict=True):
        layer.load_state_dict({"weight": weight}, assign=True)
    return layers


def natively(x: torch.Tensor, library: ctypes.CDLL | None = None) -> Kernel:
    return lambda layer: native.multiply(layer, x, library)


QUESTIONS = {
    "rows1": one_row,
    "rows": many_rows,
    "pages": pages,
    "quant1": one_row_quantized,
    "quant": many_rows_quantized,
    "native": native_rows,
    "fetch": fetching,
}


def print_table(results: dict[str, Times]) -> None:
    columns = list(dict.fromkeys(kernel for row in results.values() for kernel in row))
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in results.items():
        cells = (f"{row[column]:.1f}" if column in row else "-" for column in columns)
        print(f"| {name} | " + " | ".join(cells) + " |")


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default=",".join(QUESTIONS), help=", ".join(QUESTIONS))
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for an idle machine")
    arguments = parser.parse_args()
    print_machine(machine_facts())
    results: dict[str, dict[str, Times]] = {}
    for name in arguments.only.split(","):
        wait_until_idle(arguments.patience)
        results[name] = QUESTIONS[name](arguments.rounds)
        print(f"\n{QUESTIONS[name].__doc__}\n")
        print_table(results[name])
    bandwidth = read_bandwidth()
    print(f"\nread bandwidth {bandwidth:.1f} GB/s")
    write_results("kernels", {"read_bandwidth_gb_s": bandwidth, "results": results})


if __name__ == "__main__":
    main()
