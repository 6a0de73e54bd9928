"""Checkpoints that transformers saved speak as transformers' own `CsmForConditionalGeneration` does.

The models are random and tiny; every rope parameter is the hub's. transformers reads the context's audio
through its own codec (a tiny Mimi) and merges it with the text itself; the codes that its codec gave are
our context.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from csm_repl.engine import Engine, SamplingOptions, build_prompt
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.weights.convert import load_csm
from tests.support.layout_writer import HUB_ORIGINAL, HUB_TRANSFORMERS

N_CODEBOOKS, N_CODES, VOCAB, TEXT_VOCAB = 6, 64, 67, 200
AUDIO_ID, AUDIO_END_ID = 198, 199
N_FRAMES = 8
MIMI = {
    "model_type": "mimi", "hidden_size": 32, "num_filters": 4, "num_residual_layers": 1,
    "codebook_size": N_CODES, "codebook_dim": 16, "num_quantizers": N_CODEBOOKS,
    "vector_quantization_hidden_dimension": 16, "num_semantic_quantizers": 1, "upsample_groups": 32,
    "num_hidden_layers": 1, "intermediate_size": 32, "num_attention_heads": 2,
    "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


@dataclass
class Segment:
    ids: list[int]
    audio: torch.Tensor
    """Samples [N]."""


def tiny_config(**changes: Any) -> Any:
    from transformers import CsmConfig

    values = copy.deepcopy(HUB_TRANSFORMERS)
    values.update(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
        intermediate_size=48, vocab_size=VOCAB, text_vocab_size=TEXT_VOCAB, num_codebooks=N_CODEBOOKS,
        codebook_pad_token_id=VOCAB - 1, audio_token_id=AUDIO_ID, audio_eos_token_id=AUDIO_END_ID,
        pad_token_id=AUDIO_ID, bos_token_id=1, initializer_range=0.5, codec_config=dict(MIMI),
    )  # fmt: skip
    values["depth_decoder_config"].update(
        backbone_hidden_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, intermediate_size=32, vocab_size=VOCAB,
        num_codebooks=N_CODEBOOKS, initializer_range=0.5,
    )  # fmt: skip
    values.update(changes)
    return CsmConfig(**values)


def new_model(**changes: Any) -> Any:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import CsmForConditionalGeneration

        torch.manual_seed(20)
        model = CsmForConditionalGeneration(tiny_config(**changes)).eval()
        with torch.no_grad():
            for codebook in model.codec_model.modules():
                # Codebooks are empty until training; without them all codes are 0.
                if hasattr(codebook, "embed_sum"):
                    codebook.embed_sum.normal_()
                    codebook.initialized.fill_(1)
                    codebook.cluster_usage.fill_(1)
            for name, parameter in model.named_parameters():
                if "norm" in name:
                    parameter.normal_(1.0, 0.2)
    return model


@pytest.fixture(scope="module")
def tied() -> Any:
    return new_model()


@pytest.fixture(scope="module")
def untied() -> Any:
    model = new_model(tie_codebooks_embeddings=False)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(3)
        model.depth_decoder.model.embed_tokens.weight.normal_(0, 0.5, generator=generator)
    return model


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def segment(seed: int, n_text: int, n_samples: int) -> Segment:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, AUDIO_ID, (n_text,), generator=generator).tolist()
    return Segment(ids, torch.randn(n_samples, generator=generator))


CONVERSATIONS = {
    "no context": ([], [5, 17, 99, 3]),
    "one segment": ([segment(1, 6, 1920 * 5)], [1, 2, 3]),
    "ragged segments": ([segment(2, 3, 5000), segment(3, 11, 1920 * 2), segment(4, 1, 700)], [150, 7]),
}


def codes_of(model: Any, audio: torch.Tensor) -> torch.Tensor:
    """What transformers' codec makes of a clip, int64 [K, T]."""
    with torch.no_grad():
        return model.codec_model.encode(audio[None, None]).audio_codes[0]


def theirs(model: Any, context: list[Segment], ids: list[int]) -> list[list[int]]:
    input_ids: list[int] = []
    cutoffs: list[int] = []
    for item in context:
        n_frames = codes_of(model, item.audio).shape[1]
        input_ids += [*item.ids, *[AUDIO_ID] * n_frames, AUDIO_END_ID]
        cutoffs.append(sum(cutoffs[-1:]) + len(item.audio))
    input_ids += ids
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([input_ids]),
        "attention_mask": torch.ones(1, len(input_ids), dtype=torch.int64),
    }
    if context:
        inputs["input_values"] = torch.cat([item.audio for item in context])[None, None]
        inputs["input_values_cutoffs"] = torch.tensor([cutoffs])
    frames = model.generate(**inputs, do_sample=False, depth_decoder_do_sample=False, max_new_tokens=N_FRAMES)
    return frames[0].tolist()


def ours(folder: Path, model: Any, context: list[Segment], ids: list[int]) -> list[list[int]]:
    csm = load_csm(find_checkpoint(folder), device=torch.device("cpu"), dtype=torch.float32)
    rows = build_prompt(
        [(item.ids, codes_of(model, item.audio)) for item in context], ids, csm.config.n_codebooks
    )
    take = Engine(csm).generate(rows, options=SamplingOptions(top_k=1), max_frames=N_FRAMES)
    return [frame.tolist() for frame in take]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_frames_equal_transformers_greedy_generate(name: str, tied: Any, tmp_path: Path) -> None:
    tied.save_pretrained(tmp_path)
    context, ids = CONVERSATIONS[name]
    assert ours(tmp_path, tied, context, ids) == theirs(tied, context, ids)


def test_the_compared_frames_differ_between_conversations(tied: Any) -> None:
    results = [theirs(tied, context, ids) for context, ids in CONVERSATIONS.values()]
    assert len({str(frames) for frames in results}) == len(CONVERSATIONS)


def test_untied_codebook_embeddings_are_used_by_the_depth_decoder(untied: Any, tmp_path: Path) -> None:
    untied.save_pretrained(tmp_path)
    context, ids = CONVERSATIONS["one segment"]
    assert ours(tmp_path, untied, context, ids) == theirs(untied, context, ids)


def test_shards_saved_by_transformers_are_read(tied: Any, tmp_path: Path) -> None:
    tied.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    context, ids = CONVERSATIONS["one segment"]
    assert ours(tmp_path, tied, context, ids) == theirs(tied, context, ids)


def test_a_fine_tune_that_kept_the_original_keys_in_its_config_is_read(tmp_path: Path) -> None:
    """save_pretrained writes unknown keys back, so fine-tunes of the hub's model name flavors too."""
    flavors = {
        **HUB_ORIGINAL,
        "backbone_flavor": {
            "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 32, "intermediate_dim": 48,
        },
        "decoder_flavor": {
            "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "embed_dim": 16, "intermediate_dim": 32,
        },
        "audio_vocab_size": VOCAB, "audio_num_codebooks": N_CODEBOOKS, "text_vocab_size": TEXT_VOCAB,
    }  # fmt: skip
    model = new_model(**flavors)
    model.save_pretrained(tmp_path)
    assert "backbone_flavor" in json.loads((tmp_path / "config.json").read_text())
    context, ids = CONVERSATIONS["one segment"]
    assert ours(tmp_path, model, context, ids) == theirs(model, context, ids)
