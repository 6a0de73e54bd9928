"""How often weights are converted, what they share with files, and whether two models have the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from csm_repl.model.csm import CSM
from csm_repl.model.weights import convert as checkpoint_module


class Conversions:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        convert = checkpoint_module._convert

        def counted(*args: object, **kwargs: object) -> object:
            self.n += 1
            return convert(*args, **kwargs)

        monkeypatch.setattr(checkpoint_module, "_convert", counted)


def files(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file())


def assert_equal(first: CSM, second: CSM) -> None:
    theirs = dict(second.named_parameters())
    assert theirs.keys() == dict(first.named_parameters()).keys()
    for name, tensor in first.named_parameters():
        assert theirs[name].dtype == tensor.dtype
        assert torch.equal(theirs[name], tensor), name


def mapped_ranges(path: Path) -> list[tuple[int, int]]:
    """Where a file is mapped into this process."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux says what is mapped where")
    lines = (line.split() for line in maps.read_text().splitlines())
    ends = (words[0].split("-") for words in lines if words[-1] == str(path.resolve()))
    return [(int(low, 16), int(high, 16)) for low, high in ends]


def mapped_from(model: CSM, path: Path) -> set[str]:
    """The parameters whose memory is the file's."""
    ranges = mapped_ranges(path)
    return {
        name
        for name, tensor in model.named_parameters()
        if any(low <= tensor.data_ptr() < high for low, high in ranges)
    }
