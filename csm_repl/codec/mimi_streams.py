"""Mimi's decoder for several takes at once.

moshi streams a batch by masks: every pass computes all rows, and the states of those that do not take part
are kept. Its ring of keys and values does not keep them, and it is too short for pieces (see `_Ring`). So a
pass here computes the rows that take part and no others, with states that are put together for it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from csm_repl.codec.slots import SlotStreams

__all__ = ["MimiStreams"]

MAX_FRAMES = 12
"""Of a pass; the rings of keys and values have room for so many beyond the transformer's context."""


class MimiStreams(SlotStreams):
    """Streams with modules of their own, which share the parameters of `model`.

    Args:
        model: moshi's MimiModel, not streaming; `encode` and `decode` may be called on it meanwhile.
        n_slots: how many takes can be under way.
        n_codebooks: K of every piece.
        aside: a context in which all work on the device is done.
    """

    def __init__(
        self,
        model: Any,
        n_slots: int,
        *,
        n_codebooks: int,
        aside: Callable[[], contextlib.AbstractContextManager[Any]],
    ) -> None:
        super().__init__(n_slots, n_codebooks=n_codebooks, max_frames=MAX_FRAMES)
        self._aside = aside
        self._n_codes = int(model.cardinality)
        self._steps_per_frame = round(model.encoder_frame_rate / model.frame_rate)
        with torch.inference_mode(), aside():
            self._model = _decoder_of(model)
            self._device = next(self._model.parameters()).device
            self._model.streaming_forever(1)
            states = self._model.get_streaming_state()
            self._rings: list[_Ring] = []
            for state in states.values():
                if hasattr(state, "kv_cache"):
                    n_ahead = MAX_FRAMES * self._steps_per_frame - 1
                    state.kv_cache = _Ring(state, n_slots, n_ahead)
                    self._rings.append(state.kv_cache)
        self._fields = [
            (state, name) for state in states.values() for name, value in vars(state).items()
            if torch.is_tensor(value)
        ]  # fmt: skip
        self._fresh = [getattr(state, name) for state, name in self._fields]
        self._states: dict[int, list[torch.Tensor]] = {}
        """Of the slots with a take under way: what `_fields` hold, each [1, ...]; never changed in place."""
        self._n_steps = [0] * n_slots

    def _decode(self, slots: Sequence[int], codes: torch.Tensor) -> Sequence[torch.Tensor]:
        n_steps = codes.shape[2] * self._steps_per_frame
        with self._aside():
            rows = _rows(slots, self._device)
            longest = max(self._n_steps[slot] for slot in slots) + n_steps
            for ring in self._rings:
                ring.choose(rows, longest)
            batched = zip(*(self._states.get(slot, self._fresh) for slot in slots), strict=True)
            for (state, name), values in zip(self._fields, batched, strict=True):
                setattr(state, name, torch.cat(values))
            # The language model has a few more codes than the codec; see MimiCodec.decode.
            known = codes.to(self._device).clamp(0, self._n_codes - 1)
            samples = self._model.decode(known)[:, 0].float().cpu()
            parts = [getattr(state, name).split(1) for state, name in self._fields]
        for index, slot in enumerate(slots):
            self._states[slot] = [part[index] for part in parts]
            self._n_steps[slot] += n_steps
        return list(samples)

    def _rest(self, slot: int) -> torch.Tensor:
        return torch.zeros(0)

    def _forget(self, slot: int) -> None:
        if slot in self._states or slot in self._broken:
            with self._aside():
                for ring in self._rings:
                    ring.clear(slot)
        self._states.pop(slot, None)
        self._n_steps[slot] = 0


class _Ring:
    """The last keys and values of every slot for one attention; takes the place of moshi's RingKVCache.

    moshi's has three faults. It writes the rows that are masked out: once a ring is full, that overwrites
    what the row still looks at. It holds no more than the context: a piece of n steps overwrites what the
    first of them still look at, so the samples depend on the pieces after 250 steps (10 s). And what is not
    a number stays in it after a reset and comes back through the mask, as 0 * nan.
    """

    def __init__(self, state: Any, n_slots: int, n_ahead: int) -> None:
        cache = state.kv_cache.cache
        _, _, n_heads, context, width = cache.shape
        self._state = state
        self._capacity = context + n_ahead
        self._cache = cache.new_zeros(2, n_slots, n_heads, self._capacity, width)
        self._rows: slice | torch.Tensor = slice(0, 0)
        self._n_used = 0

    def choose(self, rows: slice | torch.Tensor, n_steps: int) -> None:
        """For the next pass: its rows, and how many steps the longest of them has at its end."""
        self._rows, self._n_used = rows, min(n_steps, self._capacity)

    def clear(self, slot: int) -> None:
        self._cache[:, slot].zero_()

    def complete(
        self, keys: torch.Tensor, values: torch.Tensor, exec_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys and values [b, H, T, D] of new steps -> all of them [b, H, n, D], and their steps [b, n].

        A step below zero is a place that was not written.
        """
        end = self._state.offset[:, None] + keys.shape[2]
        steps = end + torch.arange(-keys.shape[2], 0, device=keys.device)
        at = (steps % self._capacity)[:, None, :, None].expand_as(keys)
        found = []
        for cache, new in zip(self._cache, (keys, values), strict=True):
            if isinstance(self._rows, slice):
                cache[self._rows].scatter_(2, at, new)
                found.append(cache[self._rows, :, : self._n_used])
            else:
                places = (self._rows[:, None], slice(None), steps % self._capacity)
                cache[places] = new.transpose(1, 2)
                found.append(cache[:, :, : self._n_used].index_select(0, self._rows))
        last = end - 1
        every = torch.arange(self._n_used, device=keys.device)
        return found[0], found[1], last - (last - every) % self._capacity


def _decoder_of(model: Any) -> Any:
    """A copy of the model's decoder that shares parameters and weights in buffers; nothing of the encoder."""
    memo: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    memo[id(model.quantizer)] = model.quantizer
    for name in ("encoder", "encoder_transformer", "downsample"):
        if isinstance(part := getattr(model, name, None), nn.Module):
            memo[id(part)] = nn.Identity()
    return copy.deepcopy(model, memo)


def _rows(slots: Sequence[int], device: torch.device) -> slice | torch.Tensor:
    """Neighbours as a slice, which copies nothing."""
    if slots[-1] - slots[0] + 1 == len(slots):
        return slice(slots[0], slots[-1] + 1)
    return torch.tensor(slots, device=device)
