"""Trains the small codec on the corpus.

    python -m tools.demo_voice.train_codec CORPUS OUT [--minutes 50] [--batch 12] [--seed 0]
    python -m tools.demo_voice.train_codec CORPUS OUT --refine CODEC --codebooks 8 --minutes 30

Reconstruction losses only: log-mel distances at three resolutions, and a compressed complex STFT distance
that teaches the phase. The first codebook is also asked for the phones that flite spoke (eight a frame), so
that it carries what is said, as Mimi's is distilled from a speech model. Goes on from OUT/state.pt if it is
there; ends with OUT/codec.safetensors and OUT/codec.json. `--refine` keeps another codec's codes as they are,
and trains its decoder alone on the first codebooks that the language model is to speak.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from moshi.quantization import SplitResidualVectorQuantizer
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from csm_repl.codec.istft_network import CodecNetwork, CodecSizes, log_mel, mel_filters

CROP_FRAMES = 16
PEAK_LR, REFINING_LR, FINAL_LR = 8e-4, 3e-4, 2e-5
PHONE_WEIGHT, COMMIT_WEIGHT, COMPLEX_WEIGHT = 0.3, 0.5, 2.0
EMA_DECAY = 0.998


class Corpus:
    """All utterances in memory as 16-bit samples, with a phone per column of 10 ms."""

    def __init__(self, folder: Path, sizes: CodecSizes, limit: int) -> None:
        self.sizes = sizes
        lines = (folder / "utterances.jsonl").read_text().splitlines()[:limit]
        records = [json.loads(line) for line in lines]
        self.phones = sorted({name for record in records for name, _ in record["phones"]})
        index = {name: number for number, name in enumerate(self.phones)}
        self.sounds: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        for record in records:
            sound, _ = soundfile.read(folder / record["audio"], dtype="int16")
            n_columns = -(-len(sound) // sizes.samples_per_frame) * sizes.columns
            label = np.full(n_columns, index["pau"], dtype=np.int64)
            start = 0
            for name, end_s in record["phones"]:
                end = round(end_s * sizes.sample_rate / sizes.hop)
                label[start:end] = index[name]
                start = max(start, end)
            self.sounds.append(sound)
            self.labels.append(label)
        self.weights = np.array([len(sound) for sound in self.sounds], dtype=np.float64)
        self.weights /= self.weights.sum()

    def batch(self, n: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops [n, N] at a random level, and the phones [n, columns]."""
        n_samples = CROP_FRAMES * self.sizes.samples_per_frame
        n_columns = CROP_FRAMES * self.sizes.columns
        sounds = np.zeros((n, n_samples), dtype=np.float32)
        labels = np.zeros((n, n_columns), dtype=np.int64) + self.phones.index("pau")
        for row, which in enumerate(rng.choice(len(self.sounds), n, p=self.weights)):
            sound, label = self.sounds[which], self.labels[which]
            # Whole columns, so that the labels stay in step; not whole frames, which clips never keep.
            column = int(rng.integers(0, max(1, len(label) - n_columns + 1)))
            piece = sound[column * self.sizes.hop :][:n_samples]
            sounds[row, : len(piece)] = piece
            labels[row, : len(label[column:][:n_columns])] = label[column:][:n_columns]
        gain = 10 ** (rng.uniform(-8, 4, (n, 1)) / 20) / 32768
        return torch.from_numpy(sounds * gain.astype(np.float32)), torch.from_numpy(labels)


class Training(nn.Module):
    """The network with what only training needs: moshi's quantizer and the phone head."""

    def __init__(self, sizes: CodecSizes, n_phones: int) -> None:
        super().__init__()
        self.network = CodecNetwork(sizes)
        self.quantizer = SplitResidualVectorQuantizer(
            n_q=sizes.n_codebooks, n_q_semantic=sizes.n_semantic, bins=sizes.codebook_size,
            dimension=sizes.codebook_dim, input_dimension=sizes.width, output_dimension=sizes.width,
            q_dropout=True,
        )  # fmt: skip
        self.phone_head = nn.Linear(sizes.width, sizes.columns * n_phones)
        self.losses = SpectralLosses(sizes)

    def refine(self, sounds: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses of the decoder on codes that stay as they are."""
        with torch.no_grad():
            x = self.network.encoder(log_mel(sounds, self.network.sizes))
            x = self.quantizer.decode(self.quantizer.encode(x))
        return self.losses(self.network.decoder(x), sounds)

    def forward(self, sounds: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes = self.network.sizes
        x = self.network.encoder(log_mel(sounds, sizes))
        said = self.quantizer.rvq_first(x, 12.5)
        sounded = self.quantizer.rvq_rest(x, 12.5)
        logits = self.phone_head(said.x.transpose(1, 2)).view(labels.shape[0] * labels.shape[1], -1)
        output = self.network.decoder(said.x + sounded.x)
        return {
            **self.losses(output, sounds),
            "phones": PHONE_WEIGHT * F.cross_entropy(logits, labels.flatten()),
            "commit": COMMIT_WEIGHT * (said.penalty + sounded.penalty),
            "phone accuracy": (logits.argmax(dim=1) == labels.flatten()).float().mean().detach(),
        }

    @torch.no_grad()
    def copy_tables(self) -> None:
        """Puts the quantizer's averages into the network's plain tables."""
        for ours, theirs in zip(
            self.network.quantizers, (self.quantizer.rvq_first, self.quantizer.rvq_rest), strict=True
        ):
            ours.into.weight.copy_(theirs.input_proj.weight[:, :, 0])
            ours.out.weight.copy_(theirs.output_proj.weight[:, :, 0])
            ours.tables.copy_(torch.stack([layer.embedding for layer in theirs.vq.layers]))


class SpectralLosses(nn.Module):
    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        self.resolutions = ((512, 128, 40), (1024, 256, 80), (2048, 512, 120))
        for n_fft, _, n_mels in self.resolutions:
            filters = mel_filters(n_fft, n_mels, sizes.sample_rate, sizes.sample_rate / 2)
            self.register_buffer(f"mel{n_fft}", filters, persistent=False)
            self.register_buffer(f"window{n_fft}", torch.hann_window(n_fft), persistent=False)
        self.n_complex, self.hop_complex = sizes.n_fft_out, sizes.hop
        self.register_buffer("window_complex", torch.hann_window(self.n_complex), persistent=False)

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
        mel = output.new_zeros(())
        for n_fft, hop, _ in self.resolutions:
            filters, window = getattr(self, f"mel{n_fft}"), getattr(self, f"window{n_fft}")
            a, b = (
                torch.log(
                    filters @ torch.stft(x, n_fft, hop, window=window, return_complex=True).abs() + 1e-3
                )
                for x in (output, target)
            )
            mel = mel + (a - b).abs().mean()
        a, b = (
            torch.stft(x, self.n_complex, self.hop_complex, window=self.window_complex, return_complex=True)
            for x in (output, target)
        )
        a, b = (x * (x.abs() + 1e-3) ** -0.5 for x in (a, b))
        return {"mel": mel, "complex": COMPLEX_WEIGHT * torch.view_as_real(a - b).abs().mean()}


def begin_refining(training: Training, source: Path, n_codebooks: int) -> None:
    """Takes a trained codec's averaged weights; only the decoder will be trained."""
    state = torch.load(source / "state.pt", weights_only=True)
    # The phone head has done its work, and its size depends on the corpus.
    weights = {k: v for k, v in state["training"].items() if not k.startswith("phone_head.")}
    training.load_state_dict(weights, strict=False)
    with torch.no_grad():
        for (name, parameter), average in zip(training.named_parameters(), state["averages"], strict=True):
            if name in weights:
                parameter.copy_(average)
    training.requires_grad_(False)
    training.network.decoder.requires_grad_(True)
    training.quantizer.set_num_codebooks(n_codebooks)
    training.eval()


def train(
    corpus: Corpus, sizes: CodecSizes, out: Path, *, minutes: float, n_batch: int, seed: int,
    refined: tuple[Path, int] | None,
) -> Training:  # fmt: skip
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    training = Training(sizes, len(corpus.phones))
    peak_lr = PEAK_LR
    if refined is not None:
        begin_refining(training, *refined)
        peak_lr = REFINING_LR
    parameters = [p for p in training.parameters() if p.requires_grad]
    averages = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=peak_lr, betas=(0.8, 0.98), weight_decay=1e-3)
    step, used_s = 0, 0.0
    state_path = out / "state.pt"
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        training.load_state_dict(state["training"])
        optimizer.load_state_dict(state["optimizer"])
        averages, step, used_s = state["averages"], state["step"], state["used_s"]
        rng = np.random.default_rng(seed + step)
        print(f"goes on at step {step}", flush=True)
    sums: dict[str, float] = {}
    before, saved_at = time.monotonic(), time.monotonic()
    while used_s < 60 * minutes:
        share = used_s / (60 * minutes)
        lr = FINAL_LR + (peak_lr - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * share)) * min(1.0, step / 200)
        for group in optimizer.param_groups:
            group["lr"] = lr
        sounds, labels = corpus.batch(n_batch, rng)
        losses = training(sounds, labels) if refined is None else training.refine(sounds)
        total = torch.stack([value for name, value in losses.items() if "accuracy" not in name]).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1 - decay)
        step += 1
        now = time.monotonic()
        used_s, before = used_s + now - before, now
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value.item()
        if step % 100 == 0:
            shown = "  ".join(f"{name} {value / 100:.3f}" for name, value in sums.items())
            print(f"{used_s / 60:6.1f} min  step {step}  {shown}", flush=True)
            sums.clear()
        if now - saved_at > 120 or used_s >= 60 * minutes:
            saved_at = now
            state = {
                "training": training.state_dict(), "optimizer": optimizer.state_dict(), "averages": averages,
                "step": step, "used_s": used_s,
            }  # fmt: skip
            torch.save(state, state_path.with_suffix(".part"))
            state_path.with_suffix(".part").replace(state_path)
    with torch.no_grad():
        for parameter, average in zip(parameters, averages, strict=True):
            parameter.copy_(average)
    return training.eval()


def export(training: Training, sizes: CodecSizes, out: Path) -> None:
    training.copy_tables()
    state = {name: tensor.half().contiguous() for name, tensor in training.network.state_dict().items()}
    save_file(state, out / "codec.safetensors", metadata={"format": "pt"})
    description: dict[str, Any] = {"codec": "istft", "config": asdict(sizes)}
    (out / "codec.json").write_text(json.dumps(description, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=50.0)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--limit", type=int, default=8000, help="utterances to learn from")
    parser.add_argument("--refine", type=Path, metavar="CODEC", help="codec whose decoder is trained on")
    parser.add_argument("--codebooks", type=int, default=12, help="with --refine: how many are decoded")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sizes = CodecSizes()
    corpus = Corpus(arguments.corpus, sizes, arguments.limit)
    print(f"{len(corpus.sounds)} utterances, {len(corpus.phones)} phones", flush=True)
    training = train(
        corpus, sizes, arguments.out, minutes=arguments.minutes, n_batch=arguments.batch, seed=arguments.seed,
        refined=(arguments.refine, arguments.codebooks) if arguments.refine else None,
    )  # fmt: skip
    export(training, sizes, arguments.out)


if __name__ == "__main__":
    main()
