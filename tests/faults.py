"""Plants a fault in a transformer's passes, whoever runs them: PyTorch's layers or the native kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from csm_repl.model.transformer import Transformer

__all__ = ["plant"]

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


def plant(
    patch: pytest.MonkeyPatch, transformer: Transformer, module: nn.Module, wrap: Wrap, *, late: bool = False
) -> None:
    """Puts `wrap` around the calls of `module`, and around the native passes that stand in for it.

    Args:
        patch: takes it out again.
        transformer: the one that `module` is a part of.
        module: called once in each pass.
        wrap: makes a function that may raise of a function.
        late: a native pass has written keys and values when the fault strikes.
    """
    patch.setattr(module, "forward", wrap(module.forward))
    native = transformer._native
    if native is None:
        return

    class Around:
        max_rows = native.max_rows
        _run = staticmethod((lambda *a: wrap_late(native(*a))) if late else wrap(native))

        def __call__(self, *arguments: Any) -> Any:
            return self._run(*arguments)

    wrap_late = wrap(lambda out: out)
    patch.setattr(transformer, "_native", Around())
