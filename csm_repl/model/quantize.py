"""Which weights of a CSM are quantised, and a model whose layers are.

Attention and feed-forward matrices are: 97 % of what a frame reads. Embeddings are looked up, not read.
Norms are vectors. The two heads and the projection stay in the model's dtype: a head's error shifts the
logits that a code is chosen from without a layer behind it that could absorb it, every step of the depth
decoder goes through the projection, and together they are 3 % of bfloat16's bytes.
"""

from __future__ import annotations

import torch

from csm_repl.model.config import ModelConfig
from csm_repl.model.csm import CSM
from csm_repl.model.linear import Linear
from csm_repl.model.quantized_linear import (
    GROUP,
    Int4Linear,
    Int4NativeLinear,
    Int8Linear,
    QuantizedLinear,
    int4_packing,
)
from csm_repl.model.transformer import Layer

__all__ = ["empty_csm", "is_quantized", "quantize_parameter", "storage_id", "storage_kind"]

_MATRICES = ("wqkv", "wo", "w_gate_up", "w_down")
_KINDS: dict[str, type[QuantizedLinear]] = {
    "int8": Int8Linear,
    "int4": Int4Linear,
    "int4-native": Int4NativeLinear,
}
_FORMAT = 1
"""Counts up when the same weight gives other integers or scales, or they are stored in another way."""


def storage_kind(quantize: str, *, native: bool) -> str:
    """How a mode's weights are stored, which is what the other functions here call `quantize`.

    Args:
        quantize: none, int8 or int4.
        native: whether the native kernels will read them.
    """
    return "int4-native" if quantize == "int4" and native else quantize


def empty_csm(config: ModelConfig, *, dtype: torch.dtype, quantize: str) -> CSM:
    """A CSM on the meta device whose parameters have the shapes and dtypes that a loaded one has."""
    model = CSM(config).to(dtype)
    if quantize == "none":
        return model
    kind = _KINDS[quantize]
    for layer in (module for module in model.modules() if isinstance(module, Layer)):
        for name in _MATRICES:
            linear = getattr(layer, name)
            assert isinstance(linear, Linear)
            n_out, n_in = linear.weight.shape
            setattr(layer, name, kind(n_in, n_out))
    return model


def is_quantized(target: str, quantize: str) -> bool:
    """Whether the parameter `target` of a plain CSM is stored as integers in mode `quantize`."""
    return quantize != "none" and target.split(".")[-2:-1] in [[name] for name in _MATRICES]


def quantize_parameter(target: str, weight: torch.Tensor, quantize: str) -> dict[str, torch.Tensor]:
    """What takes the place of `target`, with its floating point weight [n_out, n_in], in a state dict."""
    owner = target.removesuffix("weight")
    return {owner + name: tensor for name, tensor in _KINDS[quantize].quantize(weight).items()}


def storage_id(quantize: str) -> str:
    """Tells stored weights apart that cannot take each other's place."""
    if quantize != "int4":
        return f"{quantize} {_FORMAT} {GROUP}" if quantize == "int4-native" else f"{quantize} {_FORMAT}"
    # Packed for the kernels of this CPU's vectors; a copied cache must not be read with another packing.
    packing = int4_packing() or (torch.__version__, torch.backends.cpu.get_cpu_capability())
    return f"{quantize} {_FORMAT} {GROUP} {packing}"
