"""Every choice of a training run, in one place. The command line and `options.json` are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["Mode", "TrainOptions"]

Mode = Literal["lora", "full", "scratch"]


@dataclass(frozen=True)
class TrainOptions:
    mode: Mode = "lora"
    seed: int = 0
    # --- how long, how much at once
    max_steps: int | None = None
    """Optimiser steps; None: as many as `epochs` takes."""
    epochs: float = 3.0
    max_minutes: float | None = None
    """Ends the run, in good order, after this time. The schedule follows the larger of the two shares used."""
    batch_frames: int = 600
    """Positions (text and audio together) of a batch; how many items that is follows from their lengths."""
    accumulate: int = 1
    """Batches an optimiser step."""
    # --- optimiser
    lr: float | None = None
    """Peak learning rate; None: 2e-4 for LoRA, 3e-5 for full, 1e-3 from scratch."""
    warmup_steps: int = 50
    final_lr_share: float = 0.05
    """The cosine ends at this share of the peak."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = 1.0
    ema: float | None = None
    """Decay of the average of the weights that is evaluated and saved; None: the weights themselves."""
    # --- loss
    depth_fraction: float = 1 / 16
    """Share of the frames on which the depth decoder is trained (compute amortisation, as CSM's authors
    describe it); 1 = all."""
    backbone_weight: float = 1.0
    depth_weight: float = 1.0
    loss_speakers: tuple[int, ...] | None = None
    """Only these speakers' turns are learnt; None: every turn that its item marks."""
    # --- LoRA
    lora_rank: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.05
    lora_targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "output_proj", "mlp")
    # --- memory
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Autocast; weights and optimiser stay float32 for what is trained."""
    gradient_checkpointing: bool = False
    # --- held-out set, results
    held_out: float = 0.05
    """Share of the items, at least one, never trained on; drawn with `seed`."""
    eval_every: int = 100
    patience: int | None = None
    """Stops after this many evaluations without a better held-out loss."""
    save_every: int = 500
    sample_every: int = 0
    """Speaks `sample_texts` every so many steps; 0: never."""
    sample_texts: tuple[str, ...] = ("[0]The quick brown fox jumps over the lazy dog.",)
    log_every: int = 10
    tensorboard: bool = False
    out: Path = field(default=Path("runs/train"))
