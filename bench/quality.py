"""How far a mode's next-code distributions are from float32's: KL divergence and top-1 agreement.

    python -m bench.quality [--model DIR] [--modes bfloat16,int8,int4] [--frames 64] [--text TEXT]
                            [--speaker 0] [--take outputs/.../001.npy ...] [--context 200] [--seed 0]

Without --model a full-size model with random weights is made (and kept, see `bench/models.py`). A take is
what `--keep-codes` wrote, its JSON beside it; takes become the context, in order. Without any, `--context`
random frames do (by default none if a model is given). float32 draws the frames of TEXT at temperature 0.9
and top 50; then every mode is forced along them, through the same steps as in a generation, and each code's
logits are compared. A mode may name its dtype: int8:float32. One model is in memory at a time. Prints a
table and writes `bench/results/quality-*.json`.

Random weights give nearly flat distributions, whose likeliest code is a matter of chance: read their KL
beside their entropy, and do not take their top-1 agreement for a trained model's.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.machine import machine_facts
from bench.models import RANDOM_FOLDER, random_model
from bench.report import print_machine, write_results
from csm_repl.engine import Engine, SamplingOptions, build_prompt, frame_positions, spoken_text
from csm_repl.files.checkpoint import Checkpoint, find_checkpoint
from csm_repl.files.hub import find_companions
from csm_repl.model.csm import CSM
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.model.weights.convert import load_csm

MODES = ("bfloat16", "int8", "int4")
TEXT = "Well, I thought about it all week, and in the end I said yes. What would you have done?"
RANDOM_CONTEXT = 200
PREFILL_CHUNK = 256


@dataclass(frozen=True)
class Comparison:
    """One mode beside the reference, for every frame and codebook: [n_frames, K]."""

    kl: torch.Tensor
    """Of the mode's distribution from the reference's, nats, temperature 1."""
    agrees: torch.Tensor
    """Whether both find the same code likeliest."""

    def summary(self) -> dict[str, Any]:
        first, depth = self.kl[:, 0], self.kl[:, 1:]
        agrees = self.agrees.double()
        return {
            "kl_first": first.mean().item(),
            "kl_first_p95": first.quantile(0.95).item(),
            "kl_depth": depth.mean().item(),
            "kl_depth_p95": depth.flatten().quantile(0.95).item(),
            "kl_worst_codebook": depth.mean(0).max().item(),
            "top1_first": agrees[:, 0].mean().item(),
            "top1_depth": agrees[:, 1:].mean().item(),
            "kl_by_codebook": self.kl.mean(0).tolist(),
            "top1_by_codebook": agrees.mean(0).tolist(),
        }


@torch.inference_mode()
def forced_logits(model: CSM, rows: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """The logits from which each code of `frames` would be chosen, if the ones before it had been.

    Args:
        model: any dtype and quantisation.
        rows: prompt, int64 [S, K + 1].
        frames: int64 [n, K].

    Returns:
        float32 [n, K, V].
    """
    cache, depth_cache = model.new_backbone_cache(), model.new_decoder_cache()
    hidden = torch.empty(0)
    for start in range(0, len(rows), PREFILL_CHUNK):
        hidden = model.run_backbone(model.embed(rows[start : start + PREFILL_CHUNK]), cache, start)
    logits = torch.empty(*frames.shape, model.config.audio_vocab_size)
    for index in range(len(frames)):
        if index:
            position = len(rows) + index - 1
            hidden = model.run_backbone(model.embed_frames(frames[None, index - 1]), cache, position)

        def pick(scores: torch.Tensor, codebook: int, index: int = index) -> torch.Tensor:
            logits[index, codebook] = scores[0]
            return frames[None, index, codebook]

        model.make_frames(hidden[None], depth_cache, pick)
    return logits


def compare(reference: torch.Tensor, other: torch.Tensor) -> Comparison:
    """Logits [n, K, V] of both."""
    expected, found = _log_probabilities(reference), _log_probabilities(other)
    kl = (expected.exp() * (expected - found)).sum(-1)
    return Comparison(kl, reference.argmax(-1) == other.argmax(-1))


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Of each distribution, nats: [n, K, V] -> [n, K]."""
    log_probabilities = _log_probabilities(logits)
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def _log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    return logits.double().log_softmax(-1)


def measure(
    checkpoint: Checkpoint, rows: torch.Tensor, modes: list[str], *, n_frames: int, seed: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The reference's own figures first, as `float32`, then each mode's."""
    model = _load(checkpoint, "float32")
    take = Engine(model).generate(rows, options=SamplingOptions(), seed=seed, max_frames=n_frames)
    frames = torch.stack(list(take))
    reference = forced_logits(model, rows, frames)
    spread = entropy(reference)
    yield (
        "float32",
        {
            "n_frames": len(frames),
            "entropy_first": spread[:, 0].mean().item(),
            "entropy_depth": spread[:, 1:].mean().item(),
        },
    )
    for mode in modes:
        # The name must not keep the last model while the next one is loaded.
        del model
        gc.collect()
        model = _load(checkpoint, mode)
        yield mode, compare(reference, forced_logits(model, rows, frames)).summary()


def _load(checkpoint: Checkpoint, mode: str) -> CSM:
    """`bfloat16`, `float32`, `int8`, `int4`, or a quantisation with a dtype: `int8:float32`."""
    name, _, dtype = mode.partition(":")
    quantize = name if name.startswith("int") else "none"
    kind = getattr(torch, dtype or ("bfloat16" if quantize != "none" else name))
    print(f"loading {mode}", file=sys.stderr, flush=True)
    return load_csm(checkpoint, device=torch.device("cpu"), dtype=kind, quantize=quantize)


def prompt(folder: Path, checkpoint: Checkpoint, arguments: argparse.Namespace) -> torch.Tensor:
    """Rows of the takes or of random frames, and of the text."""
    config = checkpoint.config
    tokenizer = Tokenizer(find_companions(folder).tokenizer, vocab_size=config.text_vocab_size)
    context = []
    for path in arguments.take:
        said = json.loads(path.with_suffix(".json").read_text())
        codes = torch.from_numpy(np.load(path).astype(np.int64))
        context.append((tokenizer.encode(spoken_text(said["speaker"], said["text"])), codes))
    n_random = arguments.context
    if n_random is None:
        n_random = RANDOM_CONTEXT if arguments.model is None and not context else 0
    generator = torch.Generator().manual_seed(arguments.seed)
    shape = (config.n_codebooks, n_random)
    noise = frame_positions(torch.randint(config.audio_vocab_size, shape, generator=generator))
    ids = tokenizer.encode(spoken_text(arguments.speaker, arguments.text))
    return torch.cat([noise, build_prompt(context, ids, config.n_codebooks)])


def print_table(results: dict[str, dict[str, Any]]) -> None:
    facts = results["float32"]
    print(
        f"{facts['n_frames']} frames; float32's entropy {facts['entropy_first']:.2f} nats in the first "
        f"codebook, {facts['entropy_depth']:.2f} in the others\n"
    )
    columns = {
        "KL first": "kl_first",
        "95 %": "kl_first_p95",
        "KL others": "kl_depth",
        "95 % ": "kl_depth_p95",
        "worst codebook": "kl_worst_codebook",
        "top-1 first": "top1_first",
        "top-1 others": "top1_depth",
    }
    print("| | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for mode, row in results.items():
        if mode != "float32":
            print(f"| {mode} | " + " | ".join(f"{row[key]:.4g}" for key in columns.values()) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--folder", type=Path, default=RANDOM_FOLDER, help="of the random model")
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--speaker", type=int, default=0)
    parser.add_argument("--take", type=Path, nargs="*", default=[])
    parser.add_argument("--context", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = arguments.model or random_model(arguments.folder)
    checkpoint = find_checkpoint(folder)
    rows = prompt(folder, checkpoint, arguments)
    modes = arguments.modes.split(",")
    results = dict(measure(checkpoint, rows, modes, n_frames=arguments.frames, seed=arguments.seed))
    print_machine(machine_facts())
    print(f"{folder.name}, {len(rows)} positions of context, ", end="")
    print_table(results)
    write_results("quality", {"model": folder.name, "n_prompt": len(rows), "results": results})


if __name__ == "__main__":
    main()
