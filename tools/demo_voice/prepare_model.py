"""Makes the folder that `csm-repl train --from-scratch` starts from: sizes, tokenizer, codec.

python -m tools.demo_voice.prepare_model CODEC_FOLDER OUT --texts CORPUS [CORPUS2 ...] [--codebooks 8]
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["ALPHABET", "write_config", "write_tokenizer"]

ALPHABET = " abcdefghijklmnopqrstuvwxyz0123456789'\",.?!;:-()[]"
"""What the tokenizer knows, in lower case; whatever else is typed becomes a space."""
TEXT_VOCAB_SIZE = 512
"""Pieces of words, so that a piece is about as long as a frame or two and the text costs few positions."""
MAX_POSITIONS = 512
"""The corpus's conversations have up to 433; far beyond them the model is not understood."""
BOS, EOS, UNKNOWN = "<|begin_of_text|>", "<|end_of_text|>", "<|unknown|>"


def flavor(layers: int, heads: int, dim: int, intermediate: int, positions: int) -> dict[str, Any]:
    # Plain rotary embedding: nothing here is scaled from another context length.
    return {
        "num_layers": layers, "num_heads": heads, "num_kv_heads": heads, "embed_dim": dim,
        "max_seq_len": positions, "intermediate_dim": intermediate, "rope_base": 10_000, "scale_factor": 1,
    }  # fmt: skip


def write_config(folder: Path, *, n_codebooks: int, codebook_size: int) -> None:
    config = {
        "backbone_flavor": flavor(6, 4, 256, 768, MAX_POSITIONS),
        "decoder_flavor": flavor(3, 3, 192, 512, MAX_POSITIONS),
        "text_vocab_size": TEXT_VOCAB_SIZE,
        # CSM-1B has three codes more than Mimi; only 0 .. size - 1 are ever learnt.
        "audio_vocab_size": codebook_size + 3,
        "audio_num_codebooks": n_codebooks,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def write_tokenizer(folder: Path, texts: Iterable[str]) -> None:
    """Byte-pair encoding of the words of `texts`; digits and punctuation stay single."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    known = "".join("\\" + c if c in "[]-" else c for c in ALPHABET)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex("[’‘`]"), "'"),
            normalizers.Replace(Regex("[“”]"), '"'),
            normalizers.Replace(Regex("[–—]"), "-"),
            normalizers.Replace(Regex(f"[^{known}]"), " "),
            normalizers.Replace(Regex(" +"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(" ?[a-z]+|."), "isolated")
    special = [AddedToken(name, special=True, normalized=False) for name in (UNKNOWN, BOS, EOS)]
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_VOCAB_SIZE,
        special_tokens=special,
        initial_alphabet=list(ALPHABET),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))


def read_texts(corpora: Iterable[Path]) -> Iterator[str]:
    for corpus in corpora:
        for line in (corpus / "utterances.jsonl").read_text().splitlines():
            yield json.loads(line)["text"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("codec", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--texts", type=Path, nargs="+", required=True, metavar="CORPUS")
    parser.add_argument("--codebooks", type=int, default=8)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("codec.json", "codec.safetensors"):
        shutil.copy(arguments.codec / name, arguments.out / name)
    sizes = json.loads((arguments.codec / "codec.json").read_text())["config"]
    write_config(arguments.out, n_codebooks=arguments.codebooks, codebook_size=sizes["codebook_size"])
    write_tokenizer(arguments.out, read_texts(arguments.texts))


if __name__ == "__main__":
    main()
