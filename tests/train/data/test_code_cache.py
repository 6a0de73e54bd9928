"""Shards of codes: what goes in comes out, and damage is a miss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.train.data.code_cache import SHARD_CLIPS, CodeCache
from tests.support.leftovers import leave_behind


def opened(root: Path | None, *, codec_id: str = "fake", preparation: str = "plain") -> CodeCache:
    return CodeCache(root, preparation=preparation, codec_id=codec_id, n_codebooks=2)


def digest(number: int) -> str:
    return f"{number:064x}"


def codes(n_frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 2**15, (2, n_frames), generator=torch.Generator().manual_seed(seed))


def shards(root: Path) -> list[Path]:
    return sorted(root.rglob("*.npz"))


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12))
def test_codes_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    root = tmp_path_factory.mktemp("cache")
    cache = opened(root)
    for number, length in enumerate(lengths):
        cache.put(digest(number), codes(length, number))
    cache.flush()
    again = opened(root)
    for number, length in enumerate(lengths):
        for found in (cache.get(digest(number)), again.get(digest(number))):
            assert found is not None
            assert found.dtype == torch.int16
            assert torch.equal(found.long(), codes(length, number))
    assert len(shards(root)) == 1


def test_a_stamp_leads_to_the_content_it_stood_for(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put(digest(1), codes(3))
    cache.remember("a.wav 12:00", digest(1))
    cache.remember("b.wav 12:00", digest(1))
    cache.remember(None, digest(1))
    cache.flush()
    again = opened(tmp_path)
    assert again.digest_of("a.wav 12:00") == again.digest_of("b.wav 12:00") == digest(1)
    assert again.digest_of("a.wav 12:01") is None
    assert again.digest_of(None) is None


def test_another_codec_or_preparation_knows_nothing(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put(digest(1), codes(3))
    cache.flush()
    assert digest(1) not in opened(tmp_path, codec_id="other")
    assert digest(1) not in opened(tmp_path, preparation="other")
    assert digest(1) in opened(tmp_path)


def test_a_full_shard_is_written_without_being_asked(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    for number in range(SHARD_CLIPS):
        cache.put(digest(number), codes(2))
    assert len(shards(tmp_path)) == 1
    assert sum(digest(number) in opened(tmp_path) for number in range(1, SHARD_CLIPS)) == SHARD_CLIPS - 1


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put(digest(1), codes(3))
    cache.remember("a.wav", digest(1))
    cache.flush()
    again = opened(tmp_path)
    again.remember("a.wav", digest(1))
    again.flush()
    assert len(shards(tmp_path)) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_shard_is_a_miss_and_is_made_again(tmp_path: Path, damage: str) -> None:
    cache = opened(tmp_path)
    cache.put(digest(1), codes(300))
    cache.flush()
    [path] = shards(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0x10
    path.write_bytes({"cut": bytes(data[:-100]), "empty": b"", "foreign": b"PK nonsense"}.get(damage, data))
    again = opened(tmp_path)
    assert again.get(digest(1)) is None
    assert digest(1) not in again
    again.put(digest(1), codes(300))
    again.flush()
    # Whatever the shards' names, which decide the order in which they are read.
    for name in ("0.npz", "z.npz"):
        shards(tmp_path)[-1].rename(shards(tmp_path)[-1].with_name(name))
        found = opened(tmp_path).get(digest(1))
        assert found is not None
        assert torch.equal(found.long(), codes(300))


def test_no_flipped_bit_gives_other_codes_or_an_error(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put(digest(1), codes(3))
    cache.remember("a.wav", digest(1))
    cache.flush()
    [path] = shards(tmp_path)
    data = path.read_bytes()
    n_missed = 0
    # Each byte's turn would take seconds. The zip's directory, of which zipfile checks little, is at its end.
    for at in (*range(0, len(data), 37), *range(len(data) - 400, len(data), 3)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        again = opened(tmp_path)
        assert again.digest_of("a.wav") in (None, digest(1))
        found = again.get(digest(1))
        assert found is None or torch.equal(found.long(), codes(3))
        n_missed += found is None
    assert n_missed > 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": np.zeros((1, 31), np.uint8)},
        {"keys": np.zeros((2, 32), np.uint8)},
        {"n_frames": np.array([4], np.int32)},
        {"n_frames": np.array([-3], np.int32)},
        {"n_frames": np.array([3.0])},
        {"codes": np.zeros((2, 3), np.int16)},
        {"codes": np.full(6, -1, np.int16)},
        {"codes": np.zeros(6, np.int64)},
        {"stamps": np.zeros((1, 32), np.uint8)},
    ],
    ids=lambda wrong: " ".join(f"{name} {value.dtype}{value.shape}" for name, value in wrong.items()),
)
def test_a_shard_of_another_shape_is_a_miss(wrong: dict[str, Any], tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put(digest(1), codes(3))
    cache.flush()
    [path] = shards(tmp_path)
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, **wrong})
    assert opened(tmp_path).get(digest(1)) is None


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put(digest(1), codes(3))
    cache.flush()
    folder = shards(tmp_path)[0].parent
    left = leave_behind(folder)
    opened(tmp_path)
    assert not left.exists()
    assert len(list(folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_told_and_the_codes_are_there_all_the_same(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    cache = opened(tmp_path / "file" / "cache")
    cache.put(digest(1), codes(3))
    cache.flush()
    assert cache.problem is not None
    assert "is no folder" in cache.problem.cause
    assert cache.get(digest(1)) is not None


def test_without_a_folder_it_lives_in_memory() -> None:
    cache = opened(None)
    cache.put(digest(1), codes(3))
    cache.flush()
    assert cache.get(digest(1)) is not None
    assert cache.problem is None


@pytest.mark.parametrize("bad", [torch.full((2, 3), 2**15), torch.full((2, 3), -1), torch.ones(3, 3).long()])
def test_codes_that_do_not_fit_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="cannot be kept"):
        opened(None).put(digest(1), bad)
