"""AdamW over what is trainable, and a running average of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from csm_repl.train.options import TrainOptions

__all__ = ["WeightEma", "new_optimiser", "trainable"]


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, of all that is trained."""
    return {name: value for name, value in network.named_parameters() if value.requires_grad}


def new_optimiser(network: nn.Module, options: TrainOptions) -> torch.optim.AdamW:
    """Matrices decay; norms do not, and neither do embeddings, whose rare entries would only shrink."""
    decays: list[nn.Parameter] = []
    stays: list[nn.Parameter] = []
    for name, parameter in trainable(network).items():
        fixed = parameter.ndim == 1 or name.endswith("embeddings.weight")
        (stays if fixed else decays).append(parameter)
    groups = [
        {"params": decays, "weight_decay": options.weight_decay},
        {"params": stays, "weight_decay": 0.0},
    ]
    fused = {parameter.device.type for parameter in decays + stays} <= {"cpu", "cuda"}
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=options.betas, fused=fused)


class WeightEma:
    """Exponential moving average of the trained parameters. It starts fast, so that the initial weights
    are soon forgotten: the decay at step n is at most (1 + n) / (10 + n)."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._live = trainable(network)
        self._decay = decay
        self.values = {name: value.detach().clone() for name, value in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(
            list(self.values.values()), [value.detach() for value in self._live.values()], 1 - decay
        )

    def load(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in self.values.items():
            value.copy_(values[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the averaged weights while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, value in self._live.items():
            # The tensors change places; nothing is copied.
            value.data, self.values[name] = self.values[name], value.data
