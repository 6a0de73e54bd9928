"""A small codec network at frame rate: log-mel in, inverse STFT out.

The decoder predicts magnitude and phase of an STFT and never works at sample rate (the idea of Vocos,
arXiv:2306.00814), with ConvNeXt blocks (arXiv:2201.03545). Its convolutions are causal and keep their
past in a `Stream`, so pieces joined equal the whole. The encoder sees whole clips and looks both ways.
Codebooks come in two groups as in Mimi (arXiv:2410.00037): one for what is said, the others, a residual
chain, for how it sounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["CodecNetwork", "CodecSizes", "Past", "Quantizer", "Stream", "log_mel"]

COLUMN_GAIN_LIMIT = 6.0
"""Largest log magnitude of a bin; a full-scale sine has log(480) = 6.2."""


@dataclass(frozen=True)
class CodecSizes:
    sample_rate: int = 24_000
    hop: int = 240
    """Samples a column; the network's upper rate is 100 Hz."""
    columns: int = 8
    """Columns a frame: 12.5 frames a second."""
    n_fft_in: int = 1024
    n_mels: int = 80
    mel_max_hz: float = 10_000.0
    n_fft_out: int = 960
    width: int = 256
    expansion: int = 2
    encoder_blocks: tuple[int, int, int] = (1, 1, 2)
    """At 100, 50 and 12.5 Hz."""
    decoder_blocks: tuple[int, int] = (2, 6)
    """At 12.5 and 100 Hz."""
    n_semantic: int = 1
    n_codebooks: int = 12
    codebook_size: int = 512
    codebook_dim: int = 64

    @property
    def samples_per_frame(self) -> int:
        return self.hop * self.columns

    @property
    def groups(self) -> tuple[int, int]:
        return self.n_semantic, self.n_codebooks - self.n_semantic


Past = dict[nn.Module, torch.Tensor]
"""By module the columns [B, C, n] before the next piece; none at the start of a take."""


class Stream:
    """What the causal parts of a decoder remember between two pieces."""

    def __init__(self, past: Past | None = None) -> None:
        self._past: Past = {} if past is None else dict(past)

    @classmethod
    def joined(cls, pasts: Sequence[Past]) -> Stream:
        """One stream of several takes, of one row each; some may be at their start."""
        known = {module: past for each in pasts for module, past in each.items()}
        return cls(
            {
                module: torch.cat([each.get(module, torch.zeros_like(like)) for each in pasts])
                for module, like in known.items()
            }
        )

    def split(self) -> list[Past]:
        """The past of each row."""
        rows = zip(*(past.split(1) for past in self._past.values()), strict=True)
        return [dict(zip(self._past, row, strict=True)) for row in rows]

    def extend(self, module: nn.Module, x: torch.Tensor, n: int) -> torch.Tensor:
        """`x` [B, C, T] with the `n` columns before it (zeros at the start)."""
        past = self._past.get(module)
        if past is None:
            past = x.new_zeros(x.shape[0], x.shape[1], n)
        joined = torch.cat([past, x], dim=2)
        self._past[module] = joined[:, :, joined.shape[2] - n :]
        return joined


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int, expansion: int, *, kernel: int = 7, causal: bool) -> None:
        super().__init__()
        self.past = kernel - 1 if causal else 0
        self.depthwise = nn.Conv1d(width, width, kernel, groups=width, padding=0 if causal else kernel // 2)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: torch.Tensor, stream: Stream | None = None) -> torch.Tensor:
        """[B, C, T] -> the same."""
        y = x
        if self.past:
            y = stream.extend(self, x, self.past) if stream else F.pad(x, (self.past, 0))
        y = self.norm(self.depthwise(y).transpose(1, 2))
        y = self.down(F.gelu(self.up(y))) * self.scale
        return x + y.transpose(1, 2)


class Quantizer(nn.Module):
    """A residual chain of codebooks behind a projection, as plain tables."""

    tables: torch.Tensor

    def __init__(self, width: int, dim: int, n_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, dim, bias=False)
        self.out = nn.Linear(dim, width, bias=False)
        self.register_buffer("tables", torch.zeros(n_codebooks, codebook_size, dim))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, T] -> codes [B, K, T]."""
        residual = self.into(x.transpose(1, 2))
        codes = []
        for table in self.tables:
            nearest = torch.cdist(residual, table[None]).argmin(dim=-1)
            residual = residual - table[nearest]
            codes.append(nearest)
        return torch.stack(codes, dim=1)

    def decode(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [B, k <= K, T] -> [B, C, T]."""
        found = [table[codes[:, index]] for index, table in enumerate(self.tables[: codes.shape[1]])]
        result: torch.Tensor = self.out(torch.stack(found).sum(dim=0)).transpose(1, 2)
        return result


class CodecEncoder(nn.Module):
    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        width, (n_fast, n_middle, n_slow) = sizes.width, sizes.encoder_blocks
        self.stem = nn.Conv1d(sizes.n_mels, width, 7, padding=3)
        self.fast = self._blocks(n_fast, sizes)
        self.halve = nn.Conv1d(width, width, 4, stride=2, padding=1)
        self.middle = self._blocks(n_middle, sizes)
        stride = sizes.columns // 2
        self.gather = nn.Conv1d(width, width, 2 * stride, stride=stride, padding=stride // 2)
        self.slow = self._blocks(n_slow, sizes)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    @staticmethod
    def _blocks(n: int, sizes: CodecSizes) -> nn.Sequential:
        return nn.Sequential(*(ConvNeXtBlock(sizes.width, sizes.expansion, causal=False) for _ in range(n)))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Log-mel [B, n_mels, T * columns] -> [B, C, T]."""
        x = self.halve(self.fast(self.stem(mel)))
        x = self.slow(self.gather(self.middle(x)))
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


class CodecDecoder(nn.Module):
    window: torch.Tensor

    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        width, (n_slow, n_fast) = sizes.width, sizes.decoder_blocks
        self.sizes = sizes
        self.slow = nn.ModuleList(
            ConvNeXtBlock(width, sizes.expansion, kernel=5, causal=True) for _ in range(n_slow)
        )
        self.spread = nn.Linear(width, width * sizes.columns)
        self.fast = nn.ModuleList(ConvNeXtBlock(width, sizes.expansion, causal=True) for _ in range(n_fast))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 2 * (sizes.n_fft_out // 2 + 1))
        self.make_window()

    def make_window(self) -> None:
        """Not part of the weights; to be made again after building on the meta device."""
        device = None if self.head.weight.is_meta else self.head.weight.device
        window = torch.hann_window(self.sizes.n_fft_out, device=device or "cpu")
        self.register_buffer("window", window, persistent=False)

    def columns(self, x: torch.Tensor, stream: Stream | None = None) -> torch.Tensor:
        """[B, C, T] -> STFT columns, complex [B, n_fft_out / 2 + 1, T * columns]."""
        for block in self.slow:
            x = block(x, stream)
        batch, width, n_frames = x.shape
        x = self.spread(x.transpose(1, 2)).view(batch, n_frames * self.sizes.columns, width).transpose(1, 2)
        for block in self.fast:
            x = block(x, stream)
        magnitude, phase = self.head(self.norm(x.transpose(1, 2))).transpose(1, 2).chunk(2, dim=1)
        return torch.polar(magnitude.clamp(max=COLUMN_GAIN_LIMIT).exp(), phase)

    def frames(self, columns: torch.Tensor) -> torch.Tensor:
        """STFT columns -> windowed frames [B, n_fft_out, columns], to be overlapped by `hop`."""
        frames: torch.Tensor = torch.fft.irfft(columns, n=self.sizes.n_fft_out, dim=1) * self.window[:, None]
        return frames

    def overlap_add(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames [B, n_fft_out, n] -> sum, and sum of squared windows: [B, (n - 1) * hop + n_fft_out]."""
        n_fft, n = frames.shape[1:]
        length = (n - 1) * self.sizes.hop + n_fft
        weights = (self.window**2)[None, :, None].expand(1, n_fft, n)

        def add(x: torch.Tensor) -> torch.Tensor:
            folded: torch.Tensor = F.fold(x, (1, length), (1, n_fft), stride=(1, self.sizes.hop))
            return folded[:, 0, 0]

        return add(frames), add(weights).expand(frames.shape[0], -1)

    @property
    def lead(self) -> int:
        """Samples by which a column's window begins before its hop: what a stream holds back."""
        return (self.sizes.n_fft_out - self.sizes.hop) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, T] -> samples [B, T * samples_per_frame]."""
        sound, weights = self.overlap_add(self.frames(self.columns(x)))
        inside = slice(self.lead, sound.shape[1] - self.lead)
        return sound[:, inside] / weights[:, inside]


class CodecNetwork(nn.Module):
    def __init__(self, sizes: CodecSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = CodecEncoder(sizes)
        self.quantizers = nn.ModuleList(
            Quantizer(sizes.width, sizes.codebook_dim, n, sizes.codebook_size) for n in sizes.groups
        )
        self.decoder = CodecDecoder(sizes)

    def encode(self, samples: torch.Tensor) -> torch.Tensor:
        """Samples [B, N] -> codes [B, n_codebooks, ceil(N / samples_per_frame)]."""
        x = self.encoder(log_mel(samples, self.sizes))
        return torch.cat([quantizer.encode(x) for quantizer in self._quantizers()], dim=1)

    def _quantizers(self) -> Iterable[Quantizer]:
        return self.quantizers  # type: ignore[return-value]

    def embed(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes [B, k, T] -> what the decoder reads, [B, C, T]. k may be less than all."""
        parts, at = [], 0
        for quantizer, n in zip(self._quantizers(), self.sizes.groups, strict=True):
            if codes.shape[1] > at:
                parts.append(quantizer.decode(codes[:, at : at + n]))
            at += n
        return torch.stack(parts).sum(dim=0)


def log_mel(samples: torch.Tensor, sizes: CodecSizes) -> torch.Tensor:
    """Samples [B, N] -> log-mel [B, n_mels, columns of whole frames]; a column is centred on its hop."""
    n_frames = -(-samples.shape[1] // sizes.samples_per_frame)
    n_columns = n_frames * sizes.columns
    before = (sizes.n_fft_in - sizes.hop) // 2
    total = (n_columns - 1) * sizes.hop + sizes.n_fft_in
    padded = F.pad(samples, (before, total - before - samples.shape[1]))
    spectrum = torch.stft(
        padded,
        sizes.n_fft_in,
        sizes.hop,
        window=torch.hann_window(sizes.n_fft_in, device=samples.device),
        center=False,
        return_complex=True,
    )
    mel = mel_filters(sizes.n_fft_in, sizes.n_mels, sizes.sample_rate, sizes.mel_max_hz).to(samples.device)
    return torch.log(mel @ spectrum.abs() + 1e-2)


def mel_filters(n_fft: int, n_mels: int, rate: int, max_hz: float) -> torch.Tensor:
    """Triangles [n_mels, n_fft / 2 + 1] on the mel scale of HTK, 2595 log10(1 + f / 700), of area one bin."""
    top = 2595.0 * math.log10(1.0 + max_hz / 700.0)
    corners = 700.0 * (10.0 ** (torch.linspace(0.0, top, n_mels + 2) / 2595.0) - 1.0)
    bins = torch.linspace(0.0, rate / 2, n_fft // 2 + 1)
    rising = (bins[None] - corners[:-2, None]) / (corners[1:-1] - corners[:-2])[:, None]
    falling = (corners[2:, None] - bins[None]) / (corners[2:] - corners[1:-1])[:, None]
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    # The lowest triangles are narrower than a bin and may catch none; they take the nearest.
    nearest = (bins[None] - corners[1:-1, None]).abs().argmin(dim=1)
    empty = triangles.sum(dim=1) == 0
    triangles[empty, nearest[empty]] = 1.0
    return triangles / triangles.sum(dim=1, keepdim=True)
