"""What tests of frames share: prompts, takes alone, slots driven by hand, and a graph without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from csm_repl.engine import Engine, SamplingOptions, TakeNoise, build_prompt
from csm_repl.engine.graphs import GraphRunner
from csm_repl.engine.slot import Slot
from csm_repl.engine.step import FrameStep
from csm_repl.model.csm import CSM
from csm_repl.model.kv_cache import KVCache

GREEDY = SamplingOptions(temperature=1.0, top_k=1)
Frames = list[list[int]]
MakeEngine = Callable[..., Engine]


class FakeGraph:
    """As a CUDA graph, but what was recorded runs again in Python, and at once."""

    def __init__(self, function: Callable[[], None]) -> None:
        function()
        self.replay = function


def recorded(model: CSM, cache: KVCache) -> GraphRunner:
    return GraphRunner(FrameStep(model, cache), FakeGraph)


def golden_prompt(case: dict[str, Any]) -> torch.Tensor:
    context = [(s["text_ids"], torch.tensor(s["codes"]).T) for s in case["context"]]
    return build_prompt(context, case["text_ids"], 32)


def micro_prompt(n_text: int, *, first: int = 30) -> torch.Tensor:
    return build_prompt([], [256, *(first + i for i in range(n_text)), 257], 4)


def new_noise(model: CSM, options: SamplingOptions, seed: int) -> TakeNoise:
    return TakeNoise(
        options,
        seed=seed,
        n_codebooks=model.config.n_codebooks,
        vocab_size=model.config.audio_vocab_size,
        device=torch.device("cpu"),
    )


def single(
    model: CSM, prompt: torch.Tensor, n: int | None, options: SamplingOptions | None = None, seed: int = 0
) -> Frames:
    """The take of a fresh engine of one slot."""
    take = Engine(model).generate(prompt, options=options, seed=seed, max_frames=n)
    return [frame.tolist() for frame in take]


def drive(
    step: FrameStep,
    prompts: list[torch.Tensor],
    noises: list[TakeNoise],
    n_frames: int,
    n_seen: int,
    slots: list[int] | None = None,
) -> list[Frames]:
    """`n_frames` of every prompt, side by side in these slots (None: the first ones), in their order."""
    slots = slots or list(range(len(prompts)))
    step.fit(max(noise.k for noise in noises))
    for slot, prompt, noise in zip(slots, prompts, noises, strict=True):
        hidden = Slot(step.model, step.cache.slots(slot)).prefill(prompt, len(prompt))
        assert hidden is not None
        step.hidden[slot].copy_(hidden)
        step.set_options(slot, noise.options)
    takes: list[Frames] = [[] for _ in prompts]
    for index in range(n_frames):
        if index:
            step.positions[slots] = torch.tensor([len(prompt) + index - 1 for prompt in prompts])
            step.advance(slots, n_seen)
        for slot, noise in zip(slots, noises, strict=True):
            if not noise.options.greedy:
                step.set_noise(slot, noise.next_exponential())
        step.draw(slots)
        for take, slot in zip(takes, slots, strict=True):
            take.append(step.codes[slot].tolist())
    return takes


class ReadBacks(TorchDispatchMode):
    """Counts what would make the host wait for a GPU: a value read, or a size that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in {"aten::_local_scalar_dense", "aten::nonzero", "aten::item", "aten::equal"}:
            self.names.append(func._schema.name)
        return func(*args, **(kwargs or {}))
