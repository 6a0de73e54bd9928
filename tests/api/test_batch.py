"""Several takes side by side: each is as if it were alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from csm_repl import Generator, Segment, SpeechRequest, load_csm_1b
from csm_repl.errors import LineError
from tests.support.faults import Fault
from tests.support.speech import ROUNDING, voiced


@pytest.fixture(scope="module")
def generator(quick_checkpoint: Path) -> Generator:
    return load_csm_1b(quick_checkpoint, "cpu", dtype="float32")


@pytest.fixture
def requests() -> list[dict[str, Any]]:
    context = [Segment(0, "Hey.", torch.from_numpy(voiced(0.6, 110)))]
    return [
        {"text": "One.", "speaker": 0, "context": context, "seed": 1},
        {"text": "Two is a longer one.", "speaker": 1, "seed": 2, "temperature": 0.5},
        {"text": "Three.", "speaker": 2, "seed": 3, "max_audio_length_ms": 240},
        {"text": "It's $4 [pause 0.2] or 5.", "speaker": 0, "seed": 4, "normalize": "safe"},
        {"text": "Five.", "speaker": 0, "seed": 5, "temperature": 0, "topk": 1},
    ]


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_batch_is_its_takes_alone_in_order(
    generator: Generator, requests: list[dict[str, Any]], batch: int
) -> None:
    alone = [generator.generate(**request) for request in requests]
    together = generator.generate_batch(requests, batch=batch)
    assert len({len(take) for take in alone}) > 2
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, atol=ROUNDING, rtol=0)
    assert len(together[2]) == 3 * 1920


def test_takes_are_really_made_side_by_side(generator: Generator, requests: list[dict[str, Any]]) -> None:
    generator.generate_batch(requests, batch=4)
    side_by_side = generator._side_by_side
    assert side_by_side is not None
    before = side_by_side.engine.stats.frames
    steps = []
    step = side_by_side.engine.step
    side_by_side.engine.step = lambda: steps.append(1) or step()  # type: ignore[func-returns-value,method-assign]
    try:
        generator.generate_batch(requests, batch=4)
    finally:
        side_by_side.engine.step = step  # type: ignore[method-assign]
    assert len(steps) < 0.6 * (side_by_side.engine.stats.frames - before)


def test_requests_may_be_objects_mappings_or_conversations(generator: Generator) -> None:
    conversation = [{"role": "1", "content": [{"type": "text", "text": "Same."}]}]
    torch.manual_seed(4)
    first, second = generator.generate_batch(
        [SpeechRequest("Same.", 1, seed=9), {"text": conversation, "seed": 9}]
    )
    torch.testing.assert_close(first, second, atol=ROUNDING, rtol=0)
    assert len(generator.generate_batch([conversation])) == 1


def test_nothing_asked_for_is_nothing_made(generator: Generator) -> None:
    assert generator.generate_batch([]) == []


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ({"text": "x", "speaker": "y"}, r"requests\[1\]\.speaker"),
        ({"text": 5, "speaker": 0}, r"requests\[1\]\.text"),
        ({"text": "x", "speaker": 0, "topk": 2.5}, r"requests\[1\]\.topk"),
        ({"text": "x", "speaker": 0, "seed": -1}, r"requests\[1\]\.seed"),
        ({"text": "x", "speaker": 0, "context": [5]}, r"requests\[1\]\.context\[0\]"),
        (
            {"text": "[pause 99]", "speaker": 0, "normalize": "safe"},
            r"requests\[1\]\.text: \[pause 99\] is longer",
        ),
        ({"text": "x", "speakers": 0}, r"requests\[1\] has 'speakers'"),
        ({"speaker": 0}, r"requests\[1\] has no text"),
        (5, r"requests\[1\] must be"),
    ],
)
def test_a_bad_request_is_named_before_anything_is_made(generator: Generator, bad: Any, told: str) -> None:
    frames = generator._model.engine.stats.frames
    with pytest.raises(ValueError, match=told):
        generator.generate_batch([{"text": "Hi.", "speaker": 0}, bad], batch=1)
    assert generator._model.engine.stats.frames == frames


@pytest.mark.parametrize("requests", ["text", {"text": "x"}, [{"role": "0", "content": []}], 5])
def test_what_is_no_list_of_requests_is_refused(generator: Generator, requests: Any) -> None:
    with pytest.raises(ValueError, match="requests must be a list"):
        generator.generate_batch(requests)


@pytest.fixture
def broken(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The take that speaks 'Two' cannot be planned."""
    generator.generate_batch([{"text": "Hi.", "speaker": 0}] * 3)
    speech = generator._side_by_side
    assert speech is not None
    begin = speech._begin_piece

    def fail(turn: Any, piece: Any) -> None:
        if piece.text == "Two.":
            raise LineError("No numbers.", "Try another text.")
        begin(turn, piece)

    monkeypatch.setattr(speech, "_begin_piece", fail)
    return


@pytest.mark.usefixtures("broken")
def test_a_take_that_fails_stands_in_its_place_if_asked_for(generator: Generator) -> None:
    requests = [{"text": text, "speaker": 0, "seed": 1} for text in ("One.", "Two.", "Three.")]
    results: list[Any] = generator.generate_batch(requests, return_exceptions=True)
    assert isinstance(results[1], LineError)
    for index in (0, 2):
        torch.testing.assert_close(
            results[index], generator.generate(**requests[index]), atol=ROUNDING, rtol=0
        )
    with pytest.raises(LineError, match="No numbers"):
        generator.generate_batch(requests)
    assert generator._side_by_side is not None
    generator._side_by_side.step()
    assert not generator._side_by_side.n_open


def test_ctrl_c_leaves_the_generator_usable(
    generator: Generator, requests: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = generator.generate_batch(requests)
    speech = generator._side_by_side
    assert speech is not None
    with monkeypatch.context() as patch:
        patch.setattr(speech.engine, "step", Fault(KeyboardInterrupt, left=3).wrap(speech.engine.step))
        with pytest.raises(KeyboardInterrupt):
            generator.generate_batch(requests)
    for one, other in zip(generator.generate_batch(requests), expected, strict=True):
        torch.testing.assert_close(one, other, atol=ROUNDING, rtol=0)


def test_threads_may_share_it(generator: Generator, requests: list[dict[str, Any]]) -> None:
    expected = generator.generate_batch(requests)
    alone = generator.generate(**requests[0])
    with ThreadPoolExecutor(3) as pool:
        batches = [pool.submit(generator.generate_batch, requests) for _ in range(2)]
        single = pool.submit(generator.generate, **requests[0])
        for future in batches:
            for one, other in zip(future.result(), expected, strict=True):
                torch.testing.assert_close(one, other, atol=ROUNDING, rtol=0)
        torch.testing.assert_close(single.result(), alone, atol=ROUNDING, rtol=0)


def test_pauses_are_silence_where_text_is_normalised_and_text_elsewhere(generator: Generator) -> None:
    whole = generator.generate("One. [pause 0.5] Two.", 0, seed=1, normalize="safe")
    silent = (whole == 0).int().diff().nonzero().flatten()
    assert max(silent.diff().tolist()) == pytest.approx(12_000, abs=1)
    as_typed = generator._turn_request(SpeechRequest("One. [pause 0.5] Two.", 0))
    assert [piece.text for piece in as_typed.pieces] == ["One. [pause 0.5] Two."]  # type: ignore[union-attr]
