"""Items of random codes, the sizes of a tiny model, and the engine that must speak as it learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from csm_repl.engine import Engine, SamplingOptions, build_prompt, spoken_text
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.model.weights.convert import load_csm
from csm_repl.train.data.items import EncodedTurn, Item

FLAVORS: dict[str, Any] = {
    "backbone_flavor": {
        "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "embed_dim": 64, "max_seq_len": 256,
        "intermediate_dim": 128,
    },
    "decoder_flavor": {
        "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "embed_dim": 48, "max_seq_len": 64,
        "intermediate_dim": 96,
    },
    "text_vocab_size": 300,
    "audio_vocab_size": 67,
    "audio_num_codebooks": 5,
}  # fmt: skip
N_CODEBOOKS = 5
GREEDY = SamplingOptions(temperature=1.0, top_k=1)


def speech(
    text: str, n_frames: int, *, seed: int, speaker: int = 0, n_codebooks: int = N_CODEBOOKS, **turn: Any
) -> EncodedTurn:
    """A turn of random codes 1..63: none of its frames is the closing one."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(1, 64, (n_codebooks, n_frames), generator=generator, dtype=torch.int16)
    return EncodedTurn(speaker, text, codes, **turn)


def clip(name: str, text: str, n_frames: int, *, seed: int, **turn: Any) -> Item:
    return Item(name, (speech(text, n_frames, seed=seed, **turn),))


def two_clips() -> list[Item]:
    return [clip("a", "one two three", 10, seed=1), clip("b", "four", 8, seed=2, speaker=1)]


def many_clips(n: int = 12) -> list[Item]:
    return [clip(f"clip {i}", "word " * (i % 4), 4 + 3 * (i % 5), seed=i, speaker=i % 2) for i in range(n)]


def load_engine(folder: Path) -> Engine:
    return Engine(load_csm(find_checkpoint(folder), device=torch.device("cpu"), dtype=torch.float32))


def say_again(engine: Engine, tokenizer: Tokenizer, turn: EncodedTurn) -> tuple[str | None, torch.Tensor]:
    """Why the greedy take of a turn's words ended, and its codes [K, T]."""
    ids = tokenizer.encode(spoken_text(turn.speaker, turn.text))
    take = engine.generate(build_prompt([], ids, engine.n_codebooks), options=GREEDY, max_frames=40)
    frames = list(take)
    return take.ended, torch.stack(frames, dim=1) if frames else torch.zeros(engine.n_codebooks, 0)
