"""From a folder with a published checkpoint to a `CSM` on a device.

Published tensors are memory-mapped and copied at most once: straight into the fused, cast parameter, or not
at all where a parameter is a published tensor as it stands. A parameter that is to be quantised is in memory
as floating point only while that is done.
"""

from __future__ import annotations

from pathlib import Path

import torch

from csm_repl.errors import CheckpointError
from csm_repl.events import Say
from csm_repl.files.checkpoint import Checkpoint
from csm_repl.files.json_files import DOWNLOAD_AGAIN
from csm_repl.files.layouts import Part, Recipe, recipes
from csm_repl.model.csm import CSM
from csm_repl.model.quantize import choose_kernels, empty_csm, is_quantized, quantize_parameter
from csm_repl.model.weights.adapters import AdaptedSource, Adapter
from csm_repl.model.weights.tensors import TensorSource, check_parts, get_tensor, open_weights
from csm_repl.model.weights.weight_cache import WeightCache

__all__ = ["load_csm"]


def load_csm(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: str = "none",
    adapter: Adapter | None = None,
    n_positions: int | None = None,
    cache_dir: Path | None = None,
    native: bool = True,
    say: Say = lambda _: None,
) -> CSM:
    """Loads and prepares a model.

    Args:
        checkpoint: what to load.
        device: where its parameters go.
        dtype: what they are cast to, and what the residual stream and the caches are in.
        quantize: none, int8 or int4 (see `quantize`), on a CUDA device also fp8.
        adapter: what is added to the weights before they are cast or quantised.
        n_positions: of the context; None: what the config says.
        cache_dir: where converted weights are kept for the next start; None: not at all.
        native: whether to use the native kernels, where the device and dtype have any.
        say: receives a sentence where the cached weights are damaged.

    Raises:
        CheckpointError: a file is corrupt, a tensor is missing, has another shape than the config says, or
            holds what is no number.
        DeviceError: the kernels for quantised weights cannot be compiled for the device.
    """
    kernels = choose_kernels(quantize, device, dtype, native=native)
    config = checkpoint.config if n_positions is None else checkpoint.config.with_positions(n_positions)
    model = empty_csm(config, dtype=dtype, quantize=quantize, kernels=kernels)
    cache = None
    if cache_dir is not None:
        expected = model.state_dict()
        cache = WeightCache(
            cache_dir,
            checkpoint,
            expected,
            dtype=dtype,
            quantize=quantize,
            kernels=kernels,
            adapter=None if adapter is None else adapter.files.weights,
            say=say,
        )
    state = cache.load(device) if cache is not None else None
    if state is None:
        state = _convert(checkpoint, adapter, device=device, dtype=dtype, quantize=quantize, kernels=kernels)
        if cache is not None:
            cache.store(state)
    model.load_state_dict(state, strict=True, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.prepare(native=kernels == "native")


@torch.inference_mode(False)
@torch.no_grad()
def _convert(
    checkpoint: Checkpoint,
    adapter: Adapter | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: str,
    kernels: str,
) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    with open_weights(checkpoint) as source:
        plan = recipes(checkpoint.config, checkpoint.layout)
        names = dict(check_parts(plan, source, checkpoint))
        if adapter is not None:
            source = AdaptedSource(source, adapter, checkpoint, names)
        for recipe in plan:
            if is_quantized(recipe.target, quantize):
                # From what was published, not from what `dtype` would make of it; without a name, so that
                # it is gone before the next one is made.
                state |= quantize_parameter(
                    recipe.target,
                    _build(recipe, names, source, device, torch.float32),
                    quantize,
                    kernels,
                )
            else:
                state[recipe.target] = _build(recipe, names, source, device, dtype)
    return state


def _build(
    recipe: Recipe, names: dict[Part, str], source: TensorSource, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    out = _joined(recipe, names, source, device, dtype)
    if not _is_finite(out):
        for part in recipe.parts:
            if not _is_finite(get_tensor(source, names[part])):
                raise CheckpointError(f"{names[part]} holds NaN or infinity.", DOWNLOAD_AGAIN)
        raise CheckpointError(
            f"{names[recipe.parts[0]]} has numbers that are too big for {str(dtype).removeprefix('torch.')}.",
            "Use --dtype bfloat16 or float32.",
        )
    return out


def _is_finite(tensor: torch.Tensor) -> bool:
    # A sum is not finite if one of its terms is not, and needs no memory.
    return bool(tensor.sum(dtype=torch.float32).isfinite()) or bool(tensor.isfinite().all())


def _joined(
    recipe: Recipe, names: dict[Part, str], source: TensorSource, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    if len(recipe.parts) == 1 and not recipe.parts[0].half_rotated_heads:
        return get_tensor(source, names[recipe.parts[0]]).to(device=device, dtype=dtype)
    out = torch.empty(recipe.shape, device=device, dtype=dtype)
    row = 0
    for part in recipe.parts:
        tensor = get_tensor(source, names[part])
        end = row + part.shape[0]
        if part.half_rotated_heads:
            # [H, 2, Dh / 2, D] -> [H, Dh / 2, 2, D]: the two halves of a head become neighbours.
            halves = tensor.unflatten(0, (part.half_rotated_heads, 2, -1))
            out[row:end].unflatten(0, (part.half_rotated_heads, -1, 2)).copy_(halves.transpose(1, 2))
        else:
            out[row:end].copy_(tensor)
        row = end
    return out
