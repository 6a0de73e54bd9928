"""Makes a CSM with random weights in exactly the published layout, for tests and benchmarks.

    python -m tools.random_checkpoint FOLDER [--size tiny|full] [--dtype bfloat16] [--seed 0]

`tiny` is a few megabytes with a tiny codec; `full` has CSM-1B's and Mimi's sizes (random weights cost the
same time as trained ones). With `ends` a tiny model's takes end by themselves after about ten frames,
which plain random weights never do.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from csm_repl.files.config import ModelConfig, parse_config
from csm_repl.files.layouts import ORIGINAL, recipes

TINY_FLAVORS: dict[str, Any] = {
    "backbone_flavor": {
        "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 32, "max_seq_len": 2048,
        "intermediate_dim": 64,
    },
    "decoder_flavor": {
        "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "embed_dim": 16, "max_seq_len": 2048,
        "intermediate_dim": 32,
    },
    "text_vocab_size": 300,
    "audio_vocab_size": 2051,
    "audio_num_codebooks": 32,
}  # fmt: skip
FULL_FLAVORS: dict[str, Any] = {
    "backbone_flavor": "llama-1B",
    "decoder_flavor": "llama-100M",
    "text_vocab_size": 128_256,
    "audio_vocab_size": 2051,
    "audio_num_codebooks": 32,
}
END_PROBABILITY = 0.1


def tiny_mimi_config(n_codebooks: int = 32) -> dict[str, Any]:
    """Mimi's structure at a fraction of its width, in moshi's form."""
    return {
        "sample_rate": 24000,
        "channels": 1,
        "frame_rate": 12.5,
        "seanet": {
            "channels": 1, "dimension": 32, "causal": True, "n_filters": 4, "n_residual_layers": 1,
            "activation": "ELU", "compress": 2, "dilation_base": 2, "disable_norm_outer_blocks": 0,
            "kernel_size": 7, "residual_kernel_size": 3, "last_kernel_size": 3, "norm": "none",
            "pad_mode": "constant", "ratios": [8, 6, 5, 4], "true_skip": True,
        },
        "quantizer": {
            "dimension": 16, "n_q": n_codebooks, "bins": 2048, "input_dimension": 32,
            "output_dimension": 32,
        },
        "transformer": {
            "d_model": 32, "num_heads": 2, "num_layers": 1, "causal": True, "layer_scale": 0.01,
            "context": 250, "conv_layout": True, "max_period": 10000, "gating": "none",
            "norm": "layer_norm", "positional_embedding": "rope", "dim_feedforward": 64,
            "input_dimension": 32, "output_dimensions": [32],
        },
    }  # fmt: skip


def random_state(config: ModelConfig, *, seed: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Published names -> random tensors; norms near one, projections scaled by their fan-in."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, torch.Tensor] = {}
    for recipe in recipes(config, ORIGINAL):
        for part in recipe.parts:
            tensor = torch.empty(part.shape, dtype=dtype)
            if len(part.shape) == 1:
                tensor.fill_(1.0)
            else:
                fan_in = part.shape[1] if len(part.shape) == 2 else part.shape[-2]
                tensor.normal_(0.0, 1.0 / math.sqrt(fan_in), generator=generator)
            state[part.names[0]] = tensor
    return state


def make_takes_end(state: Mapping[str, torch.Tensor], config: ModelConfig) -> None:
    """Changes random weights in place so that every frame is the closing one with END_PROBABILITY.

    Hidden dimension 0 is kept constant and serves as a bias, dimension 1 says "this code is 0". The first
    head gives code 0 its probability among the 50 likeliest, the others copy the flag down the codebooks.
    """
    n_audio, vocab = config.n_codebooks, config.audio_vocab_size
    zero_rows = torch.arange(n_audio) * vocab
    for size in ("backbone", "decoder"):
        for name, tensor in state.items():
            if name.startswith(size) and ("output_proj" in name or ".w2." in name):
                tensor[:2] = 0.0
    state["text_embeddings.weight"][:, :2] = torch.tensor([8.0, 0.0], dtype=torch.float32).to(
        state["text_embeddings.weight"].dtype
    )
    # Audio rows are summed over the codebooks, so each carries its share.
    audio = state["audio_embeddings.weight"]
    audio[:, 0], audio[:, 1] = 8.0 / n_audio, -8.0 / n_audio
    audio[zero_rows, 1] = 8.0 / n_audio
    projection = state["projection.weight"]
    projection[:2] = 0.0
    projection[0, 0] = projection[1, 1] = float(n_audio)
    head = state["codebook0_head.weight"]
    head.mul_(0.01)
    norm = math.sqrt(config.backbone.dim)
    # After the norm dimension 0 is at most sqrt(dim); the other dimensions are small beside its 8.
    head[0] = 0.0
    head[0, 0] = math.log(49 * END_PROBABILITY / (1 - END_PROBABILITY)) / (norm * 0.8)
    heads = state["audio_head"]
    heads[:, 1, :] = 0.0
    heads[:, 1, 0] = 20.0
    heads[:, 0, 0] = 0.0


def random_mimi_state(config: dict[str, Any] | None, *, seed: int) -> dict[str, torch.Tensor]:
    """A Mimi with random weights, in moshi's names."""
    from csm_repl.codec.mimi import _loaders

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _loaders().get_mimi(None, config, num_codebooks=1)
        state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        for name, tensor in state.items():
            if name.endswith("embedding_sum"):
                tensor.normal_()
            elif name.endswith("_initialized"):
                tensor.fill_(1.0)
            elif name.endswith("input_proj.weight"):
                # A random encoder is far quieter than the codebooks; all sounds would get the same codes.
                tensor.mul_(100.0)
    return state


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer without merges, with Llama's names for BOS and EOS."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True) for name in ("<|begin_of_text|>", "<|end_of_text|>")]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def write_checkpoint(
    folder: Path,
    *,
    flavors: Mapping[str, Any] = TINY_FLAVORS,
    seed: int = 0,
    dtype: torch.dtype = torch.bfloat16,
    ends: bool = True,
    full_mimi: bool = False,
) -> Path:
    """Writes config, weights, tokenizer and codec; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = parse_config(flavors, source="flavors")
    (folder / "config.json").write_text(json.dumps(dict(flavors), indent=1))
    state = random_state(config, seed=seed, dtype=dtype)
    if ends:
        make_takes_end(state, config)
    save_file(state, folder / "model.safetensors")
    del state
    write_tokenizer(folder)
    mimi_config = None
    if not full_mimi:
        mimi_config = tiny_mimi_config(config.n_codebooks)
        (folder / "codec.json").write_text(json.dumps({"codec": "mimi", "config": mimi_config}, indent=1))
    save_file(random_mimi_state(mimi_config, seed=seed), folder / "mimi.safetensors")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a CSM with random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=["tiny", "full"], default="tiny")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    full = arguments.size == "full"
    write_checkpoint(
        arguments.folder,
        flavors=FULL_FLAVORS if full else TINY_FLAVORS,
        seed=arguments.seed,
        dtype=getattr(torch, arguments.dtype),
        ends=not full,
        full_mimi=full,
    )


if __name__ == "__main__":
    main()
