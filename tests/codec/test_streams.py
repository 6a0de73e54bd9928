"""Several takes side by side through one codec: each as if it were alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from csm_repl.codec import Codec, DecodeStreams, IstftCodec, MimiCodec, mimi_streams
from tests.support.codecs import random_istft
from tools.random_checkpoint import random_mimi_state, tiny_mimi_config

CPU = torch.device("cpu")
TOLERANCE = 1e-4
K = 4
N_SLOTS = 3
HELD_BACK = {"mimi": 0, "istft": 360}
"""Samples."""


@pytest.fixture(scope="module")
def mimi(tmp_path_factory: pytest.TempPathFactory) -> MimiCodec:
    """Looks back 10 frames only, and with its whole weight: whatever is wrong there is soon heard."""
    config = tiny_mimi_config(K)
    config["transformer"] |= {"context": 20, "layer_scale": 1.0}
    path = tmp_path_factory.mktemp("mimi") / "mimi.safetensors"
    save_file(random_mimi_state(config, seed=0), path)
    return MimiCodec.load(path, n_codebooks=K, device=CPU, config=config)


@pytest.fixture(scope="module")
def istft() -> IstftCodec:
    return random_istft(K)


@pytest.fixture(params=["mimi", "istft"])
def codec(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def codes(n_frames: int, seed: int = 0) -> torch.Tensor:
    """Some of them are none of the codec's."""
    return torch.randint(-3, 2100, (K, n_frames), generator=torch.Generator().manual_seed(seed))


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE)


class Listener:
    """Notes what goes through streams and holds it against whole takes."""

    def __init__(self, codec: Codec, n_slots: int = N_SLOTS) -> None:
        self.codec = codec
        self.streams = codec.streams(n_slots)
        self.codes: list[list[torch.Tensor]] = [[] for _ in range(n_slots)]
        self.samples: list[list[torch.Tensor]] = [[] for _ in range(n_slots)]

    def push(self, pieces: dict[int, torch.Tensor]) -> None:
        found = self.streams.push(pieces)
        assert sorted(found) == sorted(pieces)
        for slot, piece in pieces.items():
            self.codes[slot].append(piece)
            self.samples[slot].append(found[slot])

    def flush(self, slot: int) -> None:
        self.samples[slot].append(self.streams.flush(slot))
        n_frames = sum(piece.shape[1] for piece in self.codes[slot])
        assert sum(map(len, self.samples[slot])) == n_frames * self.codec.samples_per_frame
        self._compare(slot)

    def reset(self, slot: int) -> None:
        self._compare(slot)
        self.streams.reset(slot)

    def _compare(self, slot: int) -> None:
        if self.codes[slot]:
            whole = self.codec.decode(torch.cat(self.codes[slot], dim=1))
            got = torch.cat(self.samples[slot])
            assert len(whole) - len(got) <= 360
            close(got, whole[: len(got)])
        self.codes[slot], self.samples[slot] = [], []


slots = st.integers(0, N_SLOTS - 1)
pushes = st.dictionaries(slots, st.integers(1, 14), max_size=N_SLOTS)
"""Frames by slot, in a range that goes beyond what Mimi decodes in one pass."""
steps = st.one_of(
    pushes,
    pushes,
    pushes,
    st.tuples(st.sampled_from(["flush", "reset"]), slots),
    st.sampled_from(["encode", "decode"]),
)


@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(["mimi", "istft"]), schedule=st.lists(steps, max_size=12), seed=st.integers(0, 999)
)
def test_every_take_is_as_if_it_were_alone(
    mimi: MimiCodec, istft: IstftCodec, kind: str, schedule: list[Any], seed: int
) -> None:
    codec: Any = {"mimi": mimi, "istft": istft}[kind]
    listener = Listener(codec)
    for index, step in enumerate(schedule):
        if isinstance(step, dict):
            listener.push({slot: codes(n, 7 * (seed + index) + slot) for slot, n in step.items()})
        elif isinstance(step, tuple):
            getattr(listener, step[0])(step[1])
        elif step == "decode":
            codec.decode(codes(3, seed))
        else:
            codec.encode(torch.ones(4000))
    for slot in range(N_SLOTS):
        listener.flush(slot)


@pytest.mark.parametrize("sizes", [[1] * 40, [12] * 4, [1, 2, 4, 8, 12, 12], [40], [5, 30, 5]])
def test_takes_far_beyond_the_codecs_context(codec: Any, sizes: list[int]) -> None:
    """A slot that rests meanwhile goes on where it was."""
    listener = Listener(codec)
    listener.push({1: codes(15, seed=98)})
    for index, n in enumerate(sizes):
        listener.push({0: codes(n, index), 2: codes(n, 50 + index)})
    listener.push({1: codes(3, seed=99)})
    for slot in range(N_SLOTS):
        listener.flush(slot)


def test_what_a_neighbour_says_changes_nothing(codec: Any) -> None:
    found = []
    for other in (codes(8, seed=5), torch.full((K, 8), 10**6), codes(8, seed=6)):
        streams = codec.streams(2)
        found.append(
            torch.cat([streams.push({0: codes(4, n), 1: other[:, 4 * n :][:, :4]})[0] for n in range(2)])
        )
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_a_slot_is_as_new_after_reset_and_flush(codec: Any) -> None:
    streams = codec.streams(1)
    found = []
    for end in (streams.reset, streams.flush, streams.reset):
        found.append(streams.push({0: codes(30)})[0])
        streams.push({0: codes(3, seed=4)})
        end(0)
    assert all(torch.equal(each, found[0]) for each in found)


def test_what_is_not_a_number_is_gone_after_a_reset(mimi: MimiCodec) -> None:
    """A mask alone does not keep it out: 0 * nan. The neighbour's steps are looked at beside the slot's."""
    streams: Any = mimi.streams(2)
    streams.push({1: codes(12)})
    with torch.inference_mode():
        for ring in streams._rings:
            ring._cache[:, 0].fill_(torch.nan)
    assert streams.push({0: codes(4), 1: codes(4)})[0].isnan().any()
    streams.reset(0)
    close(streams.push({0: codes(4), 1: codes(4)})[0], mimi.decode(codes(4)))


def test_no_pieces_are_no_samples(codec: Any) -> None:
    streams = codec.streams(2)
    assert streams.n_slots == 2
    assert streams.push({}) == {}
    assert streams.flush(1).shape == (0,)


def test_samples_are_floats_and_all_but_the_held_back_are_out(codec: Any) -> None:
    found = codec.streams(N_SLOTS).push({2: codes(3), 0: codes(5)})
    held_back = HELD_BACK["mimi" if isinstance(codec, MimiCodec) else "istft"]
    assert {slot: len(samples) for slot, samples in found.items()} == {
        2: 3 * 1920 - held_back,
        0: 5 * 1920 - held_back,
    }
    assert all(samples.dtype == torch.float32 and samples.device == CPU for samples in found.values())


def test_streams_do_not_disturb_each_other(codec: Any) -> None:
    first, second = Listener(codec), Listener(codec)
    with codec.stream() as single:
        alone = []
        for n in range(4):
            first.push({0: codes(4, n)})
            second.push({0: codes(3, 20 + n), 1: codes(4, 30 + n)})
            alone.append(single.push(codes(5, 40 + n)))
        alone.append(single.flush())
    first.flush(0)
    second.flush(0)
    second.flush(1)
    close(torch.cat(alone), codec.decode(torch.cat([codes(5, 40 + n) for n in range(4)], dim=1)))


def test_a_single_stream_is_closed_at_the_end(codec: Any) -> None:
    with contextlib.suppress(KeyboardInterrupt), codec.stream() as stream:
        stream.push(codes(1))
        raise KeyboardInterrupt
    for call in (lambda: stream.push(codes(1)), stream.flush):
        with pytest.raises(RuntimeError, match="the stream is closed"):
            call()


WRONG: dict[str, tuple[type[Exception], Callable[[DecodeStreams], Any]]] = {
    "no such slot": (IndexError, lambda streams: streams.push({0: codes(2), 3: codes(2)})),
    "a slot below zero": (IndexError, lambda streams: streams.push({-1: codes(2)})),
    "another slot to flush": (IndexError, lambda streams: streams.flush(3)),
    "another slot to reset": (IndexError, lambda streams: streams.reset(3)),
    "no frames": (ValueError, lambda streams: streams.push({0: codes(2), 1: codes(0)})),
    "too few codebooks": (ValueError, lambda streams: streams.push({0: codes(2), 1: codes(2)[1:]})),
    "a frame": (ValueError, lambda streams: streams.push({0: codes(2), 1: codes(2)[:, 0]})),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_call_that_is_refused_changes_nothing(codec: Any, name: str) -> None:
    error, call = WRONG[name]
    listener = Listener(codec)
    listener.push({0: codes(2), 1: codes(3)})
    with pytest.raises(error):
        call(listener.streams)
    listener.push({0: codes(3, seed=1), 1: codes(2, seed=1)})
    listener.flush(0)
    listener.flush(1)


def test_streams_without_a_slot_are_refused(codec: Any) -> None:
    with pytest.raises(ValueError, match="need a slot"):
        codec.streams(0)


@pytest.mark.parametrize("fault", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fault_breaks_the_slots_of_its_call_and_no_others(
    codec: Any, fault: type[BaseException], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener(codec)
    streams: Any = listener.streams
    listener.push({0: codes(12), 1: codes(12, seed=1), 2: codes(12, seed=2)})
    decode = streams._decode

    def fail(chosen: list[int], pieces: torch.Tensor) -> None:
        if when == "after":
            decode(chosen, pieces)
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(streams, "_decode", fail)
        with pytest.raises(fault):
            streams.push({0: codes(3), 1: codes(3)})
    for call in (lambda: streams.push({1: codes(1), 2: codes(1)}), lambda: streams.flush(0)):
        with pytest.raises(RuntimeError, match="must be reset"):
            call()
    listener.push({2: codes(12, seed=3)})
    for slot in (0, 1):
        listener.reset(slot)
    listener.push({0: codes(14, seed=4), 1: codes(2, seed=5), 2: codes(2, seed=6)})
    for slot in range(N_SLOTS):
        listener.flush(slot)


def test_a_fault_in_the_midst_of_mimis_pass_leaves_resting_slots_alone(
    mimi: MimiCodec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keys and values are written by then, all else is not."""
    listener = Listener(mimi)
    streams: Any = listener.streams
    listener.push({slot: codes(12, slot) for slot in range(N_SLOTS)})

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(streams._model.decoder, "forward", fail)
        with pytest.raises(MemoryError):
            streams.push({0: codes(12), 2: codes(12)})
    listener.reset(0)
    listener.reset(2)
    listener.push({slot: codes(5, 10 + slot) for slot in range(N_SLOTS)})
    for slot in range(N_SLOTS):
        listener.flush(slot)


def test_streams_share_the_parameters_and_leave_the_model_alone(mimi: MimiCodec) -> None:
    mimi.decode(codes(1))
    streams: Any = mimi.streams(2)
    own = {tensor.data_ptr() for tensor in (*mimi._model.parameters(), *mimi._model.buffers())}
    shared = [*streams._model.parameters(), *streams._model.buffers()]
    assert len(shared) > 20
    assert all(tensor.data_ptr() in own for tensor in shared)
    assert not any(getattr(module, "is_streaming", False) for module in mimi._model.modules())
    assert not [name for name, _ in streams._model.named_parameters() if name.startswith(("encoder", "down"))]


def test_one_pass_goes_as_far_as_the_shortest_piece(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    streams: Any = codec.streams(4)
    passes: list[tuple[list[int], list[int]]] = []
    decode = streams._decode

    def noted(chosen: list[int], pieces: torch.Tensor) -> Any:
        passes.append((list(chosen), list(pieces.shape)))
        return decode(chosen, pieces)

    monkeypatch.setattr(streams, "_decode", noted)
    streams.push({3: codes(2), 0: codes(4), 1: codes(2), 2: codes(4)})
    assert passes == [([0, 1, 2, 3], [4, K, 2]), ([0, 2], [2, K, 2])]


def test_threads_may_share_a_codec_and_its_streams(codec: Any) -> None:
    clip = torch.randn(6000, generator=torch.Generator().manual_seed(0))
    encoded, decoded = codec.encode(clip), codec.decode(codes(9))
    shared = codec.streams(2)
    faults: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            for _ in range(2):
                work()
        except BaseException as error:
            faults.append(error)

    def in_slot(streams: Any, slot: int) -> None:
        parts = [streams.push({slot: piece})[slot] for piece in codes(9).split([1, 2, 6], dim=1)]
        close(torch.cat([*parts, streams.flush(slot)]), decoded)

    def check_encode() -> None:
        assert torch.equal(codec.encode(clip), encoded)

    works: list[Callable[[], None]] = [
        check_encode,
        lambda: close(codec.decode(codes(9)), decoded),
        lambda: in_slot(shared, 0),
        lambda: in_slot(shared, 1),
        lambda: in_slot(codec.streams(1), 0),
    ]
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults


def test_all_of_mimis_work_is_done_aside(mimi: MimiCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that is a stream of its own; a stray call would race with it."""
    inside: list[bool] = []
    calls: list[str] = []

    @contextlib.contextmanager
    def aside() -> Any:
        inside.append(True)
        yield
        inside.pop()

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*arguments: Any, **named: Any) -> Any:
            assert inside, name
            calls.append(name)
            return original(*arguments, **named)

        monkeypatch.setattr(owner, name, watched)

    monkeypatch.setattr(mimi, "_aside", aside)
    for name in ("encode", "decode"):
        watch(mimi._model, name)
    for name in ("choose", "clear"):
        watch(mimi_streams._Ring, name)
    watch(mimi_streams, "_decoder_of")
    mimi.decode(mimi.encode(torch.randn(4000)))
    streams: Any = mimi.streams(2)
    watch(streams._model, "decode")
    streams.push({0: codes(2), 1: codes(2)})
    streams.flush(0)
    streams.reset(1)
    assert set(calls) == {"encode", "decode", "choose", "clear", "_decoder_of"}
