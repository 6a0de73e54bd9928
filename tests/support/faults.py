"""Plants a fault in a transformer's passes, whoever runs them: PyTorch's layers or the native kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from csm_repl.model.transformer import Transformer

__all__ = ["Fault"]


class Fault:
    """Raises once, `left` calls after that has been set; until then every call goes through."""

    def __init__(self, error: type[BaseException], left: int | None = None) -> None:
        self.error, self.left = error, left

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    self.left = None
                    raise self.error
            return function(*arguments, **named)

        return call

    def plant(
        self, patch: pytest.MonkeyPatch, transformer: Transformer, module: nn.Module, *, late: bool = False
    ) -> None:
        """Puts the fault into the calls of `module`, and into the native passes that stand in for it.

        Args:
            patch: takes it out again.
            transformer: the one that `module` is a part of.
            module: called once in each pass.
            late: a native pass has written keys and values when the fault strikes.
        """
        patch.setattr(module, "forward", self.wrap(module.forward))
        native = transformer._native
        if native is not None:
            patch.setattr(transformer, "_native", _Around(native, self, late=late))


class _Around:
    def __init__(self, native: Any, fault: Fault, *, late: bool) -> None:
        self.max_rows = native.max_rows
        after = fault.wrap(lambda out: out)
        self._run = (lambda *arguments: after(native(*arguments))) if late else fault.wrap(native)

    def __call__(self, *arguments: Any) -> Any:
        return self._run(*arguments)
