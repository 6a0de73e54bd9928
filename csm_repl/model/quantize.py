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
from csm_repl.model.gpu_linear import Fp8GpuLinear, Int4GpuLinear, Int8GpuLinear
from csm_repl.model.linear import Linear
from csm_repl.model.quantized_linear import GROUP, Int4Linear, Int8Linear, QuantizedLinear, int4_packing
from csm_repl.model.transformer import Layer

__all__ = ["empty_csm", "has_kernels", "is_quantized", "quantize_parameter", "storage_id", "storage_name"]

_MATRICES = ("wqkv", "wo", "w_gate_up", "w_down")
_KINDS: dict[str, dict[str, type[QuantizedLinear]]] = {
    "cpu": {"int8": Int8Linear, "int4": Int4Linear},
    "cuda": {"int8": Int8GpuLinear, "fp8": Fp8GpuLinear, "int4": Int4GpuLinear},
}
"""The layers of a type of device and a mode."""
_FORMAT = 1
"""Counts up when the same weight gives other integers or scales, or they are stored in another way."""


def has_kernels(quantize: str, device_type: str) -> bool:
    """Whether there are layers for a mode on a type of device, `cpu` or `cuda`."""
    return quantize == "none" or quantize in _KINDS.get(device_type, {})


def empty_csm(config: ModelConfig, *, dtype: torch.dtype, quantize: str, device_type: str = "cpu") -> CSM:
    """A CSM on the meta device whose parameters have the shapes and dtypes that a loaded one has.

    Args:
        config: sizes.
        dtype: of what is not quantised.
        quantize: none, int8, fp8 or int4; `has_kernels` says which the device has.
        device_type: where it is going to run, `cpu` or `cuda`.
    """
    model = CSM(config).to(dtype)
    if quantize == "none":
        return model
    kind = _KINDS[device_type][quantize]
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
    target: str, weight: torch.Tensor, quantize: str, device_type: str = "cpu"
) -> dict[str, torch.Tensor]:
    """What takes the place of `target`, with its floating point weight [n_out, n_in], in a state dict."""
    owner = target.removesuffix("weight")
    kind = _KINDS[device_type][quantize]
    return {owner + name: tensor for name, tensor in kind.quantize(weight).items()}


def storage_name(quantize: str, device_type: str) -> str:
    """What stored weights are called; two devices that read the same bytes have one name for them."""
    return "int4.cuda" if (quantize, device_type) == ("int4", "cuda") else quantize


def storage_id(quantize: str, device_type: str = "cpu") -> str:
    """Tells stored weights apart that cannot take each other's place."""
    name = storage_name(quantize, device_type)
    if quantize != "int4":
        return f"{name} {_FORMAT}"
    if device_type == "cuda":
        return f"{name} {_FORMAT} {GROUP}"
    # Packed for the kernels of this CPU's vectors; a copied cache must not be read with another packing.
    packing = int4_packing() or (torch.__version__, torch.backends.cpu.get_cpu_capability())
    return f"{name} {_FORMAT} {GROUP} {packing}"
