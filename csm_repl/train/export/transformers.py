"""Model folders as transformers' `CsmForConditionalGeneration` and `AutoProcessor` load them.

`csm-repl --model DIR` loads them too. transformers itself is not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from csm_repl.codec.mimi_names import mimi_config, mimi_state
from csm_repl.errors import CheckpointError
from csm_repl.files.checkpoint import CODEC_PREFIX, find_checkpoint
from csm_repl.files.config import ModelConfig, RopeConfig, TransformerConfig
from csm_repl.files.hub import ModelFiles
from csm_repl.files.json_files import read_config
from csm_repl.model.weights.published import to_transformers
from csm_repl.model.weights.tensors import open_weights
from csm_repl.train.export.companions import companions, copy_files
from csm_repl.train.export.transformers_tokenizer import SpecialIds, write_tokenizer
from csm_repl.train.files import write_atomically, write_json, write_weights

__all__ = ["transformers_config", "write_transformers"]

_CHAT_TEMPLATE = """\
{%- for turn in messages -%}
{{ bos_token }}[{{ turn['role'] }}]
{%- for part in turn['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor -%}
{{ eos_token }}
{%- for part in turn['content'] if part['type'] == 'audio' %}<|AUDIO|><|audio_eos|>{% endfor -%}
{%- endfor -%}
"""


def write_transformers(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    config: ModelConfig,
    files: ModelFiles,
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> str | None:
    """Writes everything that `from_pretrained` needs into `folder`, the weights last.

    Args:
        folder: made if need be.
        state: all tensors, under the original layout's names.
        config: their sizes.
        files: the base model's tokenizer and codec.
        dtype: what the weights are stored in; the codec's stay as they are.

    Returns:
        A sentence for the user about what transformers cannot do with it, or None.

    Raises:
        CheckpointError: tokenizer or codec cannot be read.
        TrainingError: something could not be written.
    """
    codec, codec_state, notice = _codec(files, config.n_codebooks)
    copy_files(folder, companions(files.folder))
    words = write_tokenizer(folder, files.tokenizer)
    text = state["text_embeddings.weight"]
    n_missing = max(words.audio, words.audio_end) + 1 - len(text)
    if n_missing > 0:
        # transformers looks the audio tokens up among the words before it puts frames in their place.
        text = torch.cat([text, text.new_zeros(n_missing, text.shape[1])])
    described = transformers_config(config, codec=codec, dtype=dtype, words=words, n_words=len(text))
    write_json(folder / "config.json", described)
    write_json(folder / "generation_config.json", _generation_config(words))
    write_json(folder / "preprocessor_config.json", _PREPROCESSOR)
    write_json(folder / "processor_config.json", {"processor_class": "CsmProcessor"})
    write_atomically(
        folder / "chat_template.jinja", lambda path: path.write_text(_CHAT_TEMPLATE, encoding="utf-8")
    )
    tensors = to_transformers({**state, "text_embeddings.weight": text}, config)
    tensors = {name: tensor.to("cpu", dtype) for name, tensor in tensors.items()}
    tensors.update({f"codec_model.{name}": tensor for name, tensor in codec_state.items()})
    write_weights(folder / "model.safetensors", tensors, dtype=None)
    return notice


def transformers_config(
    config: ModelConfig,
    *,
    codec: Mapping[str, Any],
    dtype: torch.dtype,
    words: SpecialIds,
    n_words: int,
) -> dict[str, Any]:
    """The `config.json`.

    Args:
        config: sizes.
        codec: the `codec_config`.
        dtype: of the weights.
        words: the special ids.
        n_words: number of text embeddings.
    """
    common = {
        "num_codebooks": config.n_codebooks,
        "vocab_size": config.audio_vocab_size,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
    }
    backbone, decoder = config.backbone, config.decoder
    return {
        "architectures": ["CsmForConditionalGeneration"],
        "model_type": "csm",
        **common,
        **_sizes(backbone, n_positions=backbone.max_positions),
        "text_vocab_size": n_words,
        "tie_codebooks_embeddings": config.tied_audio_embeddings,
        "tie_word_embeddings": False,
        "bos_token_id": words.bos,
        "eos_token_id": None,
        "pad_token_id": words.eos,
        "audio_token_id": words.audio,
        "audio_eos_token_id": words.audio_end,
        "codebook_eos_token_id": 0,
        "codebook_pad_token_id": config.audio_vocab_size - 1,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "depth_decoder_config": {
            "model_type": "csm_depth_decoder_model",
            **common,
            "backbone_hidden_size": backbone.dim,
            # The hidden state comes before the frame's codes.
            **_sizes(decoder, n_positions=config.n_codebooks + 1),
        },
        "codec_config": dict(codec),
    }


def _sizes(size: TransformerConfig, *, n_positions: int) -> dict[str, Any]:
    return {
        "hidden_size": size.dim,
        "intermediate_size": size.intermediate_dim,
        "num_hidden_layers": size.n_layers,
        "num_attention_heads": size.n_heads,
        "num_key_value_heads": size.n_kv_heads,
        "head_dim": size.head_dim,
        "max_position_embeddings": n_positions,
        "rms_norm_eps": size.norm_eps,
        "rope_theta": size.rope.base,
        "rope_scaling": _rope_scaling(size.rope, n_positions),
    }


def _rope_scaling(rope: RopeConfig, n_positions: int) -> dict[str, Any] | None:
    if rope.factor == 1:
        return None
    # Only context / factor matters, and transformers wants a context below the number of positions.
    # Powers of two, so that the quotients stay exact.
    shrink = 1.0
    while rope.original_context / shrink >= n_positions:
        shrink *= 2
    return {
        "rope_type": "llama3",
        "factor": rope.factor,
        "low_freq_factor": rope.low_freq_factor / shrink,
        "high_freq_factor": rope.high_freq_factor / shrink,
        "original_max_position_embeddings": int(rope.original_context / shrink),
    }


def _generation_config(words: SpecialIds) -> dict[str, Any]:
    """Ten seconds at most, and the sampling that csm-repl uses by default."""
    sampling = {"do_sample": True, "temperature": 0.9, "top_k": 50}
    return {
        "bos_token_id": words.bos,
        "pad_token_id": words.eos,
        "max_new_tokens": 125,
        **sampling,
        **{f"depth_decoder_{name}": value for name, value in sampling.items()},
    }


_PREPROCESSOR = {
    "feature_extractor_type": "EncodecFeatureExtractor",
    "processor_class": "CsmProcessor",
    "feature_size": 1,
    "sampling_rate": 24000,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
    "chunk_length_s": None,
    "overlap": None,
}


# --- codec --------------------------------------------------------------------------------------------


def _codec(files: ModelFiles, n_codebooks: int) -> tuple[dict[str, Any], dict[str, torch.Tensor], str | None]:
    """The codec's config and tensors, and what to tell the user if it has no place in transformers."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if files.codec is None:
        return _inside_codec(files)
    described: Mapping[str, Any] = {"codec": "mimi"}
    if files.codec_config is not None:
        described = read_config(files.codec_config)
    kind = described.get("codec")
    if kind != "mimi":
        notice = (
            f"transformers has no codec {kind!r}: there the model gives codes, but no sound, and hears no "
            "context. csm-repl uses the folder in full."
        )
        # transformers always builds a Mimi; the smallest one costs nothing.
        return {"model_type": "mimi", **_PLACEHOLDER, "num_quantizers": max(2, n_codebooks)}, {}, notice
    sizes = described.get("config")
    if sizes is None:
        from csm_repl.codec.mimi import published_config

        sizes = published_config()
    try:
        state = load_file(files.codec)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"The codec in {files.codec} cannot be read: {error}.", "Download it again."
        ) from error
    converted = mimi_state(state, sizes, n_codebooks=n_codebooks)
    return mimi_config(sizes, n_codebooks=n_codebooks), converted, None


def _inside_codec(files: ModelFiles) -> tuple[dict[str, Any], dict[str, torch.Tensor], None]:
    """Of a base in transformers' layout that has it in its weights: as it stands."""
    tensors = {}
    with open_weights(find_checkpoint(files.folder)) as source:
        for name in source.names():
            if name.startswith(CODEC_PREFIX):
                tensors[name.removeprefix(CODEC_PREFIX)] = source.get(name)
    return read_config(files.folder / "config.json")["codec_config"], tensors, None


_PLACEHOLDER = {
    "hidden_size": 16,
    "num_filters": 2,
    "codebook_size": 8,
    "codebook_dim": 8,
    "vector_quantization_hidden_dimension": 8,
    "upsample_groups": 16,
    "num_hidden_layers": 1,
    "intermediate_size": 16,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}
