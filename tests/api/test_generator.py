"""Code written for the original project, with nothing changed but the import line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from csm_repl import Generator, Segment, generate_streaming_audio, load_csm_1b
from csm_repl.errors import UsageError
from tests.support.speech import voiced


@pytest.fixture(scope="module")
def generator(tiny_checkpoint: Path) -> Generator:
    return load_csm_1b(device="cpu", model=str(tiny_checkpoint), dtype="float32")


@pytest.fixture(scope="module")
def context(generator: Generator) -> list[Segment]:
    return [
        Segment(text="Hey how are you doing.", speaker=0, audio=torch.from_numpy(voiced(1.0, 110))),
        Segment(text="Pretty good, pretty good.", speaker=1, audio=torch.from_numpy(voiced(0.7, 210))),
    ]


def test_the_originals_first_example_runs(
    monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        load_csm_1b, "__kwdefaults__", {**load_csm_1b.__kwdefaults__, "model": str(tiny_checkpoint)}
    )
    monkeypatch.chdir(tmp_path)
    script = (
        "from csm_repl import load_csm_1b\n"
        "import soundfile\n"
        "import torch\n"
        "device = 'cuda' if torch.cuda.is_available() else 'cpu'\n"
        "generator = load_csm_1b(device=device)\n"
        "audio = generator.generate(\n"
        "    text='Hello from Sesame.',\n"
        "    speaker=0,\n"
        "    context=[],\n"
        "    max_audio_length_ms=10_000,\n"
        ")\n"
        "soundfile.write('audio.wav', audio.cpu().numpy(), generator.sample_rate)\n"
    )
    exec(compile(script, "example", "exec"), {})
    assert soundfile.info("audio.wav").samplerate == 24_000


def test_the_originals_conversation_loop_runs(generator: Generator, context: list[Segment]) -> None:
    conversation = [
        {"text": "Hey how are you doing?", "speaker_id": 0},
        {"text": "Great! So happy to be speaking to you.", "speaker_id": 1},
    ]
    generated_segments: list[Segment] = []
    for utterance in conversation:
        audio_tensor = generator.generate(
            text=utterance["text"],
            speaker=utterance["speaker_id"],
            context=context + generated_segments,
            max_audio_length_ms=1_000,
        )
        generated_segments.append(
            Segment(text=utterance["text"], speaker=utterance["speaker_id"], audio=audio_tensor)
        )
    all_audio = torch.cat([segment.audio for segment in generated_segments], dim=0)
    assert all_audio.ndim == 1
    assert all_audio.dtype == torch.float32
    assert len(all_audio) > 0


def test_segment_takes_its_fields_in_the_originals_order() -> None:
    segment = Segment(1, "Hi.", torch.zeros(10))
    assert (segment.speaker, segment.text) == (1, "Hi.")


def test_chunks_joined_are_what_generate_returns(generator: Generator, context: list[Segment]) -> None:
    whole = generator.generate("Same.", 0, context, seed=3)
    heard: list[torch.Tensor] = []
    chunks = list(generator.generate_stream("Same.", 0, context, on_chunk_generated=heard.append, seed=3))
    torch.testing.assert_close(torch.cat(chunks), whole, atol=1e-4, rtol=0)
    assert len(heard) == len(chunks) > 1
    assert len(chunks[0]) == 1920


def test_torch_manual_seed_makes_a_take_repeatable(generator: Generator) -> None:
    takes = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        takes.append(generator.generate("Again.", 0, [], 2_000))
    assert torch.equal(takes[0], takes[1])
    assert not (len(takes[0]) == len(takes[2]) and torch.equal(takes[0], takes[2]))


def test_max_audio_length_cuts(generator: Generator) -> None:
    audio = generator.generate("Cut.", 0, [], max_audio_length_ms=160, seed=2)
    assert len(audio) <= 2 * 1920


def test_a_context_that_comes_again_is_neither_encoded_nor_prefilled_again(
    generator: Generator, context: list[Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator.generate("Once.", 0, context, 500, seed=1)
    calls = []
    monkeypatch.setattr(generator._model.codec, "encode", calls.append)
    before = generator._model.engine.stats.prefilled
    generator.generate("Twice.", 0, context, 500, seed=1)
    n_text = len(generator._model.tokenizer.encode("[0]Twice."))
    assert not calls
    assert generator._model.engine.stats.prefilled - before <= n_text


def test_takes_of_many_threads_are_those_that_their_seeds_give_alone(
    generator: Generator, context: list[Segment]
) -> None:
    def speak(seed: int) -> torch.Tensor:
        heard = context if seed % 2 else []
        return generator.generate(f"Take {seed}.", seed % 3, heard, 1_000, seed=seed)

    alone = [speak(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(speak, range(8)))
    for found, expected in zip(together, alone, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_a_take_that_is_left_in_its_middle_does_not_hold_up_the_next(generator: Generator) -> None:
    expected = generator.generate("Next.", 0, [], 500, seed=4)
    begun = generator.generate_stream("Left.", 0, [], 4_000, seed=3)
    next(begun)
    del begun
    torch.testing.assert_close(generator.generate("Next.", 0, [], 500, seed=4), expected, atol=1e-4, rtol=0)


def test_two_takes_can_be_read_in_turn(generator: Generator) -> None:
    def chunks(seed: int) -> Iterator[torch.Tensor]:
        return generator.generate_stream("Both.", 0, [], 800, seed=seed)

    alone = [torch.cat(list(chunks(seed))) for seed in (1, 2)]
    both, heard = [chunks(1), chunks(2)], [list[torch.Tensor](), list[torch.Tensor]()]
    for _ in range(20):
        for take, said in zip(both, heard, strict=True):
            said += [samples for samples in [next(take, None)] if samples is not None]
    for found, expected in zip(heard, alone, strict=True):
        torch.testing.assert_close(torch.cat(found), expected, atol=1e-4, rtol=0)


def test_too_long_a_prompt_is_a_value_error(generator: Generator) -> None:
    with pytest.raises(ValueError, match="2048"):
        generator.generate("word " * 3000, 0, [])


def test_too_long_a_clip_is_refused_before_it_is_encoded(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[torch.Tensor] = []
    monkeypatch.setattr(generator.codec, "encode", calls.append)
    hour = torch.zeros(1).expand(3600 * 24_000)
    with pytest.raises(ValueError, match="2048"):
        generator.generate("After an hour.", 0, [Segment(0, "Hours.", hour)])
    assert not calls


def test_a_clip_is_the_same_clip_whatever_holds_it(generator: Generator) -> None:
    samples = torch.from_numpy(voiced(0.5, 110))
    whole = (samples * 32767).round().to(torch.int16)
    takes = [
        generator.generate("Same.", 0, [Segment(0, "Hey.", audio)], 400, seed=7)
        for audio in (whole.float() / 2**15, whole, whole.numpy()[None], (whole.double() / 2**15).numpy())
    ]
    assert all(torch.equal(take, takes[0]) for take in takes)


BAD: list[tuple[str, dict[str, Any]]] = [
    ("text", {"text": None}),
    ("text", {"text": b"Hi."}),
    ("speaker", {"speaker": "anna"}),
    ("speaker", {"speaker": 0.5}),
    ("context", {"context": None}),
    (r"context\[0\] ", {"context": ["Hi."]}),
    (r"context\[0\]\.audio", {"context": [Segment(0, "Hi.", torch.zeros(0))]}),
    (r"context\[0\]\.audio", {"context": [Segment(0, "Hi.", torch.tensor([math.nan]))]}),
    (r"context\[0\]\.text", {"context": [Segment(0, None, torch.zeros(9))]}),  # type: ignore[arg-type]
    (r"context\[0\]\.speaker", {"context": [Segment(None, "Hi.", torch.zeros(9))]}),  # type: ignore[arg-type]
    *(("max_audio_length_ms", {"max_audio_length_ms": value}) for value in (math.inf, 0, -5, math.nan, "1")),
    *(("temperature", {"temperature": value}) for value in (math.nan, math.inf, -1, "hot")),
    *(("topk", {"topk": value}) for value in (2.5, 0, -1, "50", math.nan)),
    *(("seed", {"seed": value}) for value in ("x", 1.5, -1, 2**63)),
]


@pytest.mark.parametrize(("name", "wrong"), BAD)
def test_an_argument_that_cannot_be_spoken_is_named(
    generator: Generator, name: str, wrong: dict[str, Any]
) -> None:
    arguments: dict[str, Any] = {"text": "Hi.", "speaker": 0, "context": [], **wrong}
    for speak in (generator.generate, generator.generate_stream):
        with pytest.raises(ValueError, match=f"^{name}"):
            speak(**arguments)


@pytest.mark.parametrize("play", [False, True])
def test_streaming_into_a_file_replaces_it(generator: Generator, tmp_path: Path, play: bool) -> None:
    target = tmp_path / "out.wav"
    target.write_bytes(b"old")
    generate_streaming_audio(
        generator=generator,
        text="Hello, this is streaming.",
        speaker=0,
        context=[],
        output_file=str(target),
        max_audio_length_ms=800,
        temperature=0.7,
        topk=30,
        play_audio=play,
    )
    assert soundfile.info(str(target)).frames > 0


def test_device_and_sample_rate_are_there(generator: Generator) -> None:
    assert generator.sample_rate == 24_000
    assert torch.device(generator.device).type == "cpu"


@pytest.mark.parametrize("quantize", ["int8", "int4", "auto"])
def test_a_quantised_model_speaks(tiny_checkpoint: Path, quantize: str) -> None:
    generator = load_csm_1b(device="cpu", model=str(tiny_checkpoint), quantize=quantize)
    audio = generator.generate("Fewer bytes.", 0, [], max_audio_length_ms=240, seed=1)
    assert len(audio) > 0
    assert audio.dtype == torch.float32


def test_an_unknown_quantisation_is_a_usage_error(tiny_checkpoint: Path) -> None:
    with pytest.raises(UsageError, match="int3"):
        load_csm_1b(device="cpu", model=str(tiny_checkpoint), quantize="int3")


def test_numbers_are_written_out_only_where_that_is_asked_for(generator: Generator) -> None:
    typed, said = "It is 5 km.", "It is five kilometers."
    as_typed, written_out = (
        generator.generate(typed, 0, [], 400, seed=1, **how) for how in ({}, {"normalize": "safe"})
    )
    assert torch.equal(written_out, generator.generate(said, 0, [], 400, seed=1))
    assert torch.equal(as_typed, generator.generate(typed, 0, [], 400, seed=1, normalize="off"))
    assert not torch.equal(as_typed[: len(written_out)], written_out[: len(as_typed)])
    with pytest.raises(ValueError, match="nothing is spoken"):
        generator.generate("[laughs]", 0, [], normalize="safe")
    with pytest.raises(ValueError, match="normalize must be"):
        generator.generate("Hi.", 0, [], normalize="full")
