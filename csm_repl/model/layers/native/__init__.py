"""The transformer pass in C, for a few positions on a CPU."""

from csm_repl.model.layers.native.build import Built, library, needs_compiling
from csm_repl.model.layers.native.kernels import NativeTransformer, kernels_exist, multiply, runs_natively

__all__ = [
    "Built",
    "NativeTransformer",
    "kernels_exist",
    "library",
    "multiply",
    "needs_compiling",
    "runs_natively",
]
