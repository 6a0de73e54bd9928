"""The recipe of the built-in voice: text, tokenizer, conversations, and the measures it is scored by."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.cli import main
from csm_repl.codec import load_codec
from csm_repl.codec.istft_network import CodecSizes, log_mel
from csm_repl.files.text_front import open_front
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.text.phones import Letters
from tests.support.fronts import write_front
from tools.demo_voice import lexicon, make, sentences
from tools.demo_voice.conversations import MAX_SECONDS, conversation_items
from tools.demo_voice.prepare_model import VOCABULARY, write_config, write_tokenizer
from tools.demo_voice.recognise import word_errors
from tools.demo_voice.sentences import everyday, is_held_out, sentence_pool
from tools.demo_voice.similarity import VoiceMeasure
from tools.demo_voice.train_codec import Corpus, PhonePairs, Training, export

WORDS = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat"]), max_size=8)


def test_training_and_held_out_text_share_no_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = list(itertools.islice(everyday(3), 3000))
    monkeypatch.setattr(sentences, "fortunes", lambda: iter(texts[:1000]))
    monkeypatch.setattr(sentences, "king_james", lambda: iter(texts[1000:2000]))
    train = sentence_pool(2000, 0, held_out=False)
    test = sentence_pool(50, 0, held_out=True)
    assert len(train) == 2000
    assert len(test) == 50
    assert not set(train) & set(test)


def test_the_scored_everyday_sentences_are_many_and_in_no_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    scored = sentences.everyday_test()
    assert len(set(scored)) == 200
    monkeypatch.setattr(sentences, "fortunes", lambda: iter([scored[0].upper(), "Something else."]))
    monkeypatch.setattr(sentences, "king_james", lambda: iter(scored[1:3]))
    for held_out in (False, True):
        pool = sentence_pool(100, 0, held_out=held_out)
        assert not {text.lower() for text in pool} & {text.lower() for text in scored}


def test_a_sentence_is_held_out_whatever_its_case_and_stops() -> None:
    texts = list(itertools.islice(everyday(0), 500))
    assert 0 < sum(map(is_held_out, texts)) < 40
    assert all(is_held_out(text) == is_held_out(text.upper().replace(",", "")) for text in texts)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = write_front(tmp_path_factory.mktemp("tokenizer"))
    write_tokenizer(folder)
    write_config(folder, n_codebooks=4, codebook_size=32)
    size = json.loads((folder / "config.json").read_text())["text_vocab_size"]
    return Tokenizer(folder / "tokenizer.json", vocab_size=size, front=open_front(folder))


@given(st.text(max_size=40))
def test_any_text_becomes_known_pieces(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    # 0 is what is not known, 1 and 2 stand around the text.
    assert all(3 <= token < len(VOCABULARY) for token in ids[1:-1])


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [VOCABULARY[token] for token in tokenizer.encode(text)[1:-1]]


def test_phones_marks_and_the_digits_of_a_speaker_are_pieces(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, "[3]Hello, world!") == [
        "[",
        "3",
        "]",
        "HH",
        "AH0",
        "L",
        "OW1",
        ",",
        "W",
        "ER1",
        "L",
        "D",
        "!",
    ]
    assert pieces(tokenizer, "[120]A life?") == [*"[120]", "AH0", "L", "AY1", "F", "?"]


def test_a_lexicon_has_only_phones_that_have_a_piece(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no phones: AX, TS"):
        lexicon.write(tmp_path, {"pizza": "P IY1 TS AX"}, {})
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 3 + 12 + 7 + 24 + 45


def test_letter_to_sound_rules_are_found_in_words(tmp_path: Path) -> None:
    sounds = {"a": "AE1", "i": "IH1", "o": "AA1", "b": "B", "d": "D", "t": "T", "x": "K S"}
    words = {}
    for first, vowel, last in itertools.product("bcdt", "aio", "bdtx"):
        begin = sounds.get(first) or ("S" if vowel == "i" else "K")
        words[first + vowel + last] = f"{begin} {sounds[vowel]} {sounds[last]}"
    held_out = {word: words.pop(word) for word in ("bat", "cib", "cod", "tax")}
    letters = Letters(lexicon.letter_rules(lexicon.aligned_words(words)))
    assert {word: letters.phones(word) for word in held_out} == held_out
    assert lexicon.score(letters, {"bat": "B AE2 T", "bad": "B AE1 D", "bid": "B AE1 D"}) == (1 / 3, 2 / 3)
    words = {"cat": "K AE1 T", "box": "B AA1 K S"}
    lexicon.write(tmp_path, words, {"a": "AE1"})
    front = open_front(tmp_path)
    assert front is not None
    assert front.read("Cat, box.") == "K AE1 T , B AA1 K S ."


@given(st.integers(0, 50))
def test_conversations_use_an_utterance_once_and_a_number_for_one_voice(seed: int) -> None:
    rng = random.Random(seed)
    utterances = [
        {"audio": f"{i}.wav", "voice": rng.choice("abc"), "text": f"t{i}", "seconds": rng.uniform(1, 7)}
        for i in range(60)
    ]
    voice = {u["audio"]: u["voice"] for u in utterances}
    seconds = {u["audio"]: u["seconds"] for u in utterances}
    items = conversation_items(utterances, rng)
    used = Counter(turn["audio"] for item in items for turn in item["turns"])
    assert set(used) == set(voice)
    assert set(used.values()) == {1}
    for item in items:
        speakers: dict[int, set[str]] = {}
        for turn in item["turns"]:
            speakers.setdefault(turn["speaker"], set()).add(voice[turn["audio"]])
        assert all(len(voices) == 1 for voices in speakers.values())
        assert sum(seconds[turn["audio"]] for turn in item["turns"]) <= MAX_SECONDS


def test_some_conversations_have_two_voices_and_some_a_voice_twice() -> None:
    utterances = [
        {"audio": f"{i}.wav", "voice": "abcd"[i % 4], "text": "t", "seconds": 2.0} for i in range(200)
    ]
    voice = {u["audio"]: u["voice"] for u in utterances}
    shapes = {
        (len(item["turns"]), len({voice[turn["audio"]] for turn in item["turns"]}))
        for item in conversation_items(utterances, random.Random(0))
    }
    assert {(2, 1), (3, 2)} <= shapes


def test_who_returns_in_a_conversation_of_two_cannot_be_guessed() -> None:
    """Otherwise a model need not look at the speaker numbers."""
    utterances = [
        {"audio": f"{i}.wav", "voice": "abcd"[i % 4], "text": "t", "seconds": 2.0} for i in range(2000)
    ]
    spoken = [
        [turn["speaker"] for turn in item["turns"]]
        for item in conversation_items(utterances, random.Random(0))
    ]
    dialogues = [speakers for speakers in spoken if len(set(speakers)) == 2]
    assert all(speakers[0] != speakers[1] for speakers in dialogues)
    for turn in (2, 3, 4):
        returns = [speakers[turn] == speakers[0] for speakers in dialogues if len(speakers) > turn]
        assert 0.35 < sum(returns) / len(returns) < 0.65


@pytest.mark.parametrize(
    ("reference", "hypothesis", "wrong", "words"),
    [
        ("The cat sat.", "the cat sat", 0, 3),
        ("The cat sat.", "", 3, 3),
        ("The cat sat.", "the bat sat down", 2, 3),
        ("It's me!", "its me", 0, 2),
    ],
)
def test_word_errors(reference: str, hypothesis: str, wrong: int, words: int) -> None:
    assert word_errors(reference, hypothesis) == (wrong, words)


@given(WORDS, WORDS)
def test_word_errors_are_a_distance(a: list[str], b: list[str]) -> None:
    there, back = word_errors(" ".join(a), " ".join(b))[0], word_errors(" ".join(b), " ".join(a))[0]
    assert there == back
    assert (there == 0) == (a == b)
    assert abs(len(a) - len(b)) <= there <= max(len(a), len(b))


def _buzz(f0: float, tilt: float, seed: int) -> torch.Tensor:
    """A second of harmonics with a spectral tilt, and a little noise."""
    t = torch.arange(24_000) / 24_000
    generator = torch.Generator().manual_seed(seed)
    f0 = f0 * (1 + 0.03 * float(torch.randn(1, generator=generator)))
    wave = sum(torch.sin(2 * math.pi * f0 * k * t) * k**-tilt for k in range(1, 30))
    assert isinstance(wave, torch.Tensor)
    return 0.05 * wave + 0.001 * torch.randn(24_000, generator=generator)


def test_voices_that_differ_in_pitch_or_timbre_are_told_apart() -> None:
    kinds = {"low": (90.0, 1.0), "high": (200.0, 1.0), "dull": (90.0, 2.0)}
    measure = VoiceMeasure({name: [_buzz(*kind, seed) for seed in range(12)] for name, kind in kinds.items()})
    for name, kind in kinds.items():
        assert [measure.nearest(_buzz(*kind, seed)) for seed in range(50, 54)] == [name] * 4


@pytest.mark.parametrize("name", ["kal", "hts-high"])
def test_the_corpus_can_be_spoken(name: str, tmp_path: Path) -> None:
    import soundfile

    from tools.demo_voice.corpus import speak
    from tools.demo_voice.voices import VOICES

    [voice] = [voice for voice in VOICES if voice.name == name]
    program = voice.teacher.split("/")[0]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    path = tmp_path / "a.wav"
    texts = [('Hello "there".', 1.0), ("Good morning.", 1.1)]
    (seconds, phones), _ = speak(texts, voice, [path, tmp_path / "b.wav"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.wav", "b.wav"]
    samples, rate = soundfile.read(path)
    assert rate == 24_000
    assert len(samples) == round(seconds * rate)
    assert [name for name, _ in phones if name != "pau"][:2] == ["hh", "ax"]
    assert [end for _, end in phones] == sorted(end for _, end in phones)
    assert phones[-1][1] == pytest.approx(seconds, abs=0.15)


def test_an_entry_of_the_first_codebook_is_a_pair_of_phones_and_never_0() -> None:
    pairs = Counter({("s", "s"): 9, ("s", "t"): 5, ("t", "t"): 4, ("ae", "t"): 1})
    entries = PhonePairs(pairs, size=4)
    assert [entries.entry(*pair) for pair in (("s", "s"), ("s", "t"), ("t", "t"))] == [1, 2, 3]
    # What is rarer becomes its second phone, held, or the commonest pair with one of the two.
    assert entries.entry("ae", "t") == 3
    assert entries.entry("s", "zh") == 1
    assert entries.entry("zh", "oy") == 1


def test_the_codec_is_told_which_phones_a_frame_has(tmp_path: Path) -> None:
    import soundfile

    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "wav" / "a.wav", np.full(3 * 1920 - 100, 0.25), 24_000, subtype="PCM_16")
    # A frame is 80 ms: silence and s, s alone, t and silence.
    phones = [("pau", 0.04), ("s", 0.16), ("t", 0.20), ("pau", 0.23)]
    record = {"audio": "wav/a.wav", "voice": "v", "text": "st", "seconds": 0.236, "phones": phones}
    (tmp_path / "utterances.jsonl").write_text(json.dumps(record) + "\n")
    corpus = Corpus(tmp_path, CodecSizes(), limit=10)
    [entries] = corpus.entries
    expected = [corpus.phone_pairs.entry(*pair) for pair in (("pau", "s"), ("s", "s"), ("t", "pau"))]
    assert entries.tolist() == expected
    assert sorted(expected) == [1, 2, 3]
    sounds, found = corpus.batch(2, np.random.default_rng(0))
    assert found[0, :3].tolist() == expected
    assert set(found[0, 3:].tolist()) == {1}
    assert sounds[0, : 3 * 1920 - 100].min() > 0.05
    assert not sounds[0, 3 * 1920 :].any()


def test_a_codec_learns_phones_and_is_exported_as_it_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = CodecSizes(
        width=32, encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1), n_codebooks=3, codebook_size=8
    )
    training = Training(sizes)
    generator = torch.Generator().manual_seed(1)
    t = torch.arange(16 * 1920) / 24_000
    pitches = torch.tensor([200.0, 400.0, 800.0, 1600.0])
    entries = torch.randint(4, (2, 16), generator=generator)
    steps = pitches[entries].repeat_interleave(1920, dim=1)
    sounds = 0.3 * torch.sin(2 * math.pi * steps * t)
    optimizer = torch.optim.Adam(training.trained(), lr=2e-3)
    for _ in range(60):
        losses = training(sounds, entries + 1)
        optimizer.zero_grad()
        torch.stack([value for name, value in losses.items() if "accuracy" not in name]).sum().backward()
        optimizer.step()
    assert losses["phones' accuracy"] > 0.9
    training.eval()
    export(training, sizes, tmp_path, refined=False)
    codec = load_codec(
        tmp_path / "codec.safetensors", tmp_path / "codec.json", n_codebooks=3, device=torch.device("cpu")
    )
    codes = codec.encode(sounds[0])
    assert (codes[0] == entries[0] + 1).double().mean() > 0.9
    x = training.network.encoder(log_mel(sounds[:1], sizes))
    assert (training.rest.encode(x)[0, 0] == codes[1]).double().mean() > 0.9


def test_the_recipe_goes_on_behind_the_last_step_that_is_done(tmp_path: Path) -> None:
    recipe = list(make.steps(tmp_path, 1.0))
    assert len({step.name for step in recipe}) == len(recipe)
    for name in ("turns/model", "refined"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "turns/model/config.json").write_text("model")
    (tmp_path / "refined/codec.json").write_text("codec")
    ran: list[str] = []

    def run(step: make.Step) -> int:
        ran.append(step.name)
        return 3 if step.name == "singles" and ran.count("singles") == 1 else 0

    assert make.run_steps(tmp_path, recipe, run) == 3
    assert make.run_steps(tmp_path, recipe, run) == 0
    assert ran == [*(step.name for step in recipe[:6]), *(step.name for step in recipe[5:])]
    assert make.run_steps(tmp_path, recipe, run) == 0
    assert ran[-1] == "package"
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "codec.json"}


def test_every_step_of_the_recipe_is_a_command_that_takes_its_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is given an option too many, which is all that its parser may complain of."""
    for step in make.steps(tmp_path, 0.01):
        if step.command[0] == "csm_repl":
            assert main([*step.command[1:], "--qqqq"]) == 2
        else:
            module = importlib.import_module(step.command[0])
            monkeypatch.setattr("sys.argv", [*step.command, "--qqqq"])
            with pytest.raises(SystemExit):
                module.main()
        told = capsys.readouterr().err.splitlines()[-1]
        assert "There is no option --qqqq." in told or told.endswith("unrecognized arguments: --qqqq"), told
