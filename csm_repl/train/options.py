"""Every choice of a training run, in one place. The command line, `options.json` and the table in
docs/training.md are made from it.
"""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from csm_repl.errors import UsageError

__all__ = ["DataOptions", "Mode", "TrainOptions"]

Mode = Literal["lora", "full", "scratch"]


def _option(
    default: Any,
    help: str,
    *,
    group: str,
    low: float = -math.inf,
    high: float = math.inf,
    metavar: str = "N",
    free: bool = False,
) -> Any:
    """
    Args:
        low, high: smallest and largest number allowed.
        free: a resumed run may have another value.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "group": group,
            "low": low,
            "high": high,
            "metavar": metavar,
            "free": free,
        },
    )


@dataclass(frozen=True)
class TrainOptions:
    """How a model is trained. UsageError where a number is out of its range."""

    mode: Mode = "lora"
    seed: int = _option(0, "order of the items, held-out set, noise", group="length", low=0, high=2**63 - 1)
    # --- how long, how much at once
    max_steps: int | None = _option(
        None, "optimiser steps; by default as many as the epochs take", group="length", low=1
    )
    epochs: float = _option(3.0, "passes over the data", group="length", low=0.0, metavar="X")
    max_minutes: float | None = _option(
        # The schedule follows the larger of the two shares used.
        None,
        "end the run properly after this time",
        group="length",
        low=0.0,
        metavar="M",
    )
    batch_frames: int = _option(
        600,
        "positions (text and audio together) of a batch; how many items that is follows from their lengths",
        group="length",
        low=1,
    )
    accumulate: int = _option(1, "batches per optimiser step", group="length", low=1)
    # --- optimiser
    lr: float | None = _option(
        None,
        "peak learning rate; by default 2e-4 for --lora, 3e-5 for --full, 1e-3 from scratch",
        group="optimiser",
        low=0.0,
        metavar="X",
    )
    warmup_steps: int = _option(50, "steps until the peak", group="optimiser", low=0)
    final_lr_share: float = _option(
        0.05, "the cosine ends at this share of the peak", group="optimiser", low=0.0, high=1.0, metavar="X"
    )
    weight_decay: float = _option(0.01, "AdamW's weight decay", group="optimiser", low=0.0, metavar="X")
    betas: tuple[float, float] = _option(
        (0.9, 0.95), "AdamW's betas", group="optimiser", low=0.0, high=1.0, metavar="B1,B2"
    )
    clip_norm: float = _option(
        1.0, "the gradient's norm is clipped to this", group="optimiser", low=0.0, metavar="X"
    )
    ema: float | None = _option(
        None,
        "decay of an average of the weights, which is then evaluated and saved",
        group="optimiser",
        low=0.0,
        high=1.0,
        metavar="X",
    )
    # --- loss
    depth_fraction: float = _option(
        # Compute amortisation, as CSM's authors describe it.
        1 / 16,
        "share of the frames on which the depth decoder is trained; 1 = all",
        group="loss",
        low=0.0,
        high=1.0,
        metavar="X",
    )
    backbone_weight: float = _option(1.0, "weight of codebook 0's loss", group="loss", low=0.0, metavar="X")
    depth_weight: float = _option(
        1.0, "weight of the other codebooks' loss", group="loss", low=0.0, metavar="X"
    )
    speaker_weight: float = _option(
        0.0,
        "weight of an auxiliary loss: a third of the way through the backbone, every frame must tell its "
        "speaker's number; 0.3 helps from scratch",
        group="loss",
        low=0.0,
        metavar="X",
    )
    frame_dropout: float = _option(
        # Fine-tuning starts from a model that reads; only learning to read needs the push.
        0.0,
        "share of the past frames that the model does not hear, so that it reads its text; 0.2 helps from "
        "scratch",
        group="loss",
        low=0.0,
        high=0.9,
        metavar="X",
    )
    voice_dropout: float = _option(
        0.0,
        "share of the turns, each speaker's first one excepted, of which the model hears codebook 0 alone, "
        "so that it takes the voice from the speaker's earlier turns; 0.7 helps from scratch, if codebook 0 "
        "does not tell the voice",
        group="loss",
        low=0.0,
        high=0.9,
        metavar="X",
    )
    loss_speakers: tuple[int, ...] | None = _option(
        None, "learn these speakers' turns only; the others give context", group="loss", low=0, metavar="N,N"
    )
    # --- LoRA
    lora_rank: int = _option(16, "rank of the adapters", group="LoRA", low=1)
    lora_alpha: float = _option(
        32.0, "scale of the adapters, times the rank", group="LoRA", low=0.0, metavar="X"
    )
    lora_dropout: float = _option(
        0.05, "dropout before the adapters", group="LoRA", low=0.0, high=1.0, metavar="X"
    )
    lora_targets: tuple[str, ...] = _option(
        ("q_proj", "k_proj", "v_proj", "output_proj", "mlp"),
        "which layers get one: names of linear layers, mlp for all of the feed-forward; heads and projection "
        "are trained whole",
        group="LoRA",
        metavar="A,B",
    )
    # --- memory
    dtype: Literal["auto", "bfloat16", "float32"] = _option(
        "auto",
        "autocast: auto, bfloat16 or float32; what is trained stays float32",
        group="memory",
        metavar="DTYPE",
    )
    gradient_checkpointing: bool = _option(
        False, "compute activations twice instead of keeping them", group="memory"
    )
    # --- held-out set, results
    held_out: float = _option(
        0.05,
        "share of the items, at least one, that is never trained on; 0: none",
        group="results",
        low=0.0,
        high=0.9,
        metavar="X",
    )
    eval_every: int = _option(100, "steps between evaluations of the held-out loss", group="results", low=1)
    patience: int | None = _option(
        None, "stop after this many evaluations without a better held-out loss", group="results", low=1
    )
    save_every: int = _option(
        500, "steps between saved states, from which a run goes on", group="results", low=1, free=True
    )
    sample_every: int = _option(0, "steps between sample takes; 0: none", group="results", low=0, free=True)
    sample_texts: tuple[str, ...] = _option(
        ("[0]The quick brown fox jumps over the lazy dog.",),
        "what the samples say, [N] in front for speaker N; may be given several times",
        group="results",
        metavar="TEXT",
        free=True,
    )
    log_every: int = _option(10, "steps between lines of the log", group="results", low=1, free=True)
    tensorboard: bool = _option(False, "also write for TensorBoard", group="results", free=True)
    out: Path = _option(Path("runs/train"), "folder of the run", group="results", metavar="DIR", free=True)

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class DataOptions:
    """How data become items. UsageError where a number is out of its range."""

    turns: int = _option(
        1,
        "put single utterances together into conversations of N turns, so that the model learns to use "
        "its context",
        group="data",
        low=1,
        high=100,
    )
    voices: int = _option(
        2, "with --turns: how many speakers a conversation has at most", group="data", low=1, high=100
    )
    renumber: bool = _option(
        False,
        "with --turns: number the speakers of each conversation anew, so that a voice is learnt from the "
        "context and not from its number",
        group="data",
    )
    shorten_silence: bool = _option(False, "shorten long silences, as in reference clips", group="data")
    max_seconds: float = _option(
        30.0, "longer clips are reported and left out", group="data", low=0.08, high=60.0, metavar="S"
    )
    min_seconds: float = _option(
        0.3, "shorter clips are reported and left out", group="data", low=0.08, high=60.0, metavar="S"
    )

    def __post_init__(self) -> None:
        check_ranges(self)


def check_ranges(options: Any) -> None:
    """UsageError where a field of the dataclass `options` lies outside its `low`..`high`."""
    for item in fields(options):
        value = getattr(options, item.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                _check_range(item, number)


def _check_range(item: Field[Any], number: float) -> None:
    low, high = item.metadata.get("low", -math.inf), item.metadata.get("high", math.inf)
    if low <= number <= high:
        return
    bounds = f"at least {low:g}" if math.isinf(high) else f"between {low:g} and {high:g}"
    name = item.name.replace("_", "-")
    raise UsageError(f"{name} must be {bounds}, not {number}.", f"It means: {item.metadata['help']}.")
