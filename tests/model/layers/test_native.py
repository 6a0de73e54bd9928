"""The native kernels: right for every kind of weight, and the same whatever runs beside a row."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from csm_repl.engine import Engine, Frame, TakeRequest, build_prompt
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.csm import CSM
from csm_repl.model.layers.cpu_linear import GROUP, Int4Linear, Int4NativeLinear, Int8Linear, QuantizedLinear
from csm_repl.model.layers.linear import Linear
from csm_repl.model.layers.native import build as building
from csm_repl.model.layers.native import library, multiply, needs_compiling
from csm_repl.model.layers.native.build import SOURCE, build, compilers
from csm_repl.model.weights.convert import load_csm
from csm_repl.paths import unfinished_path
from tools.random_checkpoint import TINY_FLAVORS, write_checkpoint

CPU = torch.device("cpu")
ERRORS = {"float32": 1e-4, "bfloat16": 1e-4, "int8": 1e-3, "int4": 0.1}
"""Of a product of a row and a weight row, in units of what it is on average. Where a step of a quantised row
falls to the other side of one half, that is within."""
SIZES = ((256, 300), (192, 64), (96, 50), (1024, 33), (8192, 17), (64, 1))
needs_compiler = pytest.mark.skipif(not compilers(), reason="there is no C compiler")
X86 = platform.machine() in {"x86_64", "AMD64"}
INSTRUCTIONS = {
    "avx512 without vnni": ("-mno-avx512vnni",),
    "avx2": ("-march=haswell",),
    "none": ("-march=x86-64",),
}


def layer(kind: str, weight: torch.Tensor) -> nn.Module:
    n_out, n_in = weight.shape
    if kind in {"int8", "int4"}:
        made: QuantizedLinear = Int8Linear(n_in, n_out) if kind == "int8" else Int4NativeLinear(n_in, n_out)
        made.load_state_dict(made.quantize(weight), assign=True)
        return made
    plain = Linear(n_in, n_out)
    plain.weight = nn.Parameter(weight.to(getattr(torch, kind)), requires_grad=False)
    return plain


def as_multiplied(kind: str, x: torch.Tensor) -> torch.Tensor:
    """Rows as the kernels for a kind of weight take them: in steps, whose size each group of 64 chooses."""
    if kind not in {"int8", "int4"}:
        return x
    n_in = x.shape[1]
    groups = F.pad(x, (0, -n_in % GROUP)).unflatten(1, (-1, GROUP))
    size = groups.abs().amax(2, keepdim=True) / (32767 if kind == "int8" else 127)
    steps = (groups / size.clamp_min(1e-30)).round()
    return (steps * size).flatten(1)[:, :n_in]


@lru_cache(maxsize=1)
def stored_weight(made: nn.Module) -> torch.Tensor:
    """The weight that is left, float64 [n_out, n_in]."""
    if isinstance(made, QuantizedLinear):
        return made._multiply_many(F.pad(torch.eye(made.n_in), (0, made.n_padding))).T.double()
    return made.weight.double()


def error(kind: str, made: nn.Module, x: torch.Tensor, found: torch.Tensor) -> float:
    """The largest error of a product, in the units of `ERRORS`."""
    weight = stored_weight(made)
    right = as_multiplied(kind, x).double() @ weight.T
    usual = x.double().norm(dim=1)[:, None] * weight.norm(dim=1) / x.shape[1] ** 0.5
    return float(((found - right).abs() / usual).max())


def random(n_in: int, n_out: int, n_rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight whose rows, and a row whose columns, are of very different sizes."""
    torch.manual_seed(n_in + n_out)
    weight = torch.randn(n_out, n_in) * torch.logspace(-2, 1, n_out)[:, None]
    x = torch.randn(n_rows, n_in) * torch.logspace(-3, 1, n_in)
    x[:, n_in // 2] *= 30
    return weight, x


@needs_compiler
@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize(("n_in", "n_out"), SIZES)
def test_a_product_is_right_for_any_number_of_rows(kind: str, n_in: int, n_out: int) -> None:
    weight, x = random(n_in, n_out, 32)
    made = layer(kind, weight)
    for n_rows in (1, 2, 3, 5, 8, 15, 32):
        assert error(kind, made, x[:n_rows], multiply(made, x[:n_rows])) < ERRORS[kind]


@needs_compiler
@pytest.mark.parametrize("kind", ERRORS)
def test_a_row_does_not_depend_on_its_neighbours_or_on_threads(kind: str) -> None:
    weight, x = random(320, 90, 31)
    made = layer(kind, weight)
    alone = torch.cat([multiply(made, row[None]) for row in x])
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            for n_rows in (2, 4, 7, 31):
                assert torch.equal(multiply(made, x[:n_rows]), alone[:n_rows])
    finally:
        torch.set_num_threads(before)


@needs_compiler
@pytest.mark.slow(reason="compiles")
@pytest.mark.skipif(not X86, reason="the variants are x86's")
@pytest.mark.parametrize("instructions", INSTRUCTIONS)
def test_the_variants_for_other_cpus_are_right_too(instructions: str, tmp_path: Path) -> None:
    built = build(SOURCE, [tmp_path], flags=INSTRUCTIONS[instructions])
    assert built.library is not None, built.reason
    for kind in ERRORS:
        for n_in, n_out in SIZES:
            weight, x = random(n_in, n_out, 11)
            made = layer(kind, weight)
            assert error(kind, made, x, multiply(made, x, built.library)) < ERRORS[kind]


@pytest.mark.parametrize("n_in", [64, 192, 1024])
def test_both_int4_layouts_stand_for_the_same_weights(n_in: int) -> None:
    weight, x = random(n_in, 70, 40)
    other = Int4Linear(n_in, 70)
    other.load_state_dict(other.quantize(weight), assign=True)
    made = layer("int4", weight)
    assert isinstance(made, Int4NativeLinear)
    weights = made.dequantized(torch.float32)[:, :n_in]
    # A sum's rounding goes with the sizes of what is added, not with what is left of it.
    largest = (x.abs() @ weights.abs().T) * 1e-6
    assert ((made(x) - other(x)).abs() <= largest).all()
    assert made.weight.shape[1] * 2 % (2 * GROUP) == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    flavors = {**TINY_FLAVORS, "audio_num_codebooks": 4}
    return write_checkpoint(
        tmp_path_factory.mktemp("models") / "csm-random-native", flavors=flavors, ends=True
    )


def load(folder: Path, dtype: str = "float32", quantize: str = "none", *, native: bool = True) -> CSM:
    kind = getattr(torch, dtype)
    return load_csm(find_checkpoint(folder), device=CPU, dtype=kind, quantize=quantize, native=native)


def hidden_states(model: CSM) -> torch.Tensor:
    """After a prompt longer than a pass, a few positions together, and some one by one."""
    torch.manual_seed(1)
    n = 60
    embeddings = (torch.randn(n, model.config.backbone.dim) * 0.5).to(model.dtype)
    cache = model.new_backbone_cache()
    with torch.inference_mode():
        states = [
            model.run_backbone(embeddings[:40], cache, 0),
            model.run_backbone(embeddings[40:45], cache, 40),
        ]
        states += [model.run_backbone(embeddings[i : i + 1], cache, i) for i in range(45, n)]
    return torch.stack(states).float()


@needs_compiler
@pytest.mark.parametrize(
    ("dtype", "quantize", "error"),
    [
        ("float32", "none", 1e-5),
        ("bfloat16", "none", 0.03),
        ("float32", "int8", 0.01),
        ("float32", "int4", 0.05),
    ],
)
def test_a_pass_gives_what_pytorch_gives(folder: Path, dtype: str, quantize: str, error: float) -> None:
    native, plain = (hidden_states(load(folder, dtype, quantize, native=on)) for on in (True, False))
    assert (native - plain).norm() / plain.norm() < error


@needs_compiler
def test_a_position_that_is_not_there_is_refused(folder: Path) -> None:
    model = load(folder)
    cache = model.new_backbone_cache(batch_size=2)
    x = torch.zeros(2, 1, model.config.backbone.dim)
    for positions in ([0, cache.n_positions], [-1, 0]):
        with pytest.raises(IndexError, match="not all in the cache"):
            model.backbone.step(x, cache, torch.tensor(positions), 8)
    assert not cache.data.any()


@needs_compiler
@pytest.mark.parametrize("quantize", ["none", "int8", "int4"])
def test_takes_side_by_side_are_those_of_one_by_one(folder: Path, quantize: str) -> None:
    """PyTorch's kernels round by the number of rows; these do not."""
    model = load(folder, "float32", quantize)
    prompts = [build_prompt([], [256, *range(65, 65 + n), 257], 4) for n in (3, 9, 5, 14, 2)]
    engine, together = Engine(model, 3), dict[int, list[list[int]]]()
    for seed, prompt in enumerate(prompts):
        together[engine.submit(TakeRequest(prompt, seed=seed, max_frames=12))] = []
    while engine.n_open:
        for event in engine.step():
            if isinstance(event, Frame):
                together[event.take].append(event.codes.tolist())
    for seed, (prompt, frames) in enumerate(zip(prompts, together.values(), strict=True)):
        take = Engine(model).generate(prompt, seed=seed, max_frames=12)
        assert [frame.tolist() for frame in take] == frames


def test_without_a_compiler_there_are_no_kernels_and_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    built = build(SOURCE, [tmp_path])
    assert built.library is None
    assert "no C compiler" in built.reason
    assert not needs_compiling()


@needs_compiler
def test_a_library_that_is_there_needs_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert build(SOURCE, [tmp_path], flags=("-O0",)).library is not None
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    assert building.compilers() == []
    assert build(SOURCE, [tmp_path], flags=("-O0",)).library is not None


@needs_compiler
def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "transformer.c"
    broken.write_text("this is not C\n")
    built = build(broken, [tmp_path / "built"])
    assert built.library is None
    assert "failed" in built.reason


@needs_compiler
def test_the_second_folder_serves_where_the_first_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    built = build(SOURCE, [tmp_path / "file", tmp_path / "folder"], flags=("-O0",))
    assert built.library is not None, built.reason
    assert len(list((tmp_path / "folder").iterdir())) == 1

    def no_compiler(*_: object) -> None:
        raise AssertionError("it was compiled again")

    monkeypatch.setattr(building, "_compile", no_compiler)
    assert build(SOURCE, [tmp_path / "folder"], flags=("-O0",)).library is not None


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled library, loaded by nobody who would fall when it changes."""
    folder = tmp_path_factory.mktemp("kept")
    assert build(SOURCE, [folder], flags=("-O0",)).library is not None
    (path,) = folder.iterdir()
    return path


def refuse_to_compile(*_: object) -> Path:
    raise OSError("it was not usable")


@needs_compiler
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:5000] + b"\xff" * 64 + content[5064:],
        lambda content: b"\x7fELF" + bytes(len(content)),
    ],
    ids=["cut short", "empty", "one line wrong", "no code"],
)
def test_a_damaged_library_is_not_loaded_but_made_again(
    kept: Path, damage: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / kept.name
    content = damage(kept.read_bytes())
    copy.write_bytes(content)
    copy.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr(building, "_compile", refuse_to_compile)
        assert build(SOURCE, [tmp_path], flags=("-O0",)).library is None
    assert not copy.exists()
    assert build(SOURCE, [tmp_path], flags=("-O0",)).library is not None


@needs_compiler
@pytest.mark.parametrize("fault", ["file mode", "folder mode", "owner", "link", "pipe"])
def test_a_library_that_others_can_change_is_not_loaded(
    kept: Path, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    copy = folder / kept.name
    if fault == "link":
        copy.symlink_to(kept)
    elif fault == "pipe":
        os.mkfifo(copy)
    else:
        copy.write_bytes(kept.read_bytes())
    if fault != "link":
        copy.chmod(0o666 if fault == "file mode" else 0o755)
    if fault == "folder mode":
        folder.chmod(0o777)
    if fault == "owner":
        status = list(copy.stat())
        status[4] = 12345
        monkeypatch.setattr(building.os, "fstat", lambda _: os.stat_result(status))
    monkeypatch.setattr(building, "_compile", refuse_to_compile)
    assert build(SOURCE, [folder], flags=("-O0",)).library is None


@needs_compiler
def test_nothing_is_left_of_a_compiler_that_was_killed(tmp_path: Path) -> None:
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True)
    left = unfinished_path(tmp_path)
    left = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{int(process.stdout)}-"))
    left.mkdir()
    (left / "transformer.o").write_bytes(b"half")
    assert build(SOURCE, [tmp_path], flags=("-O0",)).library is not None
    assert [path.suffix for path in tmp_path.iterdir()] == [".so"]


@needs_compiler
def test_a_library_without_its_symbols_is_named(tmp_path: Path) -> None:
    source = tmp_path / "transformer.c"
    source.write_text("int csm_other(void) { return 1; }\n")
    built = build(source, [tmp_path / "built"])
    assert built.library is None
    assert "lacks csm_max_rows" in built.reason


def test_without_kernels_a_model_loads_and_speaks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("csm_repl.model.layers.native.kernels.library", lambda: building.Built(None, "none"))
    model = load(folder, quantize="int4")
    assert any(isinstance(module, Int4Linear) for module in model.modules())
    take = Engine(model).generate(build_prompt([], [256, 65, 66, 257], 4), max_frames=3)
    assert len(list(take)) >= 1


@needs_compiler
def test_this_machine_has_them() -> None:
    assert library().library is not None, library().reason
