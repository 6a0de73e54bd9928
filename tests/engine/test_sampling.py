"""Codes are drawn from softmax(logits / T) over the top k, by a seed of their own."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.engine import Engine, SamplingOptions, TakeNoise, build_prompt
from csm_repl.engine.sampling import gumbel, pick_codes
from csm_repl.model.csm import CSM

VOCAB = 40
LOGITS = torch.randn(VOCAB, generator=torch.Generator().manual_seed(4)) * 1.5
CHI_SQUARE_999 = {9: 27.88, 39: 72.05, 81: 126.08}
"""0.999 quantile by degrees of freedom (seeds are fixed: a run either always passes or never)."""


class Draws:
    """Codes drawn from logits [V], frame by frame, with the noise of one seed."""

    def __init__(
        self, temperature: float = 1.0, top_k: int = VOCAB, *, seed: int = 0, n_codebooks: int = 1
    ) -> None:
        options = SamplingOptions(temperature, top_k)
        self._noise = TakeNoise(
            options, seed=seed, n_codebooks=n_codebooks, vocab_size=VOCAB, device=torch.device("cpu")
        )
        # As the step's buffers hold them.
        self._temperature = torch.tensor([0.0 if options.greedy else temperature])

    def next_frame(self) -> None:
        self._gumbel = gumbel(self._noise.next_exponential()[None], self._temperature)

    def pick(self, logits: torch.Tensor, codebook: int) -> int:
        return int(pick_codes(logits[None], self._gumbel[:, codebook]))


def draws(source: Draws, n: int, logits: torch.Tensor = LOGITS) -> list[int]:
    codes = []
    for _ in range(n):
        source.next_frame()
        codes.append(source.pick(logits, 0))
    return codes


def chi_square(observed: Counter[int], expected: dict[int, float]) -> float:
    assert set(observed) <= set(expected)
    return sum((observed[code] - n) ** 2 / n for code, n in expected.items())


@pytest.mark.parametrize(
    ("temperature", "top_k"), [(1.0, VOCAB), (0.9, 10), (0.7, 10), (2.0, VOCAB), (1.0, 1000)]
)
def test_frequencies_are_those_of_softmax_over_the_top_k(temperature: float, top_k: int) -> None:
    n = 12_000
    kept = min(top_k, VOCAB)
    top = LOGITS.topk(kept)
    probabilities = (top.values / temperature).softmax(0)
    expected = {int(code): n * float(p) for code, p in zip(top.indices, probabilities, strict=True)}
    observed = Counter(draws(Draws(temperature, top_k, seed=11), n))
    assert chi_square(observed, expected) < CHI_SQUARE_999[kept - 1]


def test_codebooks_of_one_frame_are_drawn_independently() -> None:
    n, source = 12_000, Draws(top_k=10, seed=5, n_codebooks=2)
    rank = {int(code): i for i, code in enumerate(LOGITS.topk(10).indices)}
    pairs: Counter[tuple[int, int]] = Counter()
    for _ in range(n):
        source.next_frame()
        pairs[rank[source.pick(LOGITS, 0)], rank[source.pick(LOGITS, 1)]] += 1
    first = [sum(pairs[i, j] for j in range(10)) for i in range(10)]
    second = [sum(pairs[i, j] for i in range(10)) for j in range(10)]
    statistic = sum(
        (pairs[i, j] - first[i] * second[j] / n) ** 2 / (first[i] * second[j] / n)
        for i in range(10)
        for j in range(10)
    )
    assert statistic < CHI_SQUARE_999[81]


def test_successive_frames_are_drawn_independently() -> None:
    n, source = 12_000, Draws(top_k=10, seed=6)
    rank = {int(code): i for i, code in enumerate(LOGITS.topk(10).indices)}
    codes = [rank[code] for code in draws(source, n + 1)]
    pairs = Counter(itertools.pairwise(codes))
    share = [codes[:-1].count(i) / n for i in range(10)]
    expected = {(i, j): n * share[i] * share[j] for i in range(10) for j in range(10)}
    assert sum((pairs[key] - e) ** 2 / e for key, e in expected.items()) < CHI_SQUARE_999[81]


@pytest.mark.parametrize(("temperature", "top_k"), [(0.0, 50), (0.9, 1), (0.0, 1)])
def test_top_k_one_and_temperature_zero_are_greedy(temperature: float, top_k: int) -> None:
    assert set(draws(Draws(temperature, top_k), 50)) == {int(LOGITS.argmax())}


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=VOCAB, max_size=VOCAB),
    top_k=st.integers(1, VOCAB + 10),
    temperature=st.floats(0.01, 5.0),
    seed=st.integers(0, 2**63 - 1),
)
def test_no_code_outside_the_top_k_is_drawn(
    logits: list[float], top_k: int, temperature: float, seed: int
) -> None:
    values = torch.tensor(logits)
    least = values.topk(min(top_k, VOCAB)).values[-1]
    for code in draws(Draws(temperature, top_k, seed=seed), 5, values):
        assert values[code] >= least


def test_bf16_logits_are_drawn_as_their_float32_values() -> None:
    assert draws(Draws(seed=1), 200, LOGITS.bfloat16()) == draws(
        Draws(seed=1), 200, LOGITS.bfloat16().float()
    )


def test_a_code_has_no_noise_of_an_earlier_frame() -> None:
    source = Draws(seed=2)
    source.next_frame()
    one = [source.pick(torch.zeros(VOCAB), 0) for _ in range(3)]
    source.next_frame()
    assert len(set(one)) == 1
    assert source.pick(torch.zeros(VOCAB), 0) != one[0]


@pytest.mark.parametrize(("temperature", "top_k"), [(-0.1, 50), (float("nan"), 50), (1.0, 0), (1.0, -3)])
def test_options_that_make_no_sense_are_refused(temperature: float, top_k: int) -> None:
    with pytest.raises(ValueError, match=r"temperature|top_k"):
        SamplingOptions(temperature, top_k)


# Takes.

PROMPT = build_prompt([], [256, 72, 105, 257], 4)


def take(model: CSM, seed: int, engine: Engine | None = None) -> list[list[int]]:
    engine = engine or Engine(model)
    return [frame.tolist() for frame in engine.generate(PROMPT, seed=seed, max_frames=12)]


def test_the_same_seed_gives_the_same_codes(micro_model: CSM) -> None:
    assert take(micro_model, 1234) == take(micro_model, 1234)


def test_the_same_seed_gives_the_same_codes_on_a_used_engine(micro_model: CSM) -> None:
    engine = Engine(micro_model)
    first = take(micro_model, 1234, engine)
    take(micro_model, 99, engine)
    assert take(micro_model, 1234, engine) == first


def test_another_seed_gives_other_codes(micro_model: CSM) -> None:
    assert len({str(take(micro_model, seed)) for seed in range(8)}) == 8


def test_the_largest_seed_works(micro_model: CSM) -> None:
    assert len(take(micro_model, 2**63 - 1)) == 12


def test_the_global_random_state_is_untouched(micro_model: CSM) -> None:
    before = torch.get_rng_state()
    take(micro_model, 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_random_state_has_no_influence(micro_model: CSM) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        first = take(micro_model, 7)
        torch.manual_seed(2)
        assert take(micro_model, 7) == first


def test_noise_goes_on_where_an_earlier_take_stopped(micro_model: CSM) -> None:
    whole = take(micro_model, 5)
    engine = Engine(micro_model)
    begun = engine.generate(PROMPT, seed=5, max_frames=5)
    codes = torch.stack(list(begun), 1)
    rest = engine.generate(
        build_prompt([], [256, 72, 105, 257], 4, begun=codes), noise=begun.noise, max_frames=7
    )
    assert codes.T.tolist() + [frame.tolist() for frame in rest] == whole
