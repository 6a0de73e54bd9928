"""Stages in a chain: fed in pieces they give what they give of the whole."""

from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.loaded import LoadedModel
from csm_repl.speech import Stage
from csm_repl.speech.stages import StageChain
from csm_repl.speech.tail import TailTrimmer
from tests.support.speaking import Room, Script, alike, sounds


class Gain:
    """Hands everything on at once."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        return self.factor * samples

    def finish(self) -> torch.Tensor:
        return torch.zeros(0)


class Smooth:
    """The mean of each sample and those behind it: it must hold some back, and adds nothing."""

    def __init__(self, n: int) -> None:
        self.n, self.held = n, torch.zeros(0)

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        self.held = torch.cat([self.held, samples])
        n_ready = max(0, len(self.held) - self.n + 1)
        out = self.held.unfold(0, self.n, 1).double().mean(1).float() if n_ready else torch.zeros(0)
        self.held = self.held[n_ready:]
        return out

    def finish(self) -> torch.Tensor:
        rest, self.held = self.held, torch.zeros(0)
        return torch.stack([rest[i:].mean() for i in range(len(rest))]) if len(rest) else rest


class Blocks:
    """Works on whole blocks, as a Fourier transform would; the last one is short."""

    def __init__(self, n: int) -> None:
        self.n, self.held = n, torch.zeros(0)

    def push(self, samples: torch.Tensor) -> torch.Tensor:
        self.held = torch.cat([self.held, samples])
        n_whole = len(self.held) // self.n * self.n
        out, self.held = self.held[:n_whole], self.held[n_whole:]
        return out.view(-1, self.n).flip(1).reshape(-1)

    def finish(self) -> torch.Tensor:
        rest, self.held = self.held, torch.zeros(0)
        return rest.flip(0)


makers = st.sampled_from(
    [
        lambda: Gain(0.5), lambda: Gain(-2.0), lambda: Smooth(1), lambda: Smooth(7),
        lambda: Blocks(5), lambda: Blocks(64), lambda: TailTrimmer(100),
    ]
)  # fmt: skip


def through(makers: list[Callable[[], Stage]], pieces: list[torch.Tensor]) -> torch.Tensor:
    chain = StageChain([make() for make in makers])
    return torch.cat([*(chain.push(piece) for piece in pieces), chain.finish()])


@given(st.lists(makers, max_size=4), st.lists(st.integers(0, 40), max_size=8), st.integers(0, 9))
def test_any_chain_gives_streamed_what_it_gives_of_the_whole(
    chosen: list[Callable[[], Stage]], sizes: list[int], seed: int
) -> None:
    whole = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(through(chosen, list(whole.split(sizes))), through(chosen, [whole]))


@given(st.lists(makers, max_size=4), st.integers(0, 150))
def test_a_chain_is_its_stages_one_after_the_other(chosen: list[Callable[[], Stage]], n: int) -> None:
    samples = torch.randn(n, generator=torch.Generator().manual_seed(n))
    expected = samples
    for make in chosen:
        stage = make()
        expected = torch.cat([stage.push(expected), stage.finish()])
    torch.testing.assert_close(through(chosen, [samples]), expected)


def test_a_turn_goes_through_its_stages_in_order_each_made_for_it_at_the_codecs_rate(
    quick: LoadedModel,
) -> None:
    rates: list[int] = []

    def halve(rate: int) -> Stage:
        rates.append(rate)
        return Gain(0.5)

    def smooth(rate: int) -> Stage:
        rates.append(rate)
        return Smooth(100)

    room = Room(quick, 2)
    plain, staged = Script("Hello.", 1), Script("Hello.", 1, stages=(halve, smooth, halve))
    turns = [room.submit(script) for script in (plain, staged, staged)]
    room.finish()
    assert rates == [quick.codec.sample_rate] * 6
    raw, first, second = (room.result(turn) for turn in turns)
    alike(first, second)
    whole = through([lambda: Gain(0.25), lambda: Smooth(100)], [raw.samples])
    torch.testing.assert_close(first.samples, whole, rtol=0, atol=1e-4)
    torch.testing.assert_close(sounds(room.events[turns[1]]), first.samples, rtol=0, atol=0)
