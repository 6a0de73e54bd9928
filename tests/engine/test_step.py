"""The frame step in static shapes: golden tokens, ragged rows, and what a recording needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from csm_repl.engine import SamplingOptions
from csm_repl.engine.graphs import buckets, compiled_layer
from csm_repl.engine.step import NOISE_WIDTH, FrameStep
from csm_repl.model.csm import CSM
from csm_repl.model.transformer import step_layer
from tests.support.engine import GREEDY, ReadBacks, drive, golden_prompt, micro_prompt, new_noise, single

RELATIVE_TOLERANCE = 1e-5
"""Hidden states, relative to the largest: float32 sums in another order."""
EVENLY = pytest.mark.parametrize("run", [None, step_layer], ids=["short passes first", "even passes"])


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def new_step(model: CSM, n_rows: int, run: Any = None) -> FrameStep:
    return FrameStep(model, model.new_backbone_cache(batch_size=n_rows), run=run)


@EVENLY
@pytest.mark.parametrize("n_seen", [256, 2048])
@pytest.mark.parametrize("number", range(3))
def test_one_row_speaks_the_golden_tokens(
    number: int, n_seen: int, run: Any, golden_model: CSM, golden_cases: list[Any]
) -> None:
    case = golden_cases[number]
    noise = new_noise(golden_model, GREEDY, 0)
    step = new_step(golden_model, 1, run)
    [frames] = drive(step, [golden_prompt(case)], [noise], len(case["frames"]), n_seen)
    assert frames == case["frames"]


@EVENLY
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0, 2]])
def test_every_row_of_a_ragged_batch_speaks_its_golden_tokens(
    order: list[int], run: Any, golden_model: CSM, golden_cases: list[Any]
) -> None:
    cases = [golden_cases[number] for number in order]
    prompts = [golden_prompt(case) for case in cases]
    assert len({len(rows) for rows in prompts}) == 3
    n_frames = min(len(case["frames"]) for case in cases)
    noises = [new_noise(golden_model, GREEDY, 0) for _ in cases]
    takes = drive(new_step(golden_model, len(cases), run), prompts, noises, n_frames, 256)
    assert takes == [case["frames"][:n_frames] for case in cases]


@pytest.mark.parametrize("slots", [[0, 2], [1, 2, 4], [3], [0, 1, 2, 4]])
def test_slots_with_gaps_between_them_speak_their_golden_tokens(
    slots: list[int], golden_model: CSM, golden_cases: list[Any]
) -> None:
    cases = [golden_cases[slot % 3] for slot in slots]
    n_frames = min(len(case["frames"]) for case in cases)
    noises = [new_noise(golden_model, GREEDY, 0) for _ in cases]
    prompts = [golden_prompt(case) for case in cases]
    takes = drive(new_step(golden_model, 5), prompts, noises, n_frames, 256, slots)
    assert takes == [case["frames"][:n_frames] for case in cases]


def test_rows_with_options_of_their_own_get_the_codes_of_single_takes(micro_model: CSM) -> None:
    options = [
        SamplingOptions(),
        SamplingOptions(temperature=0),
        SamplingOptions(1.3, 5),
        SamplingOptions(0.5, 300),
    ]
    prompts = [micro_prompt(n) for n in (2, 9, 5, 1)]
    noises = [new_noise(micro_model, option, seed) for seed, option in enumerate(options)]
    takes = drive(new_step(micro_model, 4), prompts, noises, 12, 96)
    assert takes == [
        single(micro_model, rows, 12, option, seed)
        for seed, (rows, option) in enumerate(zip(prompts, options, strict=True))
    ]


@pytest.mark.parametrize("top_k", [1, 50, NOISE_WIDTH, NOISE_WIDTH + 1, 5000])
def test_any_top_k_fits_into_the_noise(top_k: int, micro_model: CSM) -> None:
    option, rows = SamplingOptions(top_k=top_k), micro_prompt(3)
    [frames] = drive(new_step(micro_model, 1), [rows], [new_noise(micro_model, option, 4)], 6, 96)
    assert frames == single(micro_model, rows, 6, option, 4)


def test_a_row_is_not_disturbed_by_what_its_cache_held_before(micro_model: CSM) -> None:
    step = new_step(micro_model, 2)
    long, short = micro_prompt(40), micro_prompt(3)
    drive(step, [long, long], [new_noise(micro_model, GREEDY, 0)] * 2, 20, 96)
    takes = drive(step, [short, long], [new_noise(micro_model, GREEDY, 0)] * 2, 8, 96)
    assert takes == [single(micro_model, rows, 8, GREEDY) for rows in (short, long)]


def test_hidden_states_of_a_ragged_step_equal_single_passes(golden_model: CSM) -> None:
    generator = torch.Generator().manual_seed(3)
    lengths, d = (5, 1, 17), golden_model.config.backbone.dim
    cache = golden_model.new_backbone_cache(batch_size=3)
    inputs = [torch.randn(n, d, generator=generator) for n in lengths]
    for row, x in enumerate(inputs):
        if len(x) > 1:
            golden_model.run_backbone(x[:-1], cache.slots(row), 0)
    last = torch.stack([x[-1] for x in inputs]).unsqueeze(1)
    positions = torch.tensor([n - 1 for n in lengths])
    got = golden_model.backbone.step(last, cache, positions, 17)[:, 0]
    for row, x in enumerate(inputs):
        alone = golden_model.new_backbone_cache()
        expected = golden_model.run_backbone(x, alone, 0)
        assert (got[row] - expected).abs().max() <= RELATIVE_TOLERANCE * expected.abs().max()
        written = cache.slots(row).data[..., : len(x), :]
        torch.testing.assert_close(written, alone.data[..., : len(x), :], rtol=1e-4, atol=1e-5)
        assert not cache.slots(row).data[..., len(x) :, :].any()


def test_the_flag_says_which_rows_are_all_zero(micro_model: CSM, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 7], [5, 0, 0, 0]])
    monkeypatch.setattr(micro_model, "make_frames", lambda *_: frames)
    step = new_step(micro_model, 3)
    step.draw([0, 1, 2])
    assert step.out[:, -1].tolist() == [1, 0, 0]
    assert step.codes.tolist() == frames.tolist()


@EVENLY
def test_a_frame_is_made_without_reading_anything_back(run: Any, micro_model: CSM) -> None:
    step = new_step(micro_model, 2, run)
    with ReadBacks() as read_backs:
        step.positions.fill_(7)
        step.advance([0, 1], 96)
        step.draw([0, 1])
    assert read_backs.names == []


def test_a_frame_leaves_every_buffer_where_it_is(micro_model: CSM) -> None:
    """A recorded graph has their addresses in it."""
    step = new_step(micro_model, 2)

    def addresses() -> list[int]:
        tensors = (step.out, step.positions, step.hidden, step.noise, step.temperature, step.cache.data)
        return [tensor.data_ptr() for tensor in tensors]

    before = addresses()
    drive(step, [micro_prompt(3)] * 2, [new_noise(micro_model, GREEDY, 0)] * 2, 3, 96)
    assert addresses() == before


def test_wider_noise_keeps_what_the_rows_have(micro_model: CSM) -> None:
    step = new_step(micro_model, 1)
    step.set_options(0, SamplingOptions())
    step.set_noise(0, torch.full((4, 50), 2.0))
    assert step.fit(200)
    assert not step.fit(200)
    assert step.noise.shape == (1, 4, 256)
    assert bool((step.noise[0, :, :50] == 2.0).all())
    assert bool(step.noise[0, :, 50:].isinf().all())


@pytest.mark.parametrize(
    ("n_positions", "expected"),
    [(2048, (256, 512, 1024, 2048)), (96, (96,)), (256, (256,)), (300, (256, 300))],
)
def test_buckets_double_up_to_all_positions(n_positions: int, expected: tuple[int, ...]) -> None:
    assert buckets(n_positions) == expected


def test_all_layers_are_compiled_once(golden_model: CSM, golden_cases: list[Any]) -> None:
    """Otherwise torch would give up at its limit, and go on uncompiled without a word."""
    import torch._dynamo
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(step_layer, backend=counter, dynamic=False, fullgraph=True)
    case = golden_cases[1]
    step = new_step(golden_model, 1, compiled)
    [frames] = drive(step, [golden_prompt(case)], [new_noise(golden_model, GREEDY, 0)], 4, 256)
    assert frames == case["frames"][:4]
    n_transformers = 2
    assert golden_model.config.backbone.n_layers > 1
    assert counter.frame_count == n_transformers
    torch._dynamo.reset()


@pytest.mark.slow(reason="compiles")
def test_compiled_code_speaks_the_golden_tokens(
    golden_model: CSM, golden_cases: list[Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    torch.compiler.reset()
    case = golden_cases[2]
    step = new_step(golden_model, 1, compiled_layer(tmp_path))
    noise = new_noise(golden_model, GREEDY, 0)
    [frames] = drive(step, [golden_prompt(case)], [noise], len(case["frames"]), 256)
    assert frames == case["frames"]
    assert any((tmp_path / "compiled").iterdir())


@EVENLY
def test_attention_as_plain_arithmetic_reads_nothing_back_either(run: Any, micro_model: CSM) -> None:
    """What a GPU falls back to where none of its fused kernels takes the mask."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    step = new_step(micro_model, 2, run)
    with sdpa_kernel(SDPBackend.MATH), ReadBacks() as read_backs:
        step.positions.fill_(7)
        step.advance([0, 1], 96)
        step.draw([0, 1])
    assert read_backs.names == []
