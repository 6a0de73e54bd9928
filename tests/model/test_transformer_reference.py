"""Our transformer against the building kit of the original model, torchtune's `llama3_2`.

The original's wiring (modules.py of SesameAILabs/csm): the embedding table and the output layer are
replaced by identities. Both run in float32; hidden states are normed, so their scale is one.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.csm import CSM
from csm_repl.model.weights.convert import load_csm

TOLERANCE = 1e-4
"""Largest difference of hidden states of scale one, after 2048 positions in another order of sums."""
ANGLE_TOLERANCE = 3e-4
"""torchtune multiplies positions up to 2047 with float32 frequencies: 2047 * 2**-23 radians."""

SIZES: dict[str, dict[str, Any]] = {
    "backbone": {
        "num_layers": 3, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 64, "max_seq_len": 2048,
        "intermediate_dim": 96,
    },
    "decoder": {
        "num_layers": 2, "num_heads": 4, "num_kv_heads": 1, "embed_dim": 32, "max_seq_len": 2048,
        "intermediate_dim": 64,
    },
}  # fmt: skip
CODEBOOKS, VOCAB, TEXT_VOCAB = 32, 30, 20


def torchtune_model(sizes: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        # torchtune imports deprecated names of torchao.
        warnings.simplefilter("ignore")
        from torchtune.models.llama3_2 import llama3_2
    model = llama3_2(
        vocab_size=8, attn_dropout=0.0, norm_eps=1e-5, rope_base=500_000, scale_factor=32, **sizes
    )
    model.tok_embeddings = model.output = nn.Identity()
    for name, parameter in model.named_parameters():
        if name.endswith("scale"):
            nn.init.normal_(parameter, 1.0, 0.2)
        else:
            nn.init.normal_(parameter, 0.0, parameter.shape[1] ** -0.5)
    return model.eval()


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return {name: torchtune_model(sizes) for name, sizes in SIZES.items()}


@pytest.fixture(scope="module")
def folder(theirs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchtune's own parameters, saved under the names of Sesame's checkpoint."""
    folder = tmp_path_factory.mktemp("torchtune")
    state = {
        f"{part}.{name}": tensor
        for part, model in theirs.items()
        for name, tensor in model.state_dict().items()
    }
    state["text_embeddings.weight"] = torch.randn(TEXT_VOCAB, 64)
    state["audio_embeddings.weight"] = torch.randn(CODEBOOKS * VOCAB, 64)
    state["projection.weight"] = torch.randn(32, 64)
    state["codebook0_head.weight"] = torch.randn(VOCAB, 64)
    state["audio_head"] = torch.randn(CODEBOOKS - 1, 32, VOCAB)
    save_file(state, folder / "model.safetensors")
    config = {
        "backbone_flavor": SIZES["backbone"], "decoder_flavor": SIZES["decoder"],
        "text_vocab_size": TEXT_VOCAB, "audio_vocab_size": VOCAB, "audio_num_codebooks": CODEBOOKS,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32) -> CSM:
    return load_csm(find_checkpoint(folder), device=torch.device("cpu"), dtype=dtype)


@pytest.fixture(scope="module")
def ours(folder: Path) -> CSM:
    return load(folder)


def embeddings(n_positions: int, dim: int) -> torch.Tensor:
    return torch.randn(1, n_positions, dim, generator=torch.Generator().manual_seed(9))


def rope_cache(model: Any) -> torch.Tensor:
    return model.layers[0].attn.pos_embeddings.cache


@torch.inference_mode()
def test_backbone_in_one_pass_equals_torchtune(ours: CSM, theirs: dict[str, Any]) -> None:
    x = embeddings(2048, 64)
    got = ours.backbone(x, ours.new_backbone_cache(), 0)
    torch.testing.assert_close(got, theirs["backbone"](x), rtol=0, atol=TOLERANCE)


@torch.inference_mode()
def test_decoder_in_one_pass_equals_torchtune(ours: CSM, theirs: dict[str, Any]) -> None:
    x = embeddings(CODEBOOKS, 32)
    got = ours.decoder(x, ours.new_decoder_cache(), 0)
    torch.testing.assert_close(got, theirs["decoder"](x), rtol=0, atol=TOLERANCE)


@torch.inference_mode()
def test_backbone_in_pieces_equals_torchtune_in_one_pass(ours: CSM, theirs: dict[str, Any]) -> None:
    """Prefill passes of different sizes and single positions, as a conversation makes them."""
    x = embeddings(300, 64)
    cache, start, pieces = ours.new_backbone_cache(), 0, []
    for size in (1, 37, 1, 1, 128, 2, 1, 100, 13, 15, 1):
        pieces.append(ours.backbone(x[:, start : start + size], cache, start))
        start += size
    assert start == 300
    torch.testing.assert_close(torch.cat(pieces, 1), theirs["backbone"](x), rtol=0, atol=TOLERANCE)


@torch.inference_mode()
def test_decoder_position_by_position_equals_torchtune(ours: CSM, theirs: dict[str, Any]) -> None:
    x = embeddings(CODEBOOKS, 32)
    cache = ours.new_decoder_cache()
    pieces = [ours.decoder(x[:, i : i + 1], cache, i) for i in range(CODEBOOKS)]
    torch.testing.assert_close(torch.cat(pieces, 1), theirs["decoder"](x), rtol=0, atol=TOLERANCE)


@torch.inference_mode()
@pytest.mark.parametrize("n_positions", [100, 4096])
def test_another_context_equals_torchtune_built_with_it(
    folder: Path, theirs: dict[str, Any], n_positions: int
) -> None:
    """As csm-multi does it: the same weights, `max_seq_len` raised; in passes as the engine makes them."""
    other = torchtune_model({**SIZES["backbone"], "max_seq_len": n_positions})
    other.load_state_dict(theirs["backbone"].state_dict())
    model = load_csm(
        find_checkpoint(folder),
        device=torch.device("cpu"),
        dtype=torch.float32,
        n_positions=n_positions,
        native=False,
    )
    assert model.config.max_positions == n_positions
    x, cache, pieces = embeddings(n_positions, 64), model.new_backbone_cache(), []
    start = 0
    for size in (*[32] * (n_positions // 32 - 1), *[1] * (32 + n_positions % 32)):
        pieces.append(model.backbone(x[:, start : start + size], cache, start))
        start += size
    assert start == n_positions
    torch.testing.assert_close(torch.cat(pieces, 1), other(x), rtol=0, atol=2 * TOLERANCE)


@torch.inference_mode()
def test_stale_entries_behind_the_current_position_do_not_count(ours: CSM) -> None:
    x = embeddings(40, 64)
    dirty = ours.new_backbone_cache()
    dirty.data.fill_(1e4)
    clean = ours.new_backbone_cache()
    for cache in (dirty, clean):
        ours.backbone(x[:, :39], cache, 0)
    assert torch.equal(ours.backbone(x[:, 39:], dirty, 39), ours.backbone(x[:, 39:], clean, 39))


def test_rope_table_equals_torchtunes(ours: CSM, theirs: dict[str, Any]) -> None:
    table = ours.backbone.table
    assert table is not None
    torch.testing.assert_close(table, rope_cache(theirs["backbone"]), rtol=0, atol=ANGLE_TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rope_tables_stay_float32_in_a_half_precision_model(
    dtype: torch.dtype, folder: Path, ours: CSM
) -> None:
    half = load(folder, dtype)
    assert half.dtype == dtype
    for got, full in ((half.backbone.table, ours.backbone.table), (half.decoder.table, ours.decoder.table)):
        assert got is not None
        assert got.dtype == torch.float32
        assert torch.equal(got, full)


def test_casting_the_original_to_bf16_rounds_its_rope_table(ours: CSM) -> None:
    """What the engine must not inherit: `model.to(dtype=torch.bfloat16)` casts torchtune's buffers."""
    original = torchtune_model(SIZES["backbone"]).to(torch.bfloat16)
    table = ours.backbone.table
    assert table is not None
    assert rope_cache(original).dtype == torch.bfloat16
    assert (rope_cache(original).float() - table).abs().max() > 1e-3 > ANGLE_TOLERANCE


@torch.inference_mode()
def test_bf16_weights_stay_near_float32(folder: Path, ours: CSM) -> None:
    """Within bf16's resolution of the float32 run at every position, late ones included."""
    half = load(folder, torch.bfloat16)
    x = embeddings(2048, 64)
    full = ours.backbone(x, ours.new_backbone_cache(), 0)
    got = half.backbone(x.bfloat16(), half.new_backbone_cache(), 0).float()
    error = (got - full).square().mean(-1).sqrt()[0]
    assert error.max() < 0.1
    assert error[-256:].mean() < 2 * error[:256].mean()
