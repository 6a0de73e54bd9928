"""Converted weights on disk: the second load is the same and faster, and no fault of the cache matters."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from csm_repl import paths
from csm_repl.errors import CheckpointError
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.csm import CSM
from csm_repl.model.weights import weight_cache
from csm_repl.model.weights.convert import load_csm
from tests.support.weight_files import Conversions, assert_equal, files, mapped_from

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def _small_models_are_cached_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_cache, "_MIN_BYTES", 0)
    monkeypatch.setattr(weight_cache, "_SPARE_BYTES", 0)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> Conversions:
    return Conversions(monkeypatch)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def load(folder: Path, cache: Path | None, dtype: torch.dtype = torch.float32) -> CSM:
    return load_csm(find_checkpoint(folder), device=torch.device("cpu"), dtype=dtype, cache_dir=cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_second_load_converts_nothing_and_is_identical(
    folder: Path, cache: Path, conversions: Conversions, dtype: torch.dtype
) -> None:
    first = load(folder, cache, dtype)
    second = load(folder, cache, dtype)
    assert conversions.n == 1
    assert_equal(first, second)


def test_the_second_load_maps_the_cached_file(folder: Path, cache: Path) -> None:
    load(folder, cache)
    model = load(folder, cache)
    (path,) = files(cache)
    assert mapped_from(model, path) == {name for name, _ in model.named_parameters()}


def test_mapped_parameters_start_at_cache_lines(folder: Path, cache: Path) -> None:
    load(folder, cache)
    sizes = {True: 0, False: 0}
    for _, tensor in load(folder, cache).named_parameters():
        is_whole = tensor.nbytes % 64 == 0
        assert tensor.data_ptr() % 64 == 0 or not is_whole
        sizes[is_whole] += 1
    assert sizes[True] > 10


@pytest.mark.parametrize("n_odd", range(4))
def test_a_written_file_is_safetensors_whatever_the_sizes(tmp_path: Path, n_odd: int) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    dtypes = (torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.uint8)
    state = {f"odd{i}": torch.arange(i + 1, dtype=dtypes[i]) for i in range(n_odd)}
    state |= {f"even{i}": torch.full((4, 64), i, dtype=dtype) for i, dtype in enumerate(dtypes)}
    state["turned"] = torch.arange(128.0).view(2, 64).t()
    weight_cache.write_safetensors(state, tmp_path / "w.safetensors")
    found = load_file(tmp_path / "w.safetensors")
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with safe_open(tmp_path / "w.safetensors", framework="pt") as handle:
        assert set(handle.keys()) == state.keys()


def test_without_a_cache_folder_nothing_is_written(folder: Path, cache: Path) -> None:
    load(folder, None)
    assert not cache.exists()


def test_small_models_are_not_cached(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    load(folder, cache)
    assert not cache.exists()


def test_each_dtype_has_a_file_of_its_own(folder: Path, cache: Path, conversions: Conversions) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float32, torch.bfloat16):
        assert load(folder, cache, dtype).dtype == dtype
    assert (conversions.n, len(files(cache))) == (2, 2)


def test_two_models_do_not_evict_each_other(
    folder: Path, cache: Path, conversions: Conversions, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for path in (folder, other, folder, other):
        load(path, cache)
    assert conversions.n == 2


def test_a_changed_file_is_converted_again(folder: Path, cache: Path, conversions: Conversions) -> None:
    load(folder, cache)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-2:] = b"\x80\x3f"
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    changed = load(folder, cache)
    assert conversions.n == 2
    assert_equal(changed, load(folder, None))


def test_the_file_of_an_older_state_is_removed(folder: Path, cache: Path) -> None:
    load(folder, cache)
    (before,) = files(cache)
    os.utime(folder / "model.safetensors", ns=(1, 1))
    load(folder, cache)
    (after,) = files(cache)
    assert before != after


def test_a_changed_config_is_converted_again(folder: Path, cache: Path, conversions: Conversions) -> None:
    load(folder, cache)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"max_seq_len": 96', '"max_seq_len": 64'))
    assert load(folder, cache).config.max_positions == 64
    assert conversions.n == 2


@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_truncated_cache_file_is_ignored_and_replaced(
    folder: Path, cache: Path, conversions: Conversions, kept: int
) -> None:
    first = load(folder, cache)
    (path,) = files(cache)
    path.write_bytes(path.read_bytes()[:kept])
    assert_equal(first, load(folder, cache))
    load(folder, cache)
    assert conversions.n == 2


def test_a_cache_file_with_other_tensors_is_ignored(
    folder: Path, cache: Path, conversions: Conversions
) -> None:
    from safetensors.torch import save_file

    first = load(folder, cache)
    (path,) = files(cache)
    save_file({"projection.weight": torch.zeros(2, 2)}, path)
    assert_equal(first, load(folder, cache))
    assert conversions.n == 2


def test_a_full_disk_is_harmless(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 100, 0))
    assert_equal(load(folder, cache), load(folder, None))
    assert files(cache) == []


def test_a_disk_that_fills_while_writing_is_harmless(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(state: object, path: Path) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weight_cache, "write_safetensors", fail)
    assert_equal(load(folder, cache), load(folder, None))
    assert files(cache) == []


def test_a_cache_folder_that_cannot_be_made_is_harmless(folder: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert_equal(load(folder, cache), load(folder, None))


def test_a_broken_checkpoint_is_not_cached(folder: Path, cache: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError):
        load(folder, cache)
    assert not cache.exists()


def test_a_damaged_file_is_made_again_and_that_is_said(
    folder: Path, cache: Path, conversions: Conversions
) -> None:
    first = load(folder, cache)
    (path,) = files(cache)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(content)
    said: list[str] = []
    again = load_csm(
        find_checkpoint(folder),
        device=torch.device("cpu"),
        dtype=torch.float32,
        cache_dir=cache,
        say=said.append,
    )
    assert_equal(first, again)
    assert len(said) == 1
    assert "damaged" in said[0]
    load(folder, cache)
    assert conversions.n == 2


@pytest.mark.parametrize("at", range(0, 40, 3))
def test_no_changed_byte_passes_the_checksum(at: int) -> None:
    tensor = torch.arange(41, dtype=torch.uint8)
    changed = tensor.clone()
    changed[at] += 1
    assert weight_cache._checksum(tensor) != weight_cache._checksum(changed)


def test_what_a_killed_process_left_is_cleared_away(folder: Path, cache: Path) -> None:
    load(folder, cache)
    (path,) = files(cache)
    left = paths.unfinished_path(path.parent)
    dead = left.with_name(left.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))
    dead.write_bytes(b"gigabytes")
    load(folder, cache)
    assert files(cache) == [path]
    assert not dead.exists()
