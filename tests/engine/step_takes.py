"""What the tests of the frame step share: golden prompts, read-backs, and rows driven by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from csm_repl.engine import Engine, Sampler, SamplingOptions, prompt_rows
from csm_repl.engine.slot import Slot
from csm_repl.engine.step import FrameStep
from csm_repl.model.csm import CSM

GREEDY = SamplingOptions(temperature=1.0, top_k=1)
Frames = list[list[int]]


def golden_rows(case: dict[str, Any]) -> torch.Tensor:
    context = [(s["text_ids"], torch.tensor(s["codes"]).T) for s in case["context"]]
    return prompt_rows(context, case["text_ids"], 32)


def micro_rows(n_text: int, *, first: int = 30) -> torch.Tensor:
    return prompt_rows([], [256, *(first + i for i in range(n_text)), 257], 4)


def new_sampler(model: CSM, options: SamplingOptions, seed: int) -> Sampler:
    return Sampler(
        options,
        seed=seed,
        n_codebooks=model.config.n_codebooks,
        vocab_size=model.config.audio_vocab_size,
        device=torch.device("cpu"),
    )


def single(
    model: CSM, rows: torch.Tensor, n: int | None, options: SamplingOptions | None = None, seed: int = 0
) -> Frames:
    """The take of a fresh ordinary engine."""
    take = Engine(model).generate(rows, options=options, seed=seed, max_frames=n)
    return [frame.tolist() for frame in take]


def drive(
    step: FrameStep, prompts: list[torch.Tensor], samplers: list[Sampler], n_frames: int, n_seen: int
) -> list[Frames]:
    """`n_frames` of every prompt, side by side; returns them by row."""
    n_rows = len(prompts)
    step.fit(max(sampler.k for sampler in samplers))
    for row, (prompt, sampler) in enumerate(zip(prompts, samplers, strict=True)):
        step.hidden[row].copy_(Slot(step.model, step.cache.rows(row)).prefill(prompt)[0])
        step.set_row(row, sampler.options)
    takes: list[Frames] = [[] for _ in prompts]
    for index in range(n_frames):
        if index:
            step.positions[:n_rows].copy_(torch.tensor([len(rows) + index - 1 for rows in prompts]))
            step.advance(n_seen, n_rows)
        for row, sampler in enumerate(samplers):
            if not sampler.options.greedy:
                step.set_noise(row, sampler.next_exponential())
        step.draw(n_rows)
        for row in range(n_rows):
            takes[row].append(step.codes[row].tolist())
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
