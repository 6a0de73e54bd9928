"""Puts a trained model into the package, with its card.

    python -m tools.demo_voice.publish MODEL CODEC SCORES.json [--temperature 0.6] [--top-k 50] [--to FOLDER]

The weights become bfloat16. CODEC is the folder of the codec (refined or not) whose codes the model speaks.
The card's text is `card.md` beside this file; the figures come from `score.py --json`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from csm_repl.files.builtin import builtin_folder
from csm_repl.files.text_front import FRONT_FILE, front_files

MAX_BYTES = 45_000_000


def score_table(scores: dict[str, float]) -> str:
    lines = ["| measure | figure |", "|---|---|"]
    for name, value in scores.items():
        shown = f"{value:.2f}" if "factor" in name else f"{value:.0%}"
        lines.append(f"| {name} | {shown} |")
    return "\n".join(lines)


def publish(
    model: Path, codec: Path, scores: dict[str, float], to: Path, *, temperature: float, top_k: int
) -> int:
    """Writes the folder; returns its size in bytes."""
    to.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.to(torch.bfloat16) for name, tensor in load_file(model / "model.safetensors").items()
    }
    save_file(state, to / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    config["sampling"] = {"temperature": temperature, "top_k": top_k}
    (to / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shutil.copy(model / "tokenizer.json", to / "tokenizer.json")
    for name in ("codec.json", "codec.safetensors"):
        shutil.copy(codec / name, to / name)
    if (model / FRONT_FILE).is_file():
        for path in (model / FRONT_FILE, *front_files(model)):
            shutil.copy(path, to / path.name)
    card = (Path(__file__).parent / "card.md").read_text()
    n_parameters = sum(tensor.numel() for tensor in state.values())
    card = card.replace("<!-- scores -->", score_table(scores)).replace(
        "<!-- size -->", f"{n_parameters / 1e6:.1f} million parameters"
    )
    (to / "README.md").write_text(card)
    return sum(path.stat().st_size for path in to.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("codec", type=Path)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--top-k", type=int, default=50)
    parser.add_argument("--to", type=Path, default=builtin_folder())
    arguments = parser.parse_args()
    scores = json.loads(arguments.scores.read_text())
    n_bytes = publish(
        arguments.model, arguments.codec, scores, arguments.to,
        temperature=arguments.temperature, top_k=arguments.top_k,
    )  # fmt: skip
    print(f"{arguments.to}: {n_bytes / 1e6:.1f} MB")
    if n_bytes > MAX_BYTES:
        raise SystemExit(f"That is more than {MAX_BYTES / 1e6:.0f} MB.")


if __name__ == "__main__":
    main()
