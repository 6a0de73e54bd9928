"""What the codecs' streams have in common: slots, pieces of different length, faults."""

from __future__ import annotations

import abc
import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from csm_repl.codec.base import DecodeStream, DecodeStreams

__all__ = ["SlotStreams", "single_stream"]


class SlotStreams(abc.ABC):
    """`DecodeStreams` over a decoder that takes pieces of one length for any choice of slots.

    Args:
        n_slots: how many takes can be under way.
        n_codebooks: K of every piece.
        max_frames: the longest piece that the decoder takes; longer ones go through it in parts.
    """

    def __init__(self, n_slots: int, *, n_codebooks: int, max_frames: int) -> None:
        if n_slots < 1:
            raise ValueError(f"streams need a slot, not {n_slots}")
        self._n_slots = n_slots
        self._n_codebooks = n_codebooks
        self._max_frames = max_frames
        self._broken: set[int] = set()
        self._lock = threading.RLock()

    @property
    def n_slots(self) -> int:
        return self._n_slots

    @torch.inference_mode()
    def push(self, pieces: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
        with self._lock:
            for slot, codes in pieces.items():
                self._check(slot)
                if codes.ndim != 2 or codes.shape[0] != self._n_codebooks or codes.shape[1] == 0:
                    raise ValueError(
                        f"a piece is [{self._n_codebooks}, n >= 1], the one for slot {slot} is "
                        f"{list(codes.shape)}"
                    )
            samples: dict[int, list[torch.Tensor]] = {slot: [] for slot in pieces}
            with self._unless_it_fails(pieces):
                for slots, codes in self._passes(pieces):
                    for slot, sound in zip(slots, self._decode(slots, codes), strict=True):
                        samples[slot].append(sound)
            return {slot: torch.cat(parts) for slot, parts in samples.items()}

    @torch.inference_mode()
    def flush(self, slot: int) -> torch.Tensor:
        with self._lock:
            self._check(slot)
            with self._unless_it_fails([slot]):
                rest = self._rest(slot)
                self._forget(slot)
            return rest

    @torch.inference_mode()
    def reset(self, slot: int) -> None:
        with self._lock:
            self._check(slot, broken=True)
            self._forget(slot)
            self._broken.discard(slot)

    @abc.abstractmethod
    def _decode(self, slots: Sequence[int], codes: torch.Tensor) -> Sequence[torch.Tensor]:
        """Codes [len(slots), K, n <= max_frames] -> the samples of each that are final now, on the CPU."""

    @abc.abstractmethod
    def _rest(self, slot: int) -> torch.Tensor:
        """What was held back, on the CPU."""

    @abc.abstractmethod
    def _forget(self, slot: int) -> None: ...

    def _check(self, slot: int, *, broken: bool = False) -> None:
        if not 0 <= slot < self._n_slots:
            raise IndexError(f"there is no slot {slot}; there are {self._n_slots}")
        if slot in self._broken and not broken:
            raise RuntimeError(f"the last call for slot {slot} failed; it must be reset")

    @contextlib.contextmanager
    def _unless_it_fails(self, slots: Iterable[int]) -> Iterator[None]:
        """Whatever ends the block early, Ctrl-C too, leaves the slots unusable until they are reset."""
        slots = list(slots)
        self._broken.update(slots)
        yield
        self._broken.difference_update(slots)

    def _passes(self, pieces: Mapping[int, torch.Tensor]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Slots and their codes [b, K, n]: the pieces cut where one of them ends.

        As many passes as there are lengths, but with more rows in each than if only equal pieces went
        together (1, 4 and 12 frames on a CPU: 0.8 to 0.9 of the time).
        """
        longest = max((piece.shape[1] for piece in pieces.values()), default=0)
        ends = {piece.shape[1] for piece in pieces.values()}
        ends.update(range(self._max_frames, longest, self._max_frames))
        begin = 0
        for end in sorted(ends):
            slots = sorted(slot for slot, piece in pieces.items() if piece.shape[1] >= end)
            yield slots, torch.stack([pieces[slot][:, begin:end] for slot in slots])
            begin = end


@contextlib.contextmanager
def single_stream(streams: DecodeStreams) -> Iterator[DecodeStream]:
    """The first slot, for one take."""
    stream = _SingleStream(streams)
    try:
        yield stream
    finally:
        stream.close()


class _SingleStream:
    def __init__(self, streams: DecodeStreams) -> None:
        self._streams: DecodeStreams | None = streams

    def push(self, codes: torch.Tensor) -> torch.Tensor:
        return self._opened().push({0: codes})[0]

    def flush(self) -> torch.Tensor:
        return self._opened().flush(0)

    def close(self) -> None:
        self._streams = None

    def _opened(self) -> DecodeStreams:
        if self._streams is None:
            raise RuntimeError("the stream is closed")
        return self._streams
