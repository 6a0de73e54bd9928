"""Trains the small codec on the corpus.

    python -m tools.demo_voice.train_codec CORPUS OUT [--minutes 50] [--batch 12] [--seed 0]
    python -m tools.demo_voice.train_codec CORPUS OUT --refine CODEC --model MODEL --minutes 20

Reconstruction losses only: log-mel distances at three resolutions, and a compressed complex STFT distance
that teaches the phase. The first codebook is not found by reconstruction: its entries stand for the
commonest pairs of phones (one for each half of a frame), and the encoder learns them as classes from what
flite spoke. So it carries what is said, in any voice, as Mimi's is distilled from a speech model. Goes on
from OUT/state.pt if it is there; ends with OUT/codec.safetensors and OUT/codec.json. `--refine` keeps another
codec's codes as they are, and trains its decoder alone on the codes that MODEL speaks: half of them the
codec's own, half drawn anew by MODEL (see redraw.py), whose errors the decoder then expects.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from moshi.quantization import ResidualVectorQuantizer
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from csm_repl.codec.istft_network import CodecNetwork, CodecSizes, Quantizer, log_mel, mel_filters

CROP_FRAMES = 16
PEAK_LR, REFINING_LR, FINAL_LR = 8e-4, 3e-4, 2e-5
PHONES_WEIGHT, COMMIT_WEIGHT, COMPLEX_WEIGHT = 0.5, 0.5, 2.0
EMA_DECAY = 0.998
REDRAWING_TEMPERATURE = 0.6

Codes = NDArray[np.int64]
"""Of one utterance: the first codebook's entries [T], or all codes [K, T]."""


def majority(labels: list[str]) -> str:
    return max(labels, key=labels.count)


class PhonePairs:
    """What the entries of the first codebook stand for: pairs of phones, the commonest first.

    Entry 0 stands for none, so that the all-zero frame that ends a turn is no sound.
    """

    def __init__(self, counts: collections.Counter[tuple[str, str]], size: int) -> None:
        self._entries = {pair: entry for entry, (pair, _) in enumerate(counts.most_common(size - 1), start=1)}

    def entry(self, first: str, second: str) -> int:
        for pair in ((first, second), (second, second), (first, first)):
            if pair in self._entries:
                return self._entries[pair]
        # A rare phone in a rare place; the neighbour's commonest pair is the best that is left.
        return next((entry for pair, entry in self._entries.items() if first in pair or second in pair), 1)


class Corpus:
    """All utterances in memory as 16-bit samples, with the first codebook's entry for each frame."""

    def __init__(self, folder: Path, sizes: CodecSizes, limit: int) -> None:
        self.sizes = sizes
        lines = (folder / "utterances.jsonl").read_text().splitlines()[:limit]
        records = [json.loads(line) for line in lines]
        self.records = records
        self.sounds: list[NDArray[np.int16]] = []
        pairs: list[list[tuple[str, str]]] = []
        for record in records:
            sound, _ = soundfile.read(folder / record["audio"], dtype="int16")
            self.sounds.append(sound)
            pairs.append(self._pairs(record["phones"], -(-len(sound) // sizes.samples_per_frame)))
        counts = collections.Counter(pair for item in pairs for pair in item)
        self.phone_pairs = PhonePairs(counts, sizes.codebook_size)
        self.entries = [np.array([self.phone_pairs.entry(*pair) for pair in item]) for item in pairs]
        self.weights = np.array([len(sound) for sound in self.sounds], dtype=np.float64)
        self.weights /= self.weights.sum()

    def _pairs(self, phones: list[tuple[str, float]], n_frames: int) -> list[tuple[str, str]]:
        columns, half = self.sizes.columns, self.sizes.columns // 2
        names = ["pau"] * (n_frames * columns)
        start = 0
        for name, end_s in phones:
            end = min(round(end_s * self.sizes.sample_rate / self.sizes.hop), len(names))
            names[start:end] = [name] * (end - start)
            start = max(start, end)
        return [
            (majority(names[at : at + half]), majority(names[at + half : at + columns]))
            for at in range(0, len(names), columns)
        ]

    def batch(self, n: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops [n, N] at a random level, and the first codebook's entries [n, frames]."""
        sounds, entries = self._crops(self.entries, n, rng)
        gain = 10 ** (rng.uniform(-8, 4, (n, 1)) / 20)
        return sounds * torch.from_numpy(gain.astype(np.float32)), entries

    def batch_of_codes(
        self, kinds: tuple[list[Codes], ...], n: int, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops [n, N], and their codes [n, K, frames], all of one kind."""
        return self._crops(kinds[rng.integers(len(kinds))], n, rng)

    def _crops(
        self, labels: list[Codes], n: int, rng: np.random.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size = self.sizes.samples_per_frame
        sounds = np.zeros((n, CROP_FRAMES * size), dtype=np.float32)
        found = np.ones((n, *labels[0].shape[:-1], CROP_FRAMES), dtype=np.int64)
        for row, which in enumerate(rng.choice(len(self.sounds), n, p=self.weights)):
            sound, label = self.sounds[which], labels[which]
            # Whole frames, as the codec will see them.
            frame = int(rng.integers(0, max(1, label.shape[-1] - CROP_FRAMES + 1)))
            piece, said = sound[frame * size :][: CROP_FRAMES * size], label[..., frame:][..., :CROP_FRAMES]
            sounds[row, : len(piece)] = piece / 32768
            found[row, ..., : said.shape[-1]] = said
        return torch.from_numpy(sounds), torch.from_numpy(found)


class Training(nn.Module):
    """The network with what only training needs: moshi's quantizer and the losses."""

    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        self.network = CodecNetwork(sizes)
        nn.init.normal_(self.said.tables, std=0.3)
        self.said.tables.requires_grad_(True)
        self.rest = ResidualVectorQuantizer(
            n_q=sizes.n_codebooks - sizes.n_semantic, bins=sizes.codebook_size, dimension=sizes.codebook_dim,
            input_dimension=sizes.width, output_dimension=sizes.width, q_dropout=True,
            force_projection=True,
        )  # fmt: skip
        self.losses = SpectralLosses(sizes)

    @property
    def said(self) -> Quantizer:
        return self.network.quantizers[0]  # type: ignore[return-value]

    def trained(self) -> list[nn.Parameter | torch.Tensor]:
        """What the optimiser moves; the first codebook is a buffer of the network."""
        return [*(p for p in self.parameters() if p.requires_grad), self.said.tables]

    def refine(self, sounds: torch.Tensor, codes: torch.Tensor) -> dict[str, torch.Tensor]:
        """Losses of the decoder on codes [n, k, frames] that stay as they are."""
        with torch.no_grad():
            x = self.network.embed(codes)
        return self.losses(self.network.decoder(x), sounds)

    def forward(self, sounds: torch.Tensor, entries: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.network.encoder(log_mel(sounds, self.network.sizes))
        # The nearest entry is the likeliest class of a softmax over negative squared distances.
        distances = torch.cdist(self.said.into(x.transpose(1, 2)), self.said.tables) ** 2
        found = distances.argmin(dim=-1)
        said = self.said.decode(found[:, None])
        sounded = self.rest(x, 12.5)
        return {
            **self.losses(self.network.decoder(said + sounded.x), sounds),
            "phones": PHONES_WEIGHT * F.cross_entropy(-distances.flatten(0, 1), entries.flatten()),
            "commit": COMMIT_WEIGHT * sounded.penalty,
            "phones' accuracy": (found == entries).float().mean().detach(),
        }

    @torch.no_grad()
    def copy_tables(self) -> None:
        """Puts the quantizer's averages into the network's plain tables."""
        ours: Quantizer = self.network.quantizers[1]  # type: ignore[assignment]
        ours.into.weight.copy_(self.rest.input_proj.weight[:, :, 0])
        ours.out.weight.copy_(self.rest.output_proj.weight[:, :, 0])
        ours.tables.copy_(torch.stack([layer.embedding for layer in self.rest.vq.layers]))


class SpectralLosses(nn.Module):
    window_complex: torch.Tensor

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


def begin_refining(training: Training, source: Path) -> None:
    """Takes a trained codec; only its decoder will be trained."""
    training.network.load_state_dict(load_file(source / "codec.safetensors"))
    training.requires_grad_(False)
    training.said.tables.requires_grad_(False)
    training.network.decoder.requires_grad_(True)


def codes_of(corpus: Corpus, codec: Path, model: Path) -> tuple[list[Codes], list[Codes]]:
    """Of each utterance the codec's codes, and those that the model draws, [K, T]."""
    from tools.demo_voice.redraw import Speaker

    speaker = Speaker(model, codec, temperature=REDRAWING_TEMPERATURE)
    sounds = (torch.from_numpy(sound.astype(np.float32) / 32768) for sound in corpus.sounds)
    texts, voices = ([record[name] for record in corpus.records] for name in ("text", "voice"))
    pairs = [(own.numpy(), drawn.numpy()) for own, drawn in speaker.codes(texts, voices, sounds)]
    return [own for own, _ in pairs], [drawn for _, drawn in pairs]


def train(
    corpus: Corpus, sizes: CodecSizes, out: Path, *, minutes: float, n_batch: int, seed: int,
    refined: tuple[Path, Path] | None,
) -> Training:  # fmt: skip
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    training = Training(sizes)
    peak_lr, parameters = PEAK_LR, training.trained()
    if refined is not None:
        begin_refining(training, refined[0])
        codes = codes_of(corpus, *refined)
        peak_lr, parameters = REFINING_LR, list(training.network.decoder.parameters())
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
        if refined is None:
            losses = training(*corpus.batch(n_batch, rng))
        else:
            losses = training.refine(*corpus.batch_of_codes(codes, n_batch, rng))
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


def export(training: Training, sizes: CodecSizes, out: Path, *, refined: bool) -> None:
    if not refined:
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
    parser.add_argument("--model", type=Path, help="with --refine: whose codes will be decoded")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sizes = CodecSizes()
    corpus = Corpus(arguments.corpus, sizes, arguments.limit)
    print(f"{len(corpus.sounds)} utterances", flush=True)
    training = train(
        corpus, sizes, arguments.out, minutes=arguments.minutes, n_batch=arguments.batch, seed=arguments.seed,
        refined=(arguments.refine, arguments.model) if arguments.refine else None,
    )  # fmt: skip
    export(training, sizes, arguments.out, refined=arguments.refine is not None)


if __name__ == "__main__":
    main()
