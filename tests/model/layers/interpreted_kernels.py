"""The GPU's kernels on a CPU, by Triton's interpreter; `test_gpu_kernels.py` starts a process for this file.

The interpreter is chosen when triton is first imported. It rounds to bfloat16 towards zero, so its results
are off by up to 2^-7 where a GPU's are off by 2^-8; float32 and float16 show what is computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from csm_repl.engine import Engine, Frame, SamplingOptions, TakeRequest, text_positions
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.csm import CSM
from csm_repl.model.layers import gpu_kernels
from csm_repl.model.layers.gpu_linear import MANY_ROWS, GpuLinear, Int4GpuLinear, Int8GpuLinear
from csm_repl.model.layers.linear import Linear
from csm_repl.model.quantize import empty_csm, is_quantized, quantize_parameter
from csm_repl.model.transformer import Layer, step_layer
from csm_repl.model.weights.convert import load_csm
from tests.support.linear import BF16, GPU_KINDS, GPU_MODES, layer, random_rows, random_weight, relative

ROUNDING = {torch.float32: 1e-6, torch.float16: 2.0**-11, torch.bfloat16: 2 * BF16}
SIZES = [(16, 48), (100, 37), (32, 64), (48, 65), (640, 9)]
GREEDY = SamplingOptions(temperature=0)


def expected_of(made: GpuLinear, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x.double(), made.dequantized(torch.float32)[:, : made.n_in].double())


def test_this_is_the_interpreter() -> None:
    assert gpu_kernels.INTERPRETED


@pytest.mark.parametrize(
    ("dtype", "n_rows", "n_in", "n_out"),
    [(torch.float32, n, *size) for n in (1, 3, 16, 32) for size in SIZES]
    + [(dtype, n, 100, 37) for dtype in (torch.float16, torch.bfloat16) for n in (1, 3)],
)
@pytest.mark.parametrize("kind", GPU_KINDS)
def test_a_product_is_that_of_the_stored_weight(
    kind: type[GpuLinear], n_in: int, n_out: int, n_rows: int, dtype: torch.dtype
) -> None:
    made, x = layer(random_weight(n_in, n_out), kind), random_rows(n_rows, n_in).to(dtype)
    out = made(x)
    assert (out.shape, out.dtype) == ((n_rows, n_out), dtype)
    assert relative(out, expected_of(made, x)) < ROUNDING[dtype]


@pytest.mark.parametrize("n_rows", [1, 2, 40, 64])
@pytest.mark.parametrize("kind", GPU_KINDS)
def test_long_rows_are_read_in_several_pieces(kind: type[GpuLinear], n_rows: int) -> None:
    """The last of which is shorter, and not read beyond its end."""
    made, x = layer(random_weight(2500, 5), kind), random_rows(n_rows, 2500)
    assert relative(made(x), expected_of(made, x)) < 1e-6


@pytest.mark.slow(reason="interprets kernels")
@pytest.mark.parametrize(("n_out", "n_rows"), [(2051, 1), (4099, 2)])
@pytest.mark.parametrize("kind", GPU_KINDS)
def test_tall_weights_are_cut_into_larger_blocks(kind: type[GpuLinear], n_out: int, n_rows: int) -> None:
    made, x = layer(random_weight(16, n_out), kind), random_rows(n_rows, 16)
    assert relative(made(x), expected_of(made, x)) < 1e-6


@pytest.mark.parametrize("n_rows", [1, 5])
@pytest.mark.parametrize("kind", GPU_KINDS)
def test_nothing_is_written_outside_the_result(
    kind: type[GpuLinear], n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, x = layer(random_weight(64, 37), kind), random_rows(n_rows, 64)
    memory = torch.full(((n_rows + 20) * 37,), 7.0)
    new_empty = torch.Tensor.new_empty

    def watched(tensor: torch.Tensor, *shape: int, **kwargs: Any) -> torch.Tensor:
        if shape != (n_rows, 37):
            return new_empty(tensor, *shape, **kwargs)
        return memory[10 * 37 : (n_rows + 10) * 37].view(shape)

    monkeypatch.setattr(torch.Tensor, "new_empty", watched)
    out = made(x)
    monkeypatch.undo()
    assert relative(out, expected_of(made, x)) < 1e-6
    assert (memory[: 10 * 37] == 7.0).all()
    assert (memory[-10 * 37 :] == 7.0).all()


@pytest.mark.parametrize("kind", GPU_KINDS)
def test_few_and_many_rows_agree(kind: type[GpuLinear]) -> None:
    made, x = layer(random_weight(192, 20), kind), random_rows(MANY_ROWS, 192)
    together = made(x)
    assert relative(torch.cat([made(row[None]) for row in x[:5]]), together[:5]) < 1e-6
    assert relative(torch.cat([made(x[:40]), made(x[40:])]), together) < 1e-6


@pytest.mark.parametrize("n_rows", [1, 3])
@pytest.mark.parametrize("kind", GPU_KINDS)
def test_a_row_of_zeros_gives_zero(kind: type[GpuLinear], n_rows: int) -> None:
    weight = random_weight(128, 4)
    weight[1] = 0.0
    made, x = layer(weight, kind), random_rows(n_rows, 128)
    out = made(x)
    assert (out[:, 1] == 0).all()
    assert relative(out, expected_of(made, x)) < 1e-6


@pytest.mark.parametrize("kind", GPU_KINDS)
def test_rows_may_have_any_shape_and_lie_apart(kind: type[GpuLinear]) -> None:
    made, wide = layer(random_weight(64, 20), kind), random_rows(2, 3, 5, 64)
    assert torch.equal(made(wide[:, :, 2]), made(wide[:, :, 2].reshape(6, 64)).view(2, 3, 20))
    assert made(wide[0, 0, 0]).shape == (20,)


# What torch.compile sees


@pytest.mark.slow(reason="compiles")
@pytest.mark.parametrize("kind", [Int8GpuLinear, Int4GpuLinear])
def test_the_operations_are_what_pytorch_expects_of_one(kind: type[GpuLinear]) -> None:
    made, x = layer(random_weight(128, 9), kind), random_rows(3, 128)
    is_int4 = isinstance(made, Int4GpuLinear)
    operation = gpu_kernels._compiled_4_bits if is_int4 else gpu_kernels._compiled_8_bits
    tensors = (made.weight, made.scales, made.zeros) if is_int4 else (made.weight, made.scales)
    torch.library.opcheck(operation, (x, *(tensor.detach() for tensor in tensors)))


@pytest.mark.slow(reason="compiles")
@pytest.mark.parametrize("quantize", GPU_MODES)
def test_a_block_is_compiled_in_one_piece(micro_checkpoint: Path, quantize: str) -> None:
    model = gpu_model(micro_checkpoint, quantize)
    block = model.backbone.layers[0]
    assert isinstance(block, Layer)
    results = []
    for run in (step_layer, torch.compile(step_layer, backend="aot_eager", fullgraph=True, dynamic=False)):
        cache = model.new_backbone_cache(batch_size=2)
        positions = torch.tensor([0, 3])
        table = model.backbone._expand(model.backbone.table[positions]).unsqueeze(1)
        mask = (torch.arange(8) <= positions[:, None]).view(2, 1, 1, 8)
        where = (torch.arange(2), positions)
        with torch.inference_mode():
            results.append(run(block, random_rows(2, 1, 32), table, cache.data[0], where, mask))
    torch.testing.assert_close(*results)


# A whole model


def gpu_model(folder: Path, quantize: str, dtype: torch.dtype = torch.float32) -> CSM:
    """A model as it would be on a GPU."""
    plain = load_csm(find_checkpoint(folder), device=torch.device("cpu"), dtype=torch.float32)
    model = empty_csm(plain.config, dtype=dtype, quantize=quantize, kernels="cuda")
    state = {}
    for name, parameter in plain.named_parameters():
        if is_quantized(name, quantize):
            state |= quantize_parameter(name, parameter, quantize, "cuda")
        else:
            state[name] = parameter.to(dtype)
    model.load_state_dict(state, assign=True)
    return model.prepare()


def dequantized(model: CSM) -> CSM:
    """The same model with the weights that are left as floating point."""
    plain = empty_csm(model.config, dtype=torch.float32, quantize="none")
    state = {name: parameter.float() for name, parameter in model.named_parameters()}
    for name, module in model.named_modules():
        if isinstance(module, GpuLinear):
            for part in ("scales", "zeros"):
                state.pop(f"{name}.{part}", None)
            state[f"{name}.weight"] = module.dequantized(torch.float32)[:, : module.n_in].contiguous()
    plain.load_state_dict(state, assign=True)
    assert not any(isinstance(m, GpuLinear) for m in plain.modules())
    assert sum(isinstance(m, Linear) for m in plain.modules()) == 4 * (2 + 1) + 2
    return plain.prepare()


@pytest.mark.parametrize("n_prompt", [1, 80])
@pytest.mark.parametrize("quantize", GPU_MODES)
def test_a_models_logits_are_those_of_the_weights_that_are_left(
    micro_checkpoint: Path, quantize: str, n_prompt: int
) -> None:
    model = gpu_model(micro_checkpoint, quantize)
    rows = text_positions(list(range(n_prompt)), model.config.n_codebooks)
    found, expected = (Engine(each).next_logits(rows) for each in (model, dequantized(model)))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow(reason="interprets kernels")
@pytest.mark.parametrize("quantize", GPU_MODES)
def test_takes_one_by_one_and_side_by_side_are_those_of_the_weights_that_are_left(
    micro_checkpoint: Path, quantize: str
) -> None:
    model = gpu_model(micro_checkpoint, quantize)
    plain = dequantized(model)
    prompts = [text_positions([5, 6, 7 + n], model.config.n_codebooks) for n in range(2)]
    expected = [
        [frame.tolist() for frame in Engine(plain).generate(rows, options=GREEDY, max_frames=2)]
        for rows in prompts
    ]
    alone = [frame.tolist() for frame in Engine(model).generate(prompts[0], options=GREEDY, max_frames=2)]
    assert alone == expected[0]
    together: list[list[list[int]]] = [[], []]
    engine = Engine(model, 2)
    takes = [engine.submit(TakeRequest(prompt, GREEDY, max_frames=2)) for prompt in prompts]
    while engine.n_open:
        for event in engine.step():
            if isinstance(event, Frame):
                together[takes.index(event.take)].append(event.codes.tolist())
    assert together == expected


@pytest.mark.slow(reason="interprets kernels")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("quantize", GPU_MODES)
def test_a_model_speaks_in_every_dtype(micro_checkpoint: Path, quantize: str, dtype: torch.dtype) -> None:
    model = gpu_model(micro_checkpoint, quantize, dtype)
    rows = text_positions([1, 2, 3], model.config.n_codebooks)
    logits = Engine(model).next_logits(rows).float()
    expected = Engine(dequantized(model)).next_logits(rows)
    torch.testing.assert_close(logits, expected, atol=0.1, rtol=0)
    assert len(list(Engine(model).generate(rows, options=GREEDY, max_frames=1))) == 1
