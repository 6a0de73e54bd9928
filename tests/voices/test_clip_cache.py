from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from csm_repl.paths import default_cache_dir, unfinished_path
from csm_repl.voices.cache import CachedCodes, CachedWords, ClipCache, WhisperNote, content_digest

CODES = torch.arange(12).reshape(3, 4)
ENTRY = CachedCodes(CODES, 1.0, 1.5)
NOTE = WhisperNote("d", "Grüße", True)


def cache(root: Path | None, *, preparation: str = "p", codec_id: str = "c") -> ClipCache:
    return ClipCache(root, preparation=preparation, codec_id=codec_id)


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


def test_the_default_is_the_users_cache_folder() -> None:
    assert default_cache_dir().name == "csm-repl"


def test_the_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert content_digest(tmp_path / "a").startswith("ba7816bf")


@pytest.mark.parametrize("largest", [2_047, 2_000_000])
def test_codes_come_back(tmp_path: Path, largest: int) -> None:
    codes = torch.tensor([[0, largest]])
    cache(tmp_path).store_codes("d", CachedCodes(codes, 1.25, 2.5))
    got = cache(tmp_path).codes("d")
    assert got is not None
    assert got.codes.dtype == torch.int64
    assert torch.equal(got.codes, codes)
    assert (got.seconds, got.recorded_s) == (1.25, 2.5)


def test_another_content_preparation_or_codec_is_another_entry(tmp_path: Path) -> None:
    cache(tmp_path).store_codes("d", ENTRY)
    assert cache(tmp_path).codes("e") is None
    assert cache(tmp_path).codes("d", is_start=True) is None
    assert cache(tmp_path, preparation="q").codes("d") is None
    assert cache(tmp_path, codec_id="x").codes("d") is None


def test_transcripts_are_kept_by_model_and_notes_by_path(tmp_path: Path) -> None:
    one = cache(tmp_path)
    one.store_words("d", "base", CachedWords("Grüße"))
    one.store_words("e", "base", CachedWords("", "It is noise.", "Speak."))
    one.store_note(tmp_path / "a.txt", NOTE)
    other = cache(tmp_path)
    assert other.words("d", "base") == CachedWords("Grüße")
    assert other.words("e", "base") == CachedWords("", "It is noise.", "Speak.")
    assert other.words("d", "turbo") is None
    assert other.note(tmp_path / "a.txt") == NOTE
    assert other.note(tmp_path / "b.txt") is None


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other"])
def test_a_damaged_entry_counts_as_missing_and_is_written_again(tmp_path: Path, damage: str) -> None:
    one = cache(tmp_path)

    def store() -> None:
        one.store_codes("d", ENTRY)
        one.store_words("d", "base", CachedWords("Hello"))
        one.store_note(Path("a.txt"), NOTE)

    store()
    for path in files(tmp_path):
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        changed = {"empty": b"", "cut": data[:middle], "other": b"\xff[]"}
        if damage == "flipped":
            data = bytearray(byte ^ 0xFF for byte in data)
        path.write_bytes(changed.get(damage, data))
    other = cache(tmp_path)
    assert other.codes("d") is None
    assert other.note(Path("a.txt")) is None
    assert other.words("d", "base") is None
    store()
    assert other.codes("d") is not None
    assert other.note(Path("a.txt")) == NOTE


def test_a_flipped_bit_in_the_codes_is_noticed(tmp_path: Path) -> None:
    cache(tmp_path).store_codes("d", ENTRY)
    (path,) = files(tmp_path)
    data = path.read_bytes()
    at = data.index(CODES.numpy().astype("int16").tobytes())
    path.write_bytes(data[: at + 4] + b"\x07" + data[at + 5 :])
    assert cache(tmp_path).codes("d") is None


@pytest.mark.parametrize("codes", [torch.zeros(3), torch.zeros(2, 0), torch.full((2, 2), -1)])
def test_codes_that_cannot_be_codes_count_as_missing(tmp_path: Path, codes: torch.Tensor) -> None:
    import numpy as np

    cache(tmp_path).store_codes("d", ENTRY)
    (path,) = files(tmp_path)
    with path.open("wb") as file:
        np.savez(file, codes=codes.long().numpy(), seconds=1.0, recorded_s=1.0)
    assert cache(tmp_path).codes("d") is None


def test_no_damage_to_the_codes_is_heard_or_an_error(tmp_path: Path) -> None:
    cache(tmp_path).store_codes("d", ENTRY)
    (path,) = files(tmp_path)
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        got = cache(tmp_path).codes("d")
        assert got is None or (torch.equal(got.codes, CODES) and got.seconds == 1.0)


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    cache(tmp_path).store_codes("d", ENTRY)
    (entry,) = files(tmp_path)
    name = unfinished_path(entry.parent).name.split("-")
    left = entry.parent / "-".join([*name[:3], str(2**22 + 1), name[4]])  # no process has that number
    left.write_bytes(b"half")
    cache(tmp_path)
    assert files(tmp_path) == [entry]


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    cache(tmp_path).store_codes("d", ENTRY)
    assert files(tmp_path) == []


def test_a_cache_folder_that_cannot_be_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    one = cache(tmp_path / "file" / "cache")
    one.store_codes("d", ENTRY)
    assert one.codes("d") is None


def test_without_a_folder_only_notes_last(tmp_path: Path) -> None:
    one = cache(None)
    one.store_codes("d", ENTRY)
    one.store_note(Path("a.txt"), NOTE)
    assert one.codes("d") is None
    assert one.note(Path("a.txt")) == NOTE
