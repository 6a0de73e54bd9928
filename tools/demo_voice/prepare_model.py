"""Makes the folder that `csm-repl train --from-scratch` starts from: sizes, text front, tokenizer, codec.

python -m tools.demo_voice.prepare_model CODEC_FOLDER FRONT_FOLDER OUT [--codebooks 8]

FRONT_FOLDER is what `lexicon.py` has written.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from csm_repl.files.text_front import FRONT_FILE, front_files
from csm_repl.text.phones import MARKS

__all__ = ["VOCABULARY", "write_config", "write_tokenizer"]

CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
"""ARPAbet, as CMUdict has it."""
MAX_POSITIONS = 1024
BOS, EOS, UNKNOWN = "<|begin_of_text|>", "<|end_of_text|>", "<|unknown|>"
VOCABULARY = (
    UNKNOWN,
    BOS,
    EOS,
    *"[]0123456789",
    *sorted(MARKS),
    *CONSONANTS.split(),
    *(f"{vowel}{stress}" for vowel in VOWELS.split() for stress in "012"),
)
"""What the tokenizer knows: the speaker's number in brackets, marks, and phones, vowels with their stress."""


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
        "text_vocab_size": len(VOCABULARY),
        # CSM-1B has three codes more than Mimi; only 0 .. size - 1 are ever learnt.
        "audio_vocab_size": codebook_size + 3,
        "audio_num_codebooks": n_codebooks,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def write_tokenizer(folder: Path) -> None:
    """Each phone and mark is a piece; of a speaker's number each digit."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordLevel({piece: number for number, piece in enumerate(VOCABULARY)}, unk_token=UNKNOWN)
    )
    # The digits of stress belong to their vowels.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Split(Regex(r"\d(?=\d*\])|\[|\]"), "isolated"),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in (UNKNOWN, BOS, EOS)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("codec", type=Path)
    parser.add_argument("front", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--codebooks", type=int, default=8)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    codec = [arguments.codec / name for name in ("codec.json", "codec.safetensors")]
    for path in (*codec, arguments.front / FRONT_FILE, *front_files(arguments.front)):
        shutil.copy(path, arguments.out / path.name)
    sizes = json.loads(codec[0].read_text())["config"]
    write_config(arguments.out, n_codebooks=arguments.codebooks, codebook_size=sizes["codebook_size"])
    write_tokenizer(arguments.out)


if __name__ == "__main__":
    main()
