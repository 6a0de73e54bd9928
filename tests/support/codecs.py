"""A codec that looks ahead, of random weights."""

from __future__ import annotations

import torch

from csm_repl.codec import IstftCodec
from csm_repl.codec.istft_network import CodecNetwork, CodecSizes


def random_istft(n_codebooks: int, codebook_size: int = 32) -> IstftCodec:
    """Holds 360 samples back."""
    sizes = CodecSizes(
        width=16, codebook_dim=8, codebook_size=codebook_size, n_codebooks=n_codebooks, decoder_blocks=(1, 2)
    )
    network = CodecNetwork(sizes).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for tensor in network.state_dict().values():
        if tensor.ndim > 1:
            tensor.normal_(std=0.2, generator=generator)
    return IstftCodec(network, n_codebooks=n_codebooks, weights_id="random")
