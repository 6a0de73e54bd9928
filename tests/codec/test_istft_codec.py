"""The small codec: streaming, whole decoding, encoding, loading."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from csm_repl.codec import load_codec
from csm_repl.codec.istft import IstftCodec
from csm_repl.codec.istft_network import CodecNetwork, CodecSizes
from csm_repl.errors import CheckpointError

SIZES = CodecSizes(width=16, codebook_dim=8, codebook_size=32, n_codebooks=4, decoder_blocks=(1, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("istft")
    generator = torch.Generator().manual_seed(0)
    network = CodecNetwork(SIZES)
    state = {name: tensor.half() for name, tensor in network.state_dict().items()}
    for name, tensor in state.items():
        if tensor.ndim > 1:
            state[name] = torch.randn(tensor.shape, generator=generator).mul(0.2).half()
    save_file(state, path / "codec.safetensors")
    (path / "codec.json").write_text(json.dumps({"codec": "istft", "config": asdict(SIZES)}))
    return path


@pytest.fixture(scope="module")
def codec(folder: Path) -> IstftCodec:
    loaded = load_codec(
        folder / "codec.safetensors", folder / "codec.json", n_codebooks=4, device=torch.device("cpu")
    )
    assert isinstance(loaded, IstftCodec)
    return loaded


def _codes(n_frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 32, (4, n_frames), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(chunks=st.lists(st.integers(1, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_a_stream_equals_the_whole(codec: IstftCodec, chunks: list[int], seed: int) -> None:
    codes = _codes(sum(chunks), seed)
    whole = codec.decode(codes)
    with codec.stream() as stream:
        pieces = [stream.push(piece) for piece in codes.split(chunks, dim=1)]
        pieces.append(stream.flush())
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=0, atol=1e-4)


def test_a_stream_lags_by_15_ms_at_most(codec: IstftCodec) -> None:
    with codec.stream() as stream:
        ready = stream.push(_codes(3)).shape[0]
    assert 3 * codec.samples_per_frame - ready == 360 == 0.015 * codec.sample_rate


def test_later_codes_do_not_change_what_a_stream_has_handed_out(codec: IstftCodec) -> None:
    first, second = _codes(6, 1), _codes(6, 2)
    second[:, :3] = first[:, :3]
    n_final = 3 * codec.samples_per_frame - 360
    torch.testing.assert_close(codec.decode(first)[:n_final], codec.decode(second)[:n_final])
    assert not torch.allclose(codec.decode(first)[n_final + 720 :], codec.decode(second)[n_final + 720 :])


@pytest.mark.parametrize("n", [1, 1919, 1920, 1921, 5000])
def test_a_clip_of_any_length_gives_whole_frames(codec: IstftCodec, n: int) -> None:
    codes = codec.encode(torch.randn(n) * 0.1)
    assert codes.shape == (4, -(-n // 1920))
    assert codec.decode(codes).shape == (codes.shape[1] * 1920,)


def test_no_frames_are_no_samples(codec: IstftCodec) -> None:
    assert codec.decode(_codes(0)).shape == (0,)
    with codec.stream() as stream:
        assert stream.flush().shape == (0,)


def test_fewer_codebooks_than_the_codec_has(folder: Path) -> None:
    codec = load_codec(
        folder / "codec.safetensors", folder / "codec.json", n_codebooks=2, device=torch.device("cpu")
    )
    assert codec.encode(torch.randn(4000)).shape == (2, 3)
    assert codec.decode(_codes(3)[:2]).shape == (3 * 1920,)
    assert codec.id.endswith("-2")


def test_codes_that_the_codec_does_not_have_are_bounded(codec: IstftCodec) -> None:
    assert codec.decode(_codes(2) + 1000).isfinite().all()


@pytest.mark.parametrize("fault", ["too many codebooks", "truncated", "other sizes", "not there"])
def test_what_cannot_be_loaded_is_refused(folder: Path, tmp_path: Path, fault: str) -> None:
    weights, description, n_codebooks = folder / "codec.safetensors", folder / "codec.json", 4
    if fault == "too many codebooks":
        n_codebooks = 5
    elif fault == "truncated":
        weights = tmp_path / "codec.safetensors"
        weights.write_bytes((folder / "codec.safetensors").read_bytes()[:5000])
    elif fault == "other sizes":
        description = tmp_path / "codec.json"
        description.write_text(json.dumps({"codec": "istft", "config": {**asdict(SIZES), "width": 24}}))
    else:
        weights = tmp_path / "missing.safetensors"
    with pytest.raises(CheckpointError):
        load_codec(weights, description, n_codebooks=n_codebooks, device=torch.device("cpu"))


def test_random_state_is_left_alone(folder: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_codec(folder / "codec.safetensors", folder / "codec.json", n_codebooks=4, device=torch.device("cpu"))
    assert torch.equal(before, torch.get_rng_state())
