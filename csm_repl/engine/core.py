"""The engine: one model, several slots, a frame for every take with each step.

    take = engine.submit(TakeRequest(prompt))
    for event in engine.step(): ...

A take waits for a slot, its prompt is prefilled in chunks, then every step makes a frame of it beside those
of the others: the weights are read once for all. A take gets the codes that it would get alone (in float32;
lower precisions round by the number of slots that are run).

One thread at a time makes steps; `submit` and `abort` may be called from any thread at any time, and take
effect with the next step. A step that fails or is interrupted has not happened: keys and values count only
when a pass is complete, and noise that was drawn is put back.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from csm_repl.clock import working_seconds
from csm_repl.engine.limits import check_memory, check_process, check_prompt
from csm_repl.engine.mailbox import Mailbox
from csm_repl.engine.request import Ended, Frame, TakeEnded, TakeRequest
from csm_repl.engine.sampling import SamplingOptions, TakeNoise
from csm_repl.engine.slot import Slot
from csm_repl.engine.step import BROKEN, ENDED, EagerRunner, MakeRunner
from csm_repl.engine.take import Generation, TakeState
from csm_repl.model.csm import CSM

__all__ = ["FIRST_FRAME_REDRAWS", "PREFILL_ALONE", "PREFILL_BESIDE", "Engine", "EngineStats"]

FIRST_FRAME_REDRAWS = 8
"""A take that closes with its first frame says nothing, so that frame is drawn again this often."""
PREFILL_ALONE = 256
"""Positions of prompts that a step runs while nobody speaks: bounds a pass's memory, and Ctrl-C is heard
between passes."""
PREFILL_BESIDE = {"cpu": 32, "cuda": 512}
"""The same beside takes that are being spoken, which wait for it (`python -m bench.joining`)."""


@dataclass
class EngineStats:
    """Counters over the engine's life."""

    prefilled: int = 0
    """Positions that went through prefill."""
    reused: int = 0
    """Positions of prompts that were found in the cache."""
    frames: int = 0


@dataclass(frozen=True, eq=False)
class _Launched:
    """A frame of some takes that is under way."""

    ticket: int
    takes: tuple[tuple[TakeState, int, torch.Tensor], ...]
    """Each with the frame's number and the noise's state before it was drawn."""

    @property
    def slots(self) -> list[int]:
        return [_slot_of(take) for take, _, _ in self.takes]

    @property
    def has_first(self) -> bool:
        return any(number == 0 for _, number, _ in self.takes)

    def noise_before(self, take: TakeState) -> torch.Tensor | None:
        return next((before for other, _, before in self.takes if other is take), None)


class Engine:
    """A model with the caches of `n_slots` takes.

    Args:
        model: loaded.
        n_slots: how many takes are made at a time; others wait.
        make_runner: runs the frame step.

    Raises:
        OutOfMemoryError: the device has no room for so many slots.
    """

    def __init__(self, model: CSM, n_slots: int = 1, make_runner: MakeRunner = EagerRunner) -> None:
        if n_slots < 1:
            raise ValueError(f"an engine has at least one slot, not {n_slots}")
        check_memory(model, n_slots)
        self.model = model
        self.n_slots = n_slots
        self.n_codebooks = model.config.n_codebooks
        self.max_positions = model.config.max_positions
        self.stats = EngineStats()
        cache = model.new_backbone_cache(batch_size=n_slots)
        self._slots = [Slot(model, cache.slots(index)) for index in range(n_slots)]
        self._owners: list[TakeState | None] = [None] * n_slots
        self._freed_at = [0] * n_slots
        self._prepared: list[TakeState | None] = [None] * n_slots
        """For whose options a slot of the step's buffers is set."""
        self.prefill_beside = PREFILL_BESIDE.get(model.device.type, PREFILL_ALONE)
        """Positions of prompts that a step runs beside takes that are being spoken."""
        self._runner = make_runner(model, cache)
        self._mailbox = Mailbox(self._runner.step.out)
        self._owner = threading.Lock()
        self._process = os.getpid()
        self._numbers = itertools.count()
        self._submitted: deque[TakeState] = deque()
        self._aborted: deque[int] = deque()
        self._takes: dict[int, TakeState] = {}
        """All that are not over, in the order of their submission."""
        self._launched: tuple[_Launched, ...] = ()
        """Frames that are under way and have not been read, the oldest first."""
        self._in_buffers: dict[int, TakeState] = {}
        """The takes whose newest frame is in the step's buffers, by slot; an interrupt spoils them."""
        self._events: list[Frame | TakeEnded] = []

    # --- from any thread --------------------------------------------------------------------------------

    def check_process(self) -> None:
        """Raises DeviceError in a process that was forked from the one with the model."""
        check_process(self._process)

    def submit(self, request: TakeRequest) -> int:
        """Takes a request up; returns what its events call the take.

        Raises:
            PromptTooLongError: not even one frame fits behind the prompt.
        """
        return self._submit(request, None).id

    def abort(self, take: int) -> None:
        """Drops a take, begun or not; no more events come of it. Nothing happens if it is over."""
        self._aborted.append(take)
        # At once where nobody makes a step: the noise may be wanted for the take's next piece.
        if self._owner.acquire(blocking=False):
            try:
                self._take_up()
            finally:
                self._owner.release()

    def generate(
        self,
        prompt: torch.Tensor,
        *,
        options: SamplingOptions | None = None,
        seed: int = 0,
        max_frames: int | None = None,
        noise: TakeNoise | None = None,
    ) -> Generation:
        """Submits a take and iterates over its frames; nothing is computed before the first `next`.

        The arguments are those of `TakeRequest`. Generations may be read side by side and in several threads.

        Raises:
            PromptTooLongError: not even one frame fits behind the prompt.
        """
        request = TakeRequest(prompt, options or SamplingOptions(), seed, max_frames, noise)
        queue: deque[Frame | TakeEnded] = deque()
        return Generation(self, self._submit(request, queue), queue)

    def new_noise(self, options: SamplingOptions, seed: int) -> TakeNoise:
        """Noise for several takes that go on where the one before ended."""
        config = self.model.config
        return TakeNoise(
            options,
            seed=seed,
            n_codebooks=config.n_codebooks,
            vocab_size=config.audio_vocab_size,
            device=self.model.device,
        )

    def _submit(self, request: TakeRequest, queue: deque[Frame | TakeEnded] | None) -> TakeState:
        self.check_process()
        check_prompt(request.prompt, self.model)
        noise = request.noise or self.new_noise(request.options, request.seed)
        number = next(self._numbers)
        take = TakeState(number, request.prompt, noise, request.max_frames, self.max_positions, queue)
        self._submitted.append(take)
        return take

    # --- by whoever makes the steps ---------------------------------------------------------------------

    def step(self) -> list[Frame | TakeEnded]:
        """A frame of every take that has its prompt behind it, and a chunk of the prompts of the others.

        Returns the events of the takes that were submitted; those of generations go there. Empty while
        prompts are being prefilled, and where there is nothing to do (see `n_open`).
        """
        self.check_process()
        with self._owner:
            self._step()
            events, self._events = self._events, []
        return events

    def step_until(self, ready: Callable[[], bool]) -> None:
        """Makes steps until `ready`; threads that wait for different things take turns."""
        self.check_process()
        while not ready():
            with self._owner:
                if not ready():
                    self._step()

    @property
    def n_open(self) -> int:
        """Takes that are not over, or whose end `step` has still to tell."""
        untold = sum(isinstance(event, TakeEnded) for event in self._events)
        return len(self._takes) + len(self._submitted) + untold

    def held(self, slot: int = 0) -> torch.Tensor:
        """What the valid positions of a slot hold, int64 [n, K + 1]."""
        return self._slots[slot].held[: self._slots[slot].n_cached]

    def forget(self) -> None:
        """Empties the prefix cache of the slots without a take."""
        with self._owner:
            self._take_up()
            for slot, take in zip(self._slots, self._owners, strict=True):
                if take is None:
                    slot.n_cached = 0

    def next_logits(self, prompt: torch.Tensor) -> torch.Tensor:
        """Logits of the next frame's first codebook after a prompt, float32 [V] on the CPU.

        Raises:
            PromptTooLongError: the prompt is longer than the model's positions allow.
            RuntimeError: all slots have takes.
        """
        self.check_process()
        check_prompt(prompt, self.model)
        with self._owner, torch.inference_mode():
            self._take_up()
            free = self._free_slots()
            if not free:
                raise RuntimeError(f"all {self.n_slots} slots have takes; close one first")
            slot, hidden = self._slots[self._best_slot(free, prompt)], None
            n_missing = self._share(slot, prompt)
            while hidden is None:
                hidden = slot.prefill(prompt, PREFILL_ALONE)
            self.stats.prefilled += n_missing
            self.stats.reused += len(prompt) - n_missing
            return self.model.codebook0_head(hidden).float().cpu()

    # --- schedule ---------------------------------------------------------------------------------------

    def _step(self) -> None:
        with torch.inference_mode():
            self._take_up()
            self._give_slots()
            self._prefill()
            self._make_frames()

    def _take_up(self) -> None:
        """What other threads want."""
        while self._submitted:
            take = self._submitted.popleft()
            self._takes[take.id] = take
            ended = take.end_after(0)
            if ended is not None:
                self._finish(take, ended)
        while self._aborted:
            aborted = self._takes.get(self._aborted.popleft())
            if aborted is not None:
                self._put_back_noise(aborted)
                self._release(aborted)

    def _give_slots(self) -> None:
        free = self._free_slots()
        for take in self._takes.values():
            if not free:
                return
            if take.slot is None:
                index = self._best_slot(free, take.prompt)
                free.remove(index)
                self._owners[index] = take
                take.slot = index

    def _free_slots(self) -> list[int]:
        return [index for index, owner in enumerate(self._owners) if owner is None]

    def _best_slot(self, free: Sequence[int], prompt: torch.Tensor) -> int:
        """The free slot that holds most of a prompt; of equal ones, the one that nobody used for longest."""
        return max(free, key=lambda index: (self._slots[index].n_common(prompt), -self._freed_at[index]))

    def _prefill(self) -> None:
        """Runs the next chunk of the prompts that are not complete, in the order of their submission."""
        takes = [take for take in self._takes.values() if take.slot is not None]
        n_left = self.prefill_beside if any(take.hidden is not None for take in takes) else PREFILL_ALONE
        for take in takes:
            if take.hidden is None and n_left > 0:
                n_left -= self._prefill_take(take, n_left)

    def _prefill_take(self, take: TakeState, n: int) -> int:
        """Runs up to `n` positions of a take's prompt; how many they were."""
        slot = self._slots[_slot_of(take)]
        started = working_seconds()
        n_run = min(n, self._share(slot, take.prompt))
        take.hidden = slot.prefill(take.prompt, n_run)
        take.prefill_s += working_seconds() - started
        take.n_prefilled += n_run
        self.stats.prefilled += n_run
        if take.hidden is not None:
            self.stats.reused += take.n_prompt - take.n_prefilled
        return n_run

    def _share(self, slot: Slot, prompt: torch.Tensor) -> int:
        """Gives a slot what any slot holds of a prompt; how many of its positions have to be run."""
        n_missing = slot.keep_common(prompt)
        donor = max(self._slots, key=lambda other: other.n_common(prompt))
        n_common = min(donor.n_common(prompt), len(prompt) - 1)
        if n_common > slot.n_cached:
            slot.take_over(donor, n_common)
            n_missing = len(prompt) - n_common
        return n_missing

    # --- execute ----------------------------------------------------------------------------------------

    def _make_frames(self) -> None:
        """Reads the oldest frame that is under way, and sees to it that one is."""
        if not self._launched and not self._launch():
            return
        launched = self._launched[0]
        # A first frame is not read late: it may have to be drawn again, and somebody waits for it.
        if self._runner.runs_ahead and len(self._launched) == 1 and not launched.has_first:
            self._launch()
        frames = self._mailbox.read(launched.ticket)
        if launched.has_first:
            self._draw_again(launched, frames)
        self._hand_out(launched, frames)
        self._launched = self._launched[1:]
        if self._runner.runs_ahead and not self._launched:
            self._launch()

    def _launch(self) -> bool:
        """Starts the next frame of every take that has its prompt behind it; whether there is one."""
        unread = [take for launched in self._launched for take, _, _ in launched.takes]
        takes = []
        for take in self._takes.values():
            number = take.n_frames + unread.count(take)
            if take.hidden is not None and take.end_after(number) is None:
                takes.append((take, number, take.noise.state()))
        if not takes:
            return False
        takes.sort(key=lambda item: _slot_of(item[0]))
        before, in_buffers = self._launched, self._in_buffers
        self._in_buffers = {}
        try:
            self._advance([(take, number) for take, number, _ in takes], in_buffers)
            self._draw([take for take, _, _ in takes])
            ticket = self._mailbox.post(self._runner.step.out)
            self._launched = (*before, _Launched(ticket, tuple(takes)))
            self._in_buffers = {_slot_of(take): take for take, _, _ in takes}
        except BaseException:
            self._launched, self._in_buffers = before, {}
            for take, _, state in takes:
                take.noise.restore(state)
            raise
        return True

    def _advance(self, takes: list[tuple[TakeState, int]], in_buffers: dict[int, TakeState]) -> None:
        """Hidden states of all takes into the step's buffer."""
        step = self._runner.step
        going_on = [(take, number) for take, number in takes if number > 0]
        if going_on:
            positions = self._spare_positions() if self._runner.runs_all else [0] * self.n_slots
            for take, number in going_on:
                slot = _slot_of(take)
                positions[slot] = take.n_prompt + number - 1
                if in_buffers.get(slot) is not take:
                    step.codes[slot].copy_(self._newest(take))
            n_seen = 1 + max(positions[_slot_of(take)] for take, _ in going_on)
            self._set_positions(positions)
            self._runner.advance([_slot_of(take) for take, _ in going_on], n_seen)
        for take, number in takes:
            if number == 0:
                assert take.hidden is not None
                step.hidden[_slot_of(take)].copy_(take.hidden)

    def _spare_positions(self) -> list[int]:
        """For each slot, a position that may be written to although nobody will read it."""
        positions = [slot.free_position() for slot in self._slots]
        for launched in self._launched:
            for take, number, _ in launched.takes:
                # What is under way has put keys and values before it, which are not counted yet.
                if take.id in self._takes:
                    positions[_slot_of(take)] = take.n_prompt + number
        return positions

    def _set_positions(self, positions: list[int]) -> None:
        on_gpu = self.model.device.type == "cuda"
        # From pinned memory, so that the copy does not wait for the frame that is under way.
        found = torch.tensor(positions, pin_memory=on_gpu)
        self._runner.step.positions.copy_(found, non_blocking=on_gpu)

    def _newest(self, take: TakeState) -> torch.Tensor:
        """The newest frame of a take that was launched, int64 [K] on the host."""
        for launched in reversed(self._launched):
            if launched.noise_before(take) is not None:
                return self._mailbox.read(launched.ticket)[_slot_of(take), :-1]
        assert take.last is not None
        return take.last

    def _draw(self, takes: list[TakeState]) -> None:
        self._runner.fit(max(take.noise.k for take in takes))
        for take in takes:
            slot = _slot_of(take)
            if self._prepared[slot] is not take:
                self._prepared[slot] = None
                self._runner.step.set_options(slot, take.noise.options)
                self._prepared[slot] = take
            self._set_noise(take)
        self._runner.draw([_slot_of(take) for take in takes])

    def _set_noise(self, take: TakeState) -> None:
        if not take.noise.options.greedy:
            self._runner.step.set_noise(_slot_of(take), take.noise.next_exponential())

    def _draw_again(self, launched: _Launched, frames: torch.Tensor) -> None:
        """Draws first frames that close their take again; corrects `frames`, int64 [n_slots, K + 1]."""
        left = {
            _slot_of(take): (take, FIRST_FRAME_REDRAWS)
            for take, number, _ in launched.takes
            if number == take.n_frames == 0 and take.id in self._takes and not take.noise.options.greedy
        }
        try:
            while again := [slot for slot, (_, n) in left.items() if n and frames[slot, -1] == ENDED]:
                for slot in again:
                    take, n = left[slot]
                    left[slot] = (take, n - 1)
                    self._set_noise(take)
                # The other slots have their noise still, and get the same frames again.
                self._runner.draw(launched.slots)
                frames[again] = self._mailbox.read(self._mailbox.post(self._runner.step.out))[again]
        except BaseException:
            self._launched, self._in_buffers = (), {}
            for take, number, state in launched.takes:
                if number == take.n_frames:
                    take.noise.restore(state)
            raise

    # --- update -----------------------------------------------------------------------------------------

    def _hand_out(self, launched: _Launched, frames: torch.Tensor) -> None:
        """Counts a frame that was read. After an interrupt it may be called again."""
        for take, number, _ in launched.takes:
            if take.id not in self._takes or number != take.n_frames:
                continue
            slot = _slot_of(take)
            if frames[slot, -1] == BROKEN:
                # What is wrong may be in any of the slot's keys and values.
                self._slots[slot].n_cached = 0
                self._finish(take, "broken")
                continue
            if take.last is not None:
                self._slots[slot].note_frame(take.n_prompt + number - 1, take.last)
            if frames[slot, -1] == ENDED:
                self._put_back_noise(take, after=launched)
                self._finish(take, "end")
                continue
            take.last = frames[slot, :-1]
            take.n_frames += 1
            self.stats.frames += 1
            self._emit(take, Frame(take.id, take.last))
            ended = take.end_after(take.n_frames)
            if ended is not None:
                self._finish(take, ended)

    def _put_back_noise(self, take: TakeState, *, after: _Launched | None = None) -> None:
        """Undraws the noise of the frames that are under way and not wanted, those behind `after`."""
        for launched in self._launched:
            state = launched.noise_before(take)
            if launched is not after and state is not None:
                take.noise.restore(state)
                return

    def _finish(self, take: TakeState, ended: Ended) -> None:
        self._emit(take, take.ended_event(ended))
        self._release(take)

    def _emit(self, take: TakeState, event: Frame | TakeEnded) -> None:
        (self._events if take.queue is None else take.queue).append(event)

    def _release(self, take: TakeState) -> None:
        if take.slot is not None:
            self._owners[take.slot] = None
            self._freed_at[take.slot] = next(self._numbers)
        self._takes.pop(take.id, None)


def _slot_of(take: TakeState) -> int:
    assert take.slot is not None, "the take has no slot"
    return take.slot
