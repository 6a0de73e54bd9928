"""The GPU's kernels without a GPU: interpreted on a CPU, and compiled for GPUs that are not there.

The interpreter shows that they compute the right thing, the compiler that a GPU would take them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="there is no triton here")

FULL_SIZE = [
    (2048, 3072), (2048, 2048), (2048, 16384), (8192, 2048),
    (1024, 1536), (1024, 1024), (1024, 16384), (8192, 1024),
]  # fmt: skip
"""n_in and n_out of CSM-1B's layers."""
NAMES = {
    torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32",
    torch.int8: "i8", torch.uint8: "u8", torch.float8_e4m3fn: "fp8e4nv",
}  # fmt: skip
VARYING = {"n_rows", "n_groups"}
"""What the kernels are told not to be compiled anew for."""
SHARED_BYTES = 99 * 1024
"""That a program may have on the smaller GPUs of Ampere and Ada."""


@pytest.mark.parametrize(
    "marks", ["not slow", pytest.param("slow", marks=pytest.mark.slow(reason="interprets kernels"))]
)
def test_the_kernels_multiply_right_under_the_interpreter(marks: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marks]
    done = subprocess.run(
        [*command, str(Path(__file__).with_name("interpreted_kernels.py"))],
        cwd=ROOT, env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"[1-9]\d+ passed", done.stdout), done.stdout


class Launches:
    """Takes a kernel's place and remembers what it would have been compiled for."""

    def __init__(self, kernel: Any, seen: dict[str, tuple[Any, ...]]) -> None:
        self.kernel, self.seen = kernel, seen

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, num_warps: int, num_stages: int = 3, **constants: Any) -> None:
            names = self.kernel.arg_names[: len(args)]
            types = {
                name: f"*{NAMES[arg.dtype]}" if isinstance(arg, torch.Tensor) else "i32"
                for name, arg in zip(names, args, strict=True)
            }
            whole = [
                name
                for name, arg in zip(names, args, strict=True)
                if isinstance(arg, torch.Tensor) or (name not in VARYING and arg % 16 == 0)
            ]
            options = {"num_warps": num_warps, "num_stages": num_stages}
            self.seen[repr((self.kernel.__name__, types, whole, constants, options))] = (
                self.kernel, types, whole, constants, options,
            )  # fmt: skip

        return launch


def launches(
    monkeypatch: pytest.MonkeyPatch, n_rows: list[int], dtypes: list[torch.dtype], *, fp8: bool
) -> dict[str, tuple[Any, ...]]:
    """All that would be compiled for a model of full size."""
    from csm_repl.model.layers import gpu_kernels
    from csm_repl.model.layers.gpu_linear import Fp8GpuLinear, Int4GpuLinear, Int8GpuLinear

    seen: dict[str, tuple[Any, ...]] = {}
    with monkeypatch.context() as patch:
        for name in ("_one_row", "_some_rows", "_one_row_int4", "_some_rows_int4"):
            patch.setattr(gpu_kernels, name, Launches(getattr(gpu_kernels, name), seen))
        for kind in (Int8GpuLinear, Int4GpuLinear, *([Fp8GpuLinear] if fp8 else [])):
            for n_in, n_out in FULL_SIZE:
                for n in n_rows:
                    for dtype in dtypes:
                        kind(n_in, n_out)(torch.empty(n, n_in, dtype=dtype, device="meta"))
    return seen


def compiled(launch: tuple[Any, ...], capability: int) -> Any:
    """As the runtime would, for a GPU that need not be here."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, types, whole, constants, options = launch
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        signature={name: types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in whole},
    )
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def check(launch: tuple[Any, ...], capability: int, folder: Path) -> None:
    kernel, types, *_ = launch
    found = compiled(launch, capability)
    assert found.metadata.shared <= SHARED_BYTES, launch
    # Registers that spill into memory would cost what few bytes gain.
    assert stack_bytes(found.asm["cubin"], folder) == 0, launch
    # 16 bytes at a time, into registers or straight into shared memory.
    loads = r"ld\.global\.v4\.b32|cp\.async\.cg\.shared\.global \[[^]]+\], \[[^]]+\], 0x10"
    assert re.search(loads, found.asm["ptx"]), launch
    if kernel.__name__.startswith("_some_rows") and types["x"] != "*fp32":
        assert "mma.sync" in found.asm["ptx"], launch


def stack_bytes(cubin: bytes, folder: Path) -> int:
    """Memory of a thread's own that a kernel needs, as NVIDIA's tool tells it, which triton brings along."""
    import triton

    path = folder / "kernel.cubin"
    path.write_bytes(cubin)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True, check=True)
    return sum(map(int, re.findall(r"STACK:(\d+)", done.stdout)))


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize(("capability", "fp8"), [(80, False), (89, True)])
def test_the_kernels_of_a_step_compile_for_a_gpu(
    capability: int, fp8: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One row, and the depth decoder's first two."""
    found = launches(monkeypatch, [1, 2], [torch.bfloat16], fp8=fp8).values()
    kinds = {(kernel.__name__, types["weight"]) for kernel, types, *_ in found}
    assert len(kinds) == (6 if fp8 else 4)
    for kind in sorted(kinds):
        launch = next(each for each in found if (each[0].__name__, each[1]["weight"]) == kind)
        check(launch, capability, tmp_path)


@pytest.mark.slow(reason="compiles")
@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize(
    ("capability", "fp8"), [(80, False), (86, False), (89, True), (90, True), (120, True)]
)
def test_all_kernels_of_all_shapes_compile_for_a_gpu(
    capability: int, fp8: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dtypes = [torch.bfloat16, torch.float16, torch.float32]
    for launch in launches(monkeypatch, [1, 2, 32, 64], dtypes, fp8=fp8).values():
        check(launch, capability, tmp_path)


def test_all_that_a_model_needs_is_compiled_at_its_start_and_that_is_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from csm_repl.model.layers.gpu_linear import ROWS_OF_KERNELS

    at_start = launches(monkeypatch, list(ROWS_OF_KERNELS), [torch.bfloat16], fp8=True)
    ever = launches(monkeypatch, [1, 2, 3, 16, 17, 32, 33, 64, 65, 200], [torch.bfloat16], fp8=True)
    assert at_start.keys() == ever.keys()
    for kind in ("*i8", "*u8", "*fp8e4nv"):
        assert sum(types["weight"] == kind for _, types, *_ in ever.values()) <= 11
