"""What TensorBoard gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from csm_repl.errors import UsageError
from tests.support.train_events import evaluated, step


class FakeWriter:
    """Keeps what it is told."""

    def __init__(self, folder: str, purge_step: int) -> None:
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, {}, False
        FakeWriter.last = self

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name, step] = value

    def close(self) -> None:
        self.closed = True


def test_tensorboard_gets_both_curves_under_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    from csm_repl.train.report.tensorboard import TensorBoardWriter

    board = TensorBoardWriter(tmp_path)
    board.add(step(7))
    board.add(evaluated(7))
    board.close()
    writer = FakeWriter.last
    assert writer.purge_step == 7  # steps from here on are done again
    assert writer.scalars["training/loss", 7] == 3.0
    assert writer.scalars["held_out/loss", 7] == 3.5
    assert writer.closed


def test_without_tensorboard_the_command_to_install_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    from csm_repl.train.report.tensorboard import TensorBoardWriter

    with pytest.raises(UsageError, match="pip install tensorboard"):
        TensorBoardWriter(tmp_path)
