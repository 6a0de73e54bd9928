"""What a frame of csm-repl spends beside its matrix products.

    python -m bench.overhead [--dtype bfloat16] [--quantize none|int8|int4] [--context 500]
                             [--frames 20] [--plain] [--patience 60]

Puts a clock around every matrix product and every pass of the native kernels. What is left of the frame is
eager mode: Python, dispatch, sampling. With --plain there are no native kernels, and norms, rotations and
attention are left too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional as F

from bench.frame import N_WARM_UP, bytes_per_frame
from bench.machine import wait_until_idle
from bench.parts import MODES
from bench.peers import ours
from bench.peers.base import Job
from csm_repl.model.layers.native import NativeTransformer


@contextmanager
def timed_products(seconds: list[float]) -> Iterator[None]:
    """Adds the duration of each product to the last item of `seconds`."""

    def timed(product: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def wrapper(*arguments: Any) -> torch.Tensor:
            started = time.perf_counter()
            result = product(*arguments)
            seconds[-1] += time.perf_counter() - started
            return result

        return wrapper

    places: list[tuple[Any, str]] = [
        (torch, "mv"),
        (torch, "mm"),
        (F, "linear"),
        (torch, "_weight_int8pack_mm"),
        (torch, "_weight_int4pack_mm_for_cpu"),
        (NativeTransformer, "__call__"),
    ]
    originals = [getattr(module, name) for module, name in places]
    for (module, name), original in zip(places, originals, strict=True):
        setattr(module, name, timed(original))
    try:
        yield
    finally:
        for (module, name), original in zip(places, originals, strict=True):
            setattr(module, name, original)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--quantize", default="none", choices=MODES)
    parser.add_argument("--context", type=int, default=500)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for an idle machine")
    arguments = parser.parse_args()
    dtype = getattr(torch, arguments.dtype)
    job = Job(dtype, arguments.context, N_WARM_UP + arguments.frames, quantize=arguments.quantize)
    generation = ours.start(ours.build(job.device, dtype, job.quantize, native=not arguments.plain), job)
    wait_until_idle(arguments.patience)
    products, frames = [0.0], []
    with timed_products(products):
        for _frame in generation:
            now = time.perf_counter()
            frames.append(now)
            products.append(0.0)
    durations = [after - before for before, after in pairwise(frames)][N_WARM_UP - 1 :]
    frame_ms = statistics.median(durations) * 1e3
    product_ms = statistics.median(products[N_WARM_UP:-1]) * 1e3
    speed = bytes_per_frame(dtype, job.quantize) / product_ms / 1e6
    print(f"frame {frame_ms:.0f} ms: products and passes {product_ms:.0f} ms ({speed:.1f} GB/s), ", end="")
    print(f"the rest {frame_ms - product_ms:.0f} ms")


if __name__ == "__main__":
    main()
