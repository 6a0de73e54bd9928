"""Mimi behind our interface against moshi's own model, whole and streamed."""

from __future__ import annotations

import contextlib
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from csm_repl.codec import MimiCodec, chunk_sizes, load_codec
from tools.random_checkpoint import random_mimi_state

CPU = torch.device("cpu")
TOLERANCE = 1e-4
"""Of samples whose scale is one: a stream sums in another order than a whole clip."""


@pytest.fixture(scope="module")
def codec(tiny_checkpoint: Path) -> Any:
    folder = tiny_checkpoint
    return load_codec(folder / "mimi.safetensors", folder / "codec.json", n_codebooks=32, device=CPU)


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> Any:
    """moshi's model, loaded by moshi."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from moshi.models import loaders
    config = json.loads((tiny_checkpoint / "codec.json").read_text())["config"]
    return loaders.get_mimi(tiny_checkpoint / "mimi.safetensors", config, device="cpu", num_codebooks=32)


def noise(n: int, seed: int = 0) -> torch.Tensor:
    return 0.3 * torch.randn(n, generator=torch.Generator().manual_seed(seed))


def codes(n_frames: int, seed: int = 0, n_codebooks: int = 32) -> torch.Tensor:
    return torch.randint(0, 2048, (n_codebooks, n_frames), generator=torch.Generator().manual_seed(seed))


def streamed(codec: Any, whole: torch.Tensor, sizes: list[int]) -> torch.Tensor:
    with codec.stream() as stream:
        pieces = [stream.push(piece) for piece in whole.split(sizes, dim=1)]
        return torch.cat([*pieces, stream.flush()])


@pytest.mark.parametrize("n_samples", [1, 1919, 1920, 1921, 24_000])
def test_encoding_a_clip_equals_moshi(codec: Any, reference: Any, n_samples: int) -> None:
    clip = noise(n_samples)
    with torch.no_grad():
        expected = reference.encode(clip[None, None])[0]
    assert torch.equal(codec.encode(clip), expected)


@pytest.mark.parametrize("n_samples", [1, 1920, 1921, 24_000])
def test_an_encoded_clip_has_all_codebooks_and_every_begun_frame(codec: Any, n_samples: int) -> None:
    assert list(codec.encode(noise(n_samples)).shape) == [32, -(-n_samples // 1920)]


@pytest.mark.parametrize("n_frames", [1, 2, 30])
def test_decoding_a_clip_equals_moshi(codec: Any, reference: Any, n_frames: int) -> None:
    with torch.no_grad():
        expected = reference.decode(codes(n_frames)[None])[0, 0]
    torch.testing.assert_close(codec.decode(codes(n_frames)), expected, rtol=0, atol=0)


def test_a_decoded_clip_is_float_samples_at_the_frame_size(codec: Any) -> None:
    samples = codec.decode(codes(7))
    assert (samples.dtype, list(samples.shape)) == (torch.float32, [7 * codec.samples_per_frame])


def test_nothing_decodes_to_nothing(codec: Any) -> None:
    assert codec.decode(codes(0)).numel() == 0


def test_different_codes_sound_different(codec: Any) -> None:
    """The tolerance of the stream tests is far below what a wrong code changes."""
    changed = codes(10)
    changed[0, 4] = (changed[0, 4] + 1) % 2048
    difference = (codec.decode(codes(10)) - codec.decode(changed)).abs().max()
    assert difference > 10 * TOLERANCE


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=8), seed=st.integers(0, 1000))
def test_a_stream_in_any_pieces_equals_the_whole(codec: Any, sizes: list[int], seed: int) -> None:
    whole = codes(sum(sizes), seed)
    torch.testing.assert_close(streamed(codec, whole, sizes), codec.decode(whole), rtol=0, atol=TOLERANCE)


def test_a_stream_longer_than_the_codecs_context_equals_the_whole(codec: Any) -> None:
    """The codec's transformer looks 250 of its steps (125 frames) back."""
    whole = codes(300)
    got = streamed(codec, whole, [1, 2, 4, 8, *[12] * 23, 9])
    torch.testing.assert_close(got, codec.decode(whole), rtol=0, atol=TOLERANCE)


def test_every_piece_of_a_stream_is_complete_at_once(codec: Any) -> None:
    with codec.stream() as stream:
        assert [len(stream.push(codes(n))) for n in (1, 3, 2)] == [1920, 3 * 1920, 2 * 1920]


def test_a_stream_starts_afresh(codec: Any) -> None:
    first, second = (streamed(codec, codes(6), [2, 4]) for _ in range(2))
    assert torch.equal(first, second)


def test_an_abandoned_stream_does_not_leak_into_the_next(codec: Any) -> None:
    expected = streamed(codec, codes(6), [2, 4])
    with contextlib.suppress(KeyboardInterrupt), codec.stream() as stream:
        stream.push(codes(5, seed=8))
        raise KeyboardInterrupt
    assert torch.equal(streamed(codec, codes(6), [2, 4]), expected)


@pytest.mark.parametrize("code", [2048, 2050, 10**6, -1])
def test_codes_beyond_the_codecs_do_not_crash(codec: Any, code: int) -> None:
    odd = codes(4)
    odd[3, 1] = odd[0, 2] = code
    assert codec.decode(odd).isfinite().all()


def test_a_code_beyond_the_codecs_does_not_touch_frames_before_it(codec: Any) -> None:
    odd = codes(6)
    odd[:, 5] = 2050
    torch.testing.assert_close(
        codec.decode(odd)[: 5 * 1920], codec.decode(codes(6))[: 5 * 1920], rtol=0, atol=TOLERANCE
    )


@pytest.mark.parametrize("n_codebooks", [1, 4, 31])
def test_fewer_codebooks_than_the_codec_has_are_fine(tiny_checkpoint: Path, n_codebooks: int) -> None:
    folder = tiny_checkpoint
    codec = load_codec(
        folder / "mimi.safetensors", folder / "codec.json", n_codebooks=n_codebooks, device=CPU
    )
    assert codec.encode(noise(4000)).shape[0] == codec.n_codebooks == n_codebooks
    assert len(codec.decode(codes(3, n_codebooks=n_codebooks))) == 3 * 1920


def test_the_first_codebooks_do_not_depend_on_how_many_are_used(tiny_checkpoint: Path, codec: Any) -> None:
    folder = tiny_checkpoint
    few = load_codec(folder / "mimi.safetensors", folder / "codec.json", n_codebooks=4, device=CPU)
    assert torch.equal(few.encode(noise(9000)), codec.encode(noise(9000))[:4])


def test_codecs_with_other_codebooks_have_another_id(tiny_checkpoint: Path, codec: Any) -> None:
    folder = tiny_checkpoint
    few = load_codec(folder / "mimi.safetensors", folder / "codec.json", n_codebooks=4, device=CPU)
    assert few.id != codec.id


def test_codecs_with_other_weights_have_another_id(
    tiny_checkpoint: Path, micro_checkpoint: Path, codec: Any
) -> None:
    folder = micro_checkpoint
    other = load_codec(folder / "mimi.safetensors", folder / "codec.json", n_codebooks=4, device=CPU)
    again = load_codec(
        tiny_checkpoint / "mimi.safetensors", tiny_checkpoint / "codec.json", n_codebooks=32, device=CPU
    )
    assert other.id.split("-")[1] != codec.id.split("-")[1]
    assert again.id == codec.id


def test_chunks_start_with_one_frame_and_grow() -> None:
    sizes = [size for size, _ in zip(chunk_sizes(), range(8), strict=False)]
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert sizes[-1] > 8


def test_loading_does_not_move_the_global_random_state(tiny_checkpoint: Path) -> None:
    before = torch.get_rng_state()
    folder = tiny_checkpoint
    load_codec(folder / "mimi.safetensors", folder / "codec.json", n_codebooks=32, device=CPU)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow(reason="a codec of full size")
def test_mimi_at_kyutais_sizes_loads_and_streams(tmp_path: Path) -> None:
    """Random weights in exactly the published shapes, without a codec.json."""
    save_file(random_mimi_state(None, seed=0), tmp_path / "mimi.safetensors")
    codec = load_codec(tmp_path / "mimi.safetensors", None, n_codebooks=32, device=CPU)
    assert isinstance(codec, MimiCodec)
    assert (codec.sample_rate, codec.frame_rate, codec.samples_per_frame) == (24_000, 12.5, 1920)
    whole = codes(20)
    got = streamed(codec, whole, [1, 2, 4, 8, 5])
    torch.testing.assert_close(got, codec.decode(whole), rtol=0, atol=TOLERANCE)
