"""Which weights of a CSM are quantised, and a model whose layers are.

Attention and feed-forward matrices are: 97 % of what a frame reads. Embeddings are looked up, not read.
Norms are vectors. The two heads and the projection stay in the model's dtype: a head's error shifts the
logits that a code is chosen from without a layer behind it that could absorb it, every step of the depth
decoder goes through the projection, and together they are 3 % of bfloat16's bytes.
"""

from __future__ import annotations

import torch

from csm_repl.files.config import ModelConfig
from csm_repl.model.csm import CSM
from csm_repl.model.layers.cpu_linear import (
    GROUP,
    Int4Linear,
    Int4NativeLinear,
    Int8Linear,
    QuantizedLinear,
    int4_packing,
)
from csm_repl.model.layers.gpu_linear import Fp8GpuLinear, Int4GpuLinear, Int8GpuLinear
from csm_repl.model.layers.linear import Linear
from csm_repl.model.layers.native import runs_natively
from csm_repl.model.transformer import Layer

__all__ = [
    "choose_kernels",
    "empty_csm",
    "is_quantized",
    "quantize_parameter",
    "storage_id",
    "storage_name",
]

_MATRICES = ("wqkv", "wo", "w_gate_up", "w_down")
_KINDS: dict[str, dict[str, type[QuantizedLinear]]] = {
    "native": {"int8": Int8Linear, "int4": Int4NativeLinear},
    "cpu": {"int8": Int8Linear, "int4": Int4Linear},
    "cuda": {"int8": Int8GpuLinear, "fp8": Fp8GpuLinear, "int4": Int4GpuLinear},
}
"""The layers by what multiplies them and mode. `native` is C on a CPU, `cpu` are PyTorch's kernels there."""
_FORMAT = 1
"""Counts up when the same weight gives other integers or scales, or they are stored in another way."""


def choose_kernels(quantize: str, device: torch.device, dtype: torch.dtype, *, native: bool) -> str:
    """What will multiply a model's weights: `native`, or the device's type.

    Args:
        quantize: none, int8, fp8 or int4.
        device: where the model will run.
        dtype: its dtype.
        native: whether the native kernels are wanted, where there are any.

    Raises:
        ValueError: nothing there multiplies weights of that mode.
    """
    kernels = "native" if native and runs_natively(device, dtype) else device.type
    if quantize != "none" and quantize not in _KINDS.get(kernels, {}):
        raise ValueError(f"no kernels for {quantize} on {device}")
    return kernels


def empty_csm(config: ModelConfig, *, dtype: torch.dtype, quantize: str, kernels: str = "cpu") -> CSM:
    """A CSM on the meta device whose parameters have the shapes and dtypes that a loaded one has.

    Args:
        config: sizes.
        dtype: of what is not quantised.
        quantize: none, int8, fp8 or int4.
        kernels: what will multiply (see `choose_kernels`).
    """
    model = CSM(config).to(dtype)
    if quantize == "none":
        return model
    kind = _KINDS[kernels][quantize]
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


def quantize_parameter(
    target: str, weight: torch.Tensor, quantize: str, kernels: str = "cpu"
) -> dict[str, torch.Tensor]:
    """What takes the place of `target`, with its floating point weight [n_out, n_in], in a state dict."""
    owner = target.removesuffix("weight")
    kind = _KINDS[kernels][quantize]
    return {owner + name: tensor for name, tensor in kind.quantize(weight).items()}


def storage_name(quantize: str, kernels: str) -> str:
    """What stored weights are called; kernels that read the same bytes have one name for them."""
    return "int4.rows" if quantize == "int4" and kernels != "cpu" else quantize


def storage_id(quantize: str, kernels: str = "cpu") -> str:
    """Tells stored weights apart that cannot take each other's place."""
    name = storage_name(quantize, kernels)
    if quantize != "int4":
        return f"{name} {_FORMAT}"
    if kernels != "cpu":
        return f"{name} {_FORMAT} {GROUP}"
    # Packed for the kernels of this CPU's vectors; a copied cache must not be read with another packing.
    packing = int4_packing() or (torch.__version__, torch.backends.cpu.get_cpu_capability())
    return f"{name} {_FORMAT} {GROUP} {packing}"
