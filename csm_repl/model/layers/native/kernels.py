"""Calls the native kernels with PyTorch's tensors."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable
from typing import Protocol, cast

import torch
from torch import nn

from csm_repl.files.config import TransformerConfig
from csm_repl.model.kv_cache import KVCache
from csm_repl.model.layers.cpu_linear import GROUP, Int4NativeLinear, Int8Linear
from csm_repl.model.layers.linear import Linear
from csm_repl.model.layers.native.build import library

__all__ = ["NativeTransformer", "kernels_exist", "multiply", "runs_natively"]

_FLOATS = {torch.float32: 0, torch.bfloat16: 1}
_INT8, _INT4 = 2, 3


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int64),
        ("n_in", ctypes.c_int64),
        ("n_out", ctypes.c_int64),
        ("row_bytes", ctypes.c_int64),
        ("data", ctypes.c_void_p),
        ("scales", ctypes.c_void_p),
        ("zeros", ctypes.c_void_p),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        ("attn_norm", ctypes.c_void_p),
        ("mlp_norm", ctypes.c_void_p),
        ("wqkv", _Matrix),
        ("wo", _Matrix),
        ("w_gate_up", _Matrix),
        ("w_down", _Matrix),
    )


class _Model(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("n_layers", "dim", "n_heads", "n_kv_heads", "head_dim", "n_inner")
        ),
        ("eps", ctypes.c_double),
        ("layers", ctypes.c_void_p),
        ("norm", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
    )


class _Cache(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int64),
        ("n_rows", ctypes.c_int64),
        ("data", ctypes.c_void_p),
        *((f"{name}_stride", ctypes.c_int64) for name in ("layer", "side", "row", "head")),
    )


def kernels_exist(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the native kernels are written for such a transformer."""
    return device.type == "cpu" and dtype in _FLOATS


def runs_natively(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a transformer there can be run by the native kernels; compiles them if need be."""
    return kernels_exist(device, dtype) and library().library is not None


def _matrix(linear: nn.Module) -> _Matrix:
    """A layer's weight as the kernels see it; the layer has to outlive it."""
    if isinstance(linear, Linear):
        weight = linear.weight
        if not weight.is_contiguous() or weight.dtype not in _FLOATS:
            raise ValueError(f"no native kernel for {weight.dtype} with strides {weight.stride()}")
        n_out, n_in = weight.shape
        row_bytes = n_in * weight.element_size()
        return _Matrix(_FLOATS[weight.dtype], n_in, n_out, row_bytes, weight.data_ptr(), None, None)
    if isinstance(linear, Int8Linear):
        scales = linear.scales.data_ptr()
        row_bytes = linear.weight.shape[1]
        return _Matrix(_INT8, linear.n_in, linear.n_out, row_bytes, linear.weight.data_ptr(), scales, None)
    if isinstance(linear, Int4NativeLinear):
        scales, zeros = linear.scales.data_ptr(), linear.zeros.data_ptr()
        row_bytes = linear.weight.shape[1]
        return _Matrix(_INT4, linear.n_in, linear.n_out, row_bytes, linear.weight.data_ptr(), scales, zeros)
    raise ValueError(f"no native kernel for {type(linear).__name__}")


def multiply(linear: nn.Module, x: torch.Tensor, native: ctypes.CDLL | None = None) -> torch.Tensor:
    """`linear(x)` by the native kernel: float32 [R, n_in] -> float32 [R, n_out].

    Args:
        linear: a layer whose weight has a kernel.
        x: rows.
        native: another library than this machine's.
    """
    native = native or library().library
    assert native is not None, "runs_natively() has not been asked"
    matrix, n_threads = _matrix(linear), torch.get_num_threads()
    x = x.contiguous()
    out = x.new_empty(len(x), matrix.n_out)
    size = native.csm_multiply_bytes(ctypes.byref(matrix), len(x), n_threads)
    scratch = torch.empty(size, dtype=torch.uint8)
    native.csm_multiply(
        ctypes.byref(matrix), x.data_ptr(), len(x), out.data_ptr(), scratch.data_ptr(), n_threads
    )
    return out


class _Norm(Protocol):
    @property
    def weight(self) -> torch.Tensor: ...


class _Block(Protocol):
    @property
    def attn_norm(self) -> _Norm: ...

    @property
    def mlp_norm(self) -> _Norm: ...


class _HasWeights(Protocol):
    """A transformer, as far as the kernels read it."""

    @property
    def config(self) -> TransformerConfig: ...

    @property
    def layers(self) -> nn.ModuleList: ...

    @property
    def norm(self) -> _Norm: ...

    @property
    def table(self) -> torch.Tensor | None: ...


class NativeTransformer:
    """A transformer's passes over a few positions, each as one call.

    Args:
        transformer: prepared, on a CPU; its weights must stay where they are.

    Raises:
        ValueError: there is no kernel for its weights.
    """

    def __init__(self, transformer: _HasWeights) -> None:
        native = library().library
        assert native is not None, "runs_natively() has not been asked"
        assert transformer.table is not None, "the rotary table is missing"
        config = transformer.config
        self._native = native
        self._dim = config.dim
        self._lock = threading.Lock()
        self._scratch = torch.empty(0, dtype=torch.uint8)
        self._table = transformer.table.contiguous()
        layers = [cast(_Block, layer) for layer in cast("Iterable[nn.Module]", transformer.layers)]
        self._norms = [
            norm.weight.float().contiguous() for layer in layers for norm in (layer.attn_norm, layer.mlp_norm)
        ]
        self._norms.append(transformer.norm.weight.float().contiguous())
        self._matrices = [
            tuple(getattr(layer, name) for name in ("wqkv", "wo", "w_gate_up", "w_down")) for layer in layers
        ]
        self._layers = (_Layer * config.n_layers)(
            *(
                _Layer(
                    self._norms[2 * index].data_ptr(),
                    self._norms[2 * index + 1].data_ptr(),
                    *(_matrix(linear) for linear in linears),
                )
                for index, linears in enumerate(self._matrices)
            )
        )
        self._model = _Model(
            config.n_layers, config.dim, config.n_heads, config.n_kv_heads, config.head_dim,
            config.intermediate_dim, config.norm_eps, ctypes.addressof(self._layers),
            self._norms[-1].data_ptr(), self._table.data_ptr(),
        )  # fmt: skip
        self.max_rows: int = native.csm_max_rows()
        """Positions of one pass, of all rows together."""

    def __call__(
        self, x: torch.Tensor, cache: KVCache, slots: torch.Tensor, positions: torch.Tensor
    ) -> torch.Tensor:
        """Runs new positions and leaves their keys and values in `cache`.

        Args:
            x: embeddings [R, D], R at most `max_rows`.
            cache: float32 or bfloat16.
            slots: int64 [R], which row of the cache each belongs to.
            positions: int64 [R]; those of one row of the cache in rising order, without gaps.

        Returns:
            Hidden states after the final norm, [R, D] in x's dtype.

        Raises:
            IndexError: the cache has no such row or position, or R is too large.
        """
        n_rows, n_threads = len(x), torch.get_num_threads()
        # A copy in any case: the kernels keep the stream in it.
        stream = x.to(torch.float32, copy=True).contiguous()
        slots, positions = slots.contiguous(), positions.contiguous()
        out = torch.empty(n_rows, self._dim)
        strides = cache.data.stride()
        view = _Cache(_FLOATS[cache.data.dtype], cache.data.shape[2], cache.data.data_ptr(), *strides[:4])
        model = ctypes.addressof(self._model)
        size = self._native.csm_scratch_bytes(model, n_rows, cache.n_positions, n_threads)
        with self._lock:
            if len(self._scratch) < size:
                self._scratch = torch.empty(size, dtype=torch.uint8)
            failed = self._native.csm_pass(
                model, ctypes.addressof(view), cache.n_positions, n_rows, slots.data_ptr(),
                positions.data_ptr(), stream.data_ptr(), out.data_ptr(), self._scratch.data_ptr(), n_threads,
            )  # fmt: skip
        if failed:
            raise IndexError(f"rows {slots.tolist()} at {positions.tolist()} are not all in the cache")
        return out.to(x.dtype)


assert GROUP == 64, "transformer.c has it as a constant"
