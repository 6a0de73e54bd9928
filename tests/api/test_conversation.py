"""transformers' form of a conversation: what it means, where it is wrong, and the frames that come of it.

The frames are compared with those of transformers' own processor and model, on a tiny checkpoint that
transformers wrote. Made equal: weights, tokenizer, and the codec that reads the context's audio (theirs,
because a tiny Mimi in their layout is no codec that we load). Greedy, because their sampling draws from
another generator. The chat template is the test's, after the rules that the hub's states.
"""

from __future__ import annotations

import functools
import threading
import warnings
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from csm_repl import AutoProcessor, CsmForConditionalGeneration, Generator, Segment, load_csm_1b
from csm_repl.api.conversation import read_conversation
from csm_repl.engine import Engine
from csm_repl.files.checkpoint import find_checkpoint
from csm_repl.loaded import LoadedModel, ModelInfo
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.model.weights.convert import load_csm
from tests.model.test_transformers_parity import (
    AUDIO_END_ID,
    AUDIO_ID,
    N_CODEBOOKS,
    TEXT_VOCAB,
    VOCAB,
    codes_of,
    new_model,
)
from tests.support.codecs import random_istft
from tests.support.speech import ROUNDING, voiced, write_clip

N_FRAMES = 8
TEMPLATE = (
    "{% for message in messages %}<|begin_of_text|>[{{ message['role'] }}]"
    "{% for item in message['content'] if item['type'] == 'text' %}{{ item['text'] }}{% endfor %}"
    "<|end_of_text|>"
    "{% for item in message['content'] if item['type'] == 'audio' %}<|AUDIO|><|audio_eos|>{% endfor %}"
    "{% endfor %}"
)


def message(role: int, text: str, audio: Any = None, key: str = "path") -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    if audio is not None:
        content.append({"type": "audio", key: audio})
    return {"role": str(role), "content": content}


# --- transformers' own frames -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A folder that transformers wrote, and its own model and processor."""
    from tokenizers import Regex, pre_tokenizers
    from tokenizers import Tokenizer as Backend
    from tokenizers.models import WordLevel
    from transformers import CsmProcessor, EncodecFeatureExtractor, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = new_model()
        model.save_pretrained(folder)
        vocabulary = {"<unk>": 0, "<|begin_of_text|>": 1, "<|end_of_text|>": 2}
        vocabulary |= {chr(code): code - 29 for code in range(32, 127)}
        vocabulary |= {"<|AUDIO|>": AUDIO_ID, "<|audio_eos|>": AUDIO_END_ID}
        backend = Backend(WordLevel(vocabulary, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=backend,
            bos_token="<|begin_of_text|>",
            eos_token="<|end_of_text|>",
            pad_token="<|AUDIO|>",
            model_input_names=["input_ids", "attention_mask"],
            additional_special_tokens=["<|AUDIO|>", "<|audio_eos|>"],
        )
        processor = CsmProcessor(
            EncodecFeatureExtractor(feature_size=1, sampling_rate=24_000), tokenizer, chat_template=TEMPLATE
        )
        tokenizer.save_pretrained(folder)
    return folder, model, processor


@pytest.fixture(scope="module")
def ours(written: tuple[Path, Any, Any]) -> CsmForConditionalGeneration:
    folder, model, _ = written
    csm = load_csm(find_checkpoint(folder), device=torch.device("cpu"), dtype=torch.float32)
    codec = random_istft(N_CODEBOOKS, VOCAB)
    codec.encode = lambda samples: codes_of(model, samples)  # type: ignore[method-assign]
    info = ModelInfo("tiny", None, "cpu", "float32", "none", 0)
    tokenizer = Tokenizer(folder / "tokenizer.json", vocab_size=TEXT_VOCAB)
    return CsmForConditionalGeneration(
        Generator(LoadedModel(Engine(csm), codec, tokenizer, csm.config, info))
    )


def clip(seed: int, n_samples: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(n_samples).astype(np.float32) / 4


CONVERSATIONS = {
    "text": [message(0, "Hello from Sesame.")],
    "one said": [message(0, "Hi.", clip(1, 1920 * 5)), message(1, "Hello, you!")],
    "ragged": [
        message(0, "How much do you know about it?", clip(2, 5000)),
        message(1, "Not much.", clip(3, 1920 * 2)),
        message(0, "A", clip(4, 700)),
        message(2, "What are we talking about?"),
    ],
}


def theirs(written: tuple[Path, Any, Any], conversations: Any) -> list[list[list[int]]]:
    _, model, processor = written
    inputs = processor.apply_chat_template(conversations, tokenize=True, return_dict=True)
    with torch.no_grad():
        frames = model.generate(
            **inputs, do_sample=False, depth_decoder_do_sample=False, max_new_tokens=N_FRAMES
        )
    return [each.tolist() for each in frames]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_conversation_gives_the_frames_that_transformers_gives(
    name: str, written: tuple[Path, Any, Any], ours: CsmForConditionalGeneration
) -> None:
    inputs = AutoProcessor.from_pretrained("any").apply_chat_template(CONVERSATIONS[name])
    frames = ours.generate(**inputs, do_sample=False, max_new_tokens=N_FRAMES)
    assert isinstance(frames, torch.Tensor)
    assert frames.tolist() == theirs(written, CONVERSATIONS[name])


def test_several_conversations_side_by_side_give_the_frames_that_transformers_gives(
    written: tuple[Path, Any, Any], ours: CsmForConditionalGeneration
) -> None:
    conversations = list(CONVERSATIONS.values())
    inputs = AutoProcessor().apply_chat_template(conversations, tokenize=True, return_dict=True).to("cpu")
    frames = ours.generate(**inputs, do_sample=False, depth_decoder_do_sample=False, max_new_tokens=N_FRAMES)
    assert isinstance(frames, torch.Tensor)
    # Alone: padded on the left, transformers itself rounds otherwise.
    assert frames.tolist() == [theirs(written, each)[0] for each in conversations]
    assert len({str(each) for each in frames.tolist()}) == len(conversations)


def test_a_prompt_as_text_gives_the_same(
    written: tuple[Path, Any, Any], ours: CsmForConditionalGeneration
) -> None:
    processor = AutoProcessor()
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": N_FRAMES}
    expected = theirs(written, CONVERSATIONS["text"])
    short = ours.generate(**processor("[0]Hello from Sesame.", add_special_tokens=True), **options)
    assert isinstance(short, torch.Tensor)
    assert short.tolist() == expected
    whole = "<|begin_of_text|>[0]Hi.<|end_of_text|><|AUDIO|><|audio_eos|>"
    whole += "<|begin_of_text|>[1]Hello, you!<|end_of_text|>"
    spoken = ours.generate(**processor(whole, audio=clip(1, 1920 * 5)), **options)
    assert isinstance(spoken, torch.Tensor)
    assert spoken.tolist() == theirs(written, CONVERSATIONS["one said"])


# --- on a model of ours -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generator(quick_checkpoint: Path) -> Generator:
    return load_csm_1b(quick_checkpoint, "cpu", dtype="float32")


def test_a_conversation_is_segments_and_a_text(generator: Generator) -> None:
    sound = voiced(0.5)
    conversation = [message(1, "Hi.", sound), message(0, "Ho.")]
    expected = generator.generate("Ho.", 0, [Segment(1, "Hi.", sound)], seed=3)
    assert torch.equal(generator.generate(conversation, seed=3), expected)
    assert torch.equal(generator.generate("Ho.", 0, conversation[:1], seed=3), expected)
    assert torch.equal(torch.cat(list(generator.generate_stream(conversation, seed=3))), expected)


CARD = """
import torch
from csm_repl import CsmForConditionalGeneration, AutoProcessor

model_id = MODEL
device = "cuda" if torch.cuda.is_available() else "cpu"
processor = AutoProcessor.from_pretrained(model_id)
model = CsmForConditionalGeneration.from_pretrained(model_id, device_map=device)

text = "[0]Hello from Sesame."
inputs = processor(text, add_special_tokens=True).to(device)
audio = model.generate(**inputs, output_audio=True)
processor.save_audio(audio, "text.wav")

conversation = [{"role": "0", "content": [{"type": "text", "text": "Hello from Sesame."}]}]
inputs = processor.apply_chat_template(conversation, tokenize=True, return_dict=True).to(device)
audio = model.generate(**inputs, output_audio=True)
processor.save_audio(audio, "example_without_context.wav")

conversation = []
for text, audio, speaker_id in zip(ds["text"], ds["audio"], ds["speaker_id"]):
    conversation.append({"role": f"{speaker_id}", "content": [
        {"type": "text", "text": text}, {"type": "audio", "path": audio["array"]}]})
conversation.append({"role": "1", "content": [{"type": "text", "text": "And you?"}]})
inputs = processor.apply_chat_template(conversation, tokenize=True, return_dict=True).to(device)
audio = model.generate(**inputs, output_audio=True)
processor.save_audio(audio, "example_with_context.wav")

both = [conversation, conversation[-1:]]
inputs = processor.apply_chat_template(both, tokenize=True, return_dict=True).to(device)
audio = model.generate(**inputs, output_audio=True)
processor.save_audio(audio, [f"speech_batch_idx_{i}.wav" for i in range(len(audio))])
"""


def test_the_cards_way_of_using_it_runs_after_changing_the_import(
    quick_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = {
        "text": ["What are you working on?", "My budget."],
        "audio": [
            {"array": voiced(0.4), "sampling_rate": 24_000},
            {"array": voiced(0.3, 200), "sampling_rate": 24_000},
        ],
        "speaker_id": [0, 1],
    }
    exec(compile(CARD, "card", "exec"), {"MODEL": str(quick_checkpoint), "ds": data})
    names = [
        "text",
        "example_without_context",
        "example_with_context",
        "speech_batch_idx_0",
        "speech_batch_idx_1",
    ]
    for name in names:
        assert soundfile.info(f"{name}.wav").samplerate == 24_000


def test_the_take_of_a_batch_is_reproducible_and_cut_where_it_is_told(quick_checkpoint: Path) -> None:
    model = CsmForConditionalGeneration.from_pretrained(quick_checkpoint, torch_dtype=torch.float32)
    inputs = AutoProcessor().apply_chat_template([[message(0, "One.")], [message(1, "Two.")]])
    first = model.generate(**inputs, output_audio=True, seed=5, max_new_tokens=3)
    again = model.generate(**inputs, output_audio=True, seed=5, max_new_tokens=3)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one, other)
        assert len(one) <= 3 * 1920
    alone = model.generator.generate("Two.", 1, seed=6, max_audio_length_ms=240)
    torch.testing.assert_close(first[1], alone, atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_beams": 4}, "num_beams is not known"),
        ({"temperature": 0.5, "depth_decoder_temperature": 0.7}, "one value is for both"),
        ({"max_new_tokens": 0}, "max_new_tokens must be"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate can only be False"),
    ],
)
def test_options_that_cannot_be_followed_are_named(
    generator: Generator, options: dict[str, Any], told: str
) -> None:
    inputs = AutoProcessor().apply_chat_template([message(0, "Hi.")])
    with pytest.raises(ValueError, match=told):
        CsmForConditionalGeneration(generator).generate(**inputs, **options)


def test_training_and_other_devices_are_refused(generator: Generator) -> None:
    with pytest.raises(ValueError, match="csm-repl train"):
        AutoProcessor()("[0]Hi.", output_labels=True)
    with pytest.raises(ValueError, match="device_map='cuda'"):
        CsmForConditionalGeneration(generator).to("cuda")
    with pytest.raises(ValueError, match="return_dict"):
        AutoProcessor().apply_chat_template([message(0, "Hi.")], tokenize=False)
    with pytest.raises(ValueError, match="csm-repl train"):
        AutoProcessor().apply_chat_template([message(0, "Hi.")], output_labels=True)
    with pytest.raises(ValueError, match="add_special_tokens can only be True"):
        AutoProcessor()("[0]Hi.", add_special_tokens=False)
    with pytest.raises(ValueError, match="sampling_rate can only be 24000"):
        AutoProcessor()("[0]Hi.", sampling_rate=16_000)


def test_options_that_change_nothing_are_taken(quick_checkpoint: Path) -> None:
    model = CsmForConditionalGeneration.from_pretrained(
        quick_checkpoint, local_files_only=True, low_cpu_mem_usage=True, attn_implementation="sdpa"
    )
    inputs = AutoProcessor()("[0]Hi.", return_tensors="pt", padding=True, add_special_tokens=True)
    options = {"use_cache": True, "return_dict_in_generate": False, "pad_token_id": 0}
    assert model.eval().generate(**inputs, max_new_tokens=2, **options).shape[1] <= 2


# --- sound in a message -----------------------------------------------------------------------------------


def test_sound_may_be_an_array_a_tensor_a_row_of_a_data_set_or_a_file(tmp_path: Path) -> None:
    sound = voiced(0.5)
    write_clip(tmp_path / "a b.wav", None, seconds=0.5)
    half = torch.from_numpy(sound)[::2].numpy()
    for key, value in {
        "audio": sound,
        "path": torch.from_numpy(sound)[None],
        "url": (tmp_path / "a b.wav").as_uri(),
    }.items():
        said, _ = read_conversation([message(0, "Hi.", value, key), message(1, "Ho.")])
        assert said[0].audio is not None
        assert len(said[0].audio) == len(sound)
        torch.testing.assert_close(said[0].audio, torch.from_numpy(sound), atol=1e-3, rtol=0)
    for value in (
        str(tmp_path / "a b.wav"),
        tmp_path / "a b.wav",
        {"array": half, "sampling_rate": 12_000},
        sound.tolist(),
    ):
        said, _ = read_conversation([message(0, "Hi.", value), message(1, "Ho.")])
        assert said[0].audio is not None
        assert abs(len(said[0].audio) - len(sound)) <= 1


def test_sound_may_be_at_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "a.wav", None, seconds=0.5)
    handler = functools.partial(SilentHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/a.wav"
        said, _ = read_conversation([message(0, "Hi.", address, "url"), LAST])
        assert said[0].audio is not None
        torch.testing.assert_close(said[0].audio, torch.from_numpy(voiced(0.5)), atol=1e-3, rtol=0)
        with pytest.raises(ValueError, match="404"):
            read_conversation([message(0, "Hi.", address.replace("a.wav", "b.wav"), "url"), LAST])
        monkeypatch.setattr("csm_repl.api.conversation._MOST_BYTES", 1000)
        with pytest.raises(ValueError, match="larger than"):
            read_conversation([message(0, "Hi.", address, "url"), LAST])
        server.shutdown()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


SOUND = np.zeros(100, dtype=np.float32)
LAST = message(0, "Hi.")


@pytest.mark.parametrize(
    ("conversation", "told"),
    [
        ([], "list of messages"),
        ("Hi.", "list of messages"),
        ([5], "list of messages"),
        ([{"role": "0"}], r"conversation\[0\] has no content"),
        ([{"role": "user", "content": []}], r'conversation\[0\]\["role"\] must be the speaker'),
        ([{"role": -1, "content": []}], r'conversation\[0\]\["role"\]'),
        ([{"role": "0", "content": 5}], r'conversation\[0\]\["content"\] must be a list'),
        ([{"role": "0", "content": ["Hi."]}], r'conversation\[0\]\["content"\]\[0\] must be a mapping'),
        ([{"role": "0", "content": [{"type": "image"}]}], r'\["content"\]\[0\] must be a mapping'),
        ([{"role": "0", "content": [{"type": "text"}]}], r'\["content"\]\[0\]\["text"\] must be a string'),
        ([{"role": "0", "content": []}], "must hold one text"),
        ([LAST, LAST], r"conversation\[0\] has no audio"),
        ([message(0, "Hi.", SOUND)], r"conversation\[0\] has audio"),
        (
            [message(0, "Hi.", SOUND, "file"), LAST],
            r'\["content"\]\[1\] must have one of audio, path and url',
        ),
        ([message(0, "Hi.", "nowhere.wav"), LAST], r'\["content"\]\[1\]\["path"\] cannot be read'),
        ([message(0, "Hi.", "http://127.0.0.1:9/a.wav", "url"), LAST], r'\["url"\] cannot be read'),
        ([message(0, "Hi.", {"bytes": b""}), LAST], "has no array"),
        ([message(0, "Hi.", {"array": SOUND, "sampling_rate": 0}), LAST], "sampling_rate"),
        ([message(0, "Hi.", SOUND + np.nan), LAST], "holds NaN"),
        ([message(0, "Hi.", 5), LAST], "must be a torch tensor or a numpy array"),
        ([{"role": "9" * 5000, "content": "Hi."}], r'"role"\] must be the speaker'),
        ([message(0, "Hi.", ["a", "b"]), LAST], r'"content"\]\[1\].* is no list of samples'),
        ([message(0, "Hi.", [[0.1], [0.1, 0.2]]), LAST], r'"content"\]\[1\].* is no list of samples'),
        ([message(0, "Hi.", "a\0b.wav", "path"), LAST], r'\["path"\] cannot be read'),
        ([message(0, "Hi.", "http://[", "url"), LAST], r'\["url"\] cannot be read'),
    ],
)
def test_a_wrong_form_is_one_error_that_names_the_place(conversation: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_conversation(conversation)


@pytest.mark.parametrize(
    ("text", "audio", "told"),
    [
        ("Hello.", None, r"text\[0\] must be like \[0\]Hello"),
        ("<|begin_of_text|>[0]Hi.<|end_of_text|><|AUDIO|>", None, "more places for sound"),
        ("[0]Hi.", SOUND, "audio has 1 more"),
        ("<|begin_of_text|>[0]Hi.<|end_of_text|><|AUDIO|>", SOUND, "the last one is to be spoken"),
        ("<|begin_of_text|>[0]Hi.<|begin_of_text|>[1]Ho.", None, "all turns but the last need sound"),
    ],
)
def test_a_prompt_that_nobody_can_speak_is_one_error(text: str, audio: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        AutoProcessor()(text, audio)


def test_a_conversation_says_speaker_and_context_itself(generator: Generator) -> None:
    with pytest.raises(ValueError, match="says speaker and context itself"):
        generator.generate([LAST], 0)
    with pytest.raises(ValueError, match=r"context\[0\] has no audio"):
        generator.generate("Ho.", 0, [LAST])
