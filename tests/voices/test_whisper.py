"""WhisperTranscriber with a real checkpoint in Whisper's published layout, tiny and random."""

from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from whisper.decoding import DecodingResult
from whisper.model import ModelDimensions

from csm_repl.errors import ClipError
from csm_repl.voices import WhisperTranscriber
from csm_repl.voices.transcribe import DoubtfulWordsError

RATE = 24_000
# The vocabulary and the audio context are Whisper's own, which its tokenizer and its mel filters ask for.
DIMS = {
    "n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 1,
    "n_vocab": 51865, "n_text_ctx": 24, "n_text_state": 16, "n_text_head": 2, "n_text_layer": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("whisper") / "tiny-random.pt"
    torch.save({"dims": DIMS, "model_state_dict": Whisper(ModelDimensions(**DIMS)).state_dict()}, path)
    return path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    asked: list[str] = []

    def refuse(url: str, *_: object) -> Any:
        asked.append(url)
        raise urllib.error.URLError(OSError(101, "Network is unreachable"))

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


def listen(whisper: WhisperTranscriber, seconds: float = 1.0) -> str:
    """What a random model hears, or what is wrong with it."""
    try:
        return whisper.transcribe(0.1 * torch.randn(round(seconds * RATE)), RATE)
    except DoubtfulWordsError as error:
        return error.cause


@pytest.mark.parametrize("seconds", [0.08, 2.0, 31.0])
def test_a_checkpoint_file_is_loaded_and_listens(checkpoint: Path, seconds: float) -> None:
    with WhisperTranscriber(str(checkpoint), "cpu", offline=True) as whisper:
        text = listen(whisper, seconds)
    assert text == " ".join(text.split())


def test_listening_leaves_the_random_numbers_of_others_alone(checkpoint: Path) -> None:
    with WhisperTranscriber(str(checkpoint), "cpu") as whisper:
        listen(whisper)  # loads it
        torch.manual_seed(3)
        expected = torch.rand(3)
        torch.manual_seed(3)
        sound = torch.zeros(RATE)
        with contextlib.suppress(DoubtfulWordsError):
            whisper.transcribe(sound, RATE)
        assert torch.equal(torch.rand(3), expected)


class Answering:
    """Stands in for whisper's model: `transcribe` decodes each window with `decode`, as the real one does."""

    def __init__(self, *results: tuple[str, float, float]) -> None:
        self._results = list(results)
        """Text, average log probability, no-speech probability: of one temperature each."""
        self.temperatures: list[float] = []
        self.device = torch.device("cpu")
        self.is_multilingual = False
        self.num_languages = 99
        self.dims = ModelDimensions(**DIMS)

    def decode(self, mel: torch.Tensor, options: Any) -> DecodingResult:
        from whisper.tokenizer import get_tokenizer
        from whisper.utils import compression_ratio

        text, logprob, no_speech = self._results[min(len(self.temperatures), len(self._results) - 1)]
        self.temperatures.append(options.temperature)
        return DecodingResult(
            audio_features=mel,
            language="en",
            tokens=get_tokenizer(False).encode(text),
            text=text,
            avg_logprob=logprob,
            no_speech_prob=no_speech,
            temperature=options.temperature,
            compression_ratio=compression_ratio(text),
        )

    def transcribe(self, sound: Any, **options: Any) -> dict[str, Any]:
        from whisper.transcribe import transcribe

        return transcribe(self, sound, **options)  # type: ignore[arg-type]


def answering(*results: tuple[str, float, float]) -> tuple[WhisperTranscriber, Answering]:
    whisper, model = WhisperTranscriber("base", "cpu"), Answering(*results)
    whisper._model = model
    return whisper, model


def test_good_words_are_taken_at_the_first_temperature() -> None:
    whisper, model = answering((" The birch canoe  slid. ", -0.3, 0.01))
    assert whisper.transcribe(torch.zeros(2 * RATE), RATE) == "The birch canoe slid."
    assert model.temperatures == [0.0]


LOOP = "I think so. " * 20


@pytest.mark.parametrize("bad", [(LOOP, -0.2, 0.01), ("the of a in", -1.4, 0.01)], ids=["looped", "unlikely"])
def test_bad_words_are_heard_again_at_the_next_temperature(bad: tuple[str, float, float]) -> None:
    whisper, model = answering(bad, bad, ("Good words.", -0.4, 0.01))
    assert whisper.transcribe(torch.zeros(2 * RATE), RATE) == "Good words."
    assert model.temperatures == [0.0, 0.2, 0.4]


@pytest.mark.parametrize(
    ("answer", "seconds", "message"),
    [
        ((LOOP, -0.2, 0.01), 20.0, "heard the same words over and over"),
        (("the of a in", -1.4, 0.01), 2.0, "could not make out the words"),
        (("Thanks for watching!", -0.5, 0.8), 2.0, "not sure that anybody speaks in it"),
        (("Thank you very much for watching, see you next time.", -0.5, 0.1), 0.3, "more words than fit"),
    ],
    ids=["looped", "unlikely", "silence", "too many"],
)
def test_doubtful_words_are_not_used(answer: tuple[str, float, float], seconds: float, message: str) -> None:
    whisper, _ = answering(answer)
    with pytest.raises(DoubtfulWordsError, match=message) as caught:
        whisper.transcribe(torch.zeros(round(seconds * RATE)), RATE)
    assert ".txt" in caught.value.remedy
    assert "--whisper-model" in caught.value.remedy


def test_silence_has_no_words() -> None:
    whisper, model = answering(("you", -1.4, 0.9))
    assert whisper.transcribe(torch.zeros(2 * RATE), RATE) == ""
    assert model.temperatures == [0.0]


def test_words_of_a_second_window_count_as_well() -> None:
    whisper, model = answering(("Good words.", -0.2, 0.01), (LOOP, -0.2, 0.01))
    with pytest.raises(DoubtfulWordsError, match="over and over"):
        whisper.transcribe(torch.zeros(40 * RATE), RATE)
    assert len(model.temperatures) == 7


def test_it_is_loaded_once_and_let_go_at_close(checkpoint: Path) -> None:
    whisper = WhisperTranscriber(str(checkpoint), "cpu")
    assert whisper._model is None
    listen(whisper)
    model = whisper._model
    listen(whisper)
    assert whisper._model is model
    alive = weakref.ref(model)
    del model
    whisper.close()
    assert alive() is None


@pytest.mark.parametrize(("device", "name"), [("cpu", "base"), ("mps", "base"), ("cuda:1", "turbo")])
def test_auto_goes_by_the_device(device: str, name: str) -> None:
    assert WhisperTranscriber("auto", device).name == name


def refused(model: str, **options: Any) -> ClipError:
    with pytest.raises(ClipError) as caught:
        WhisperTranscriber(model, "cpu", **options).transcribe(torch.zeros(RATE), RATE)
    return caught.value


def test_off_says_how_to_do_without() -> None:
    error = refused("off")
    assert "Whisper is off" in error.cause
    assert ".txt" in error.remedy


def test_an_unknown_size_names_the_sizes() -> None:
    error = refused("bse")
    assert "'bse'" in error.cause
    assert "base" in error.remedy


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "There is no Whisper model file" in refused(str(tmp_path / "none.pt")).cause


@pytest.mark.parametrize("content", ["garbage", "cut", "no weights", "other shapes"])
def test_a_damaged_file(checkpoint: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.pt"
    if content == "garbage":
        path.write_bytes(b"no checkpoint")
    elif content == "cut":
        path.write_bytes(checkpoint.read_bytes()[:100_000])
    elif content == "no weights":
        torch.save({"dims": DIMS}, path)
    else:
        good = torch.load(checkpoint, weights_only=True)
        torch.save({**good, "dims": {**DIMS, "n_mels": 128}}, path)
    error = refused(str(path))
    assert error.cause.startswith(f"Whisper's model {path} cannot be loaded: ")
    assert "--whisper-model FILE" in error.remedy


def test_offline_never_downloads(tmp_path: Path, no_network: list[str]) -> None:
    assert "--offline is set" in refused("base", offline=True, download_root=tmp_path).cause
    (tmp_path / "base.pt").write_bytes(b"cut download")
    assert "cannot be loaded" in refused("base", offline=True, download_root=tmp_path).cause
    assert no_network == []


def test_offline_uses_what_an_earlier_download_left(
    checkpoint: Path, tmp_path: Path, no_network: list[str]
) -> None:
    (tmp_path / "base.pt").write_bytes(checkpoint.read_bytes())
    with WhisperTranscriber("base", "cpu", offline=True, download_root=tmp_path) as whisper:
        assert isinstance(listen(whisper), str)
    assert no_network == []


def test_offline_looks_where_whisper_keeps_its_files(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "tiny.pt").write_bytes(checkpoint.read_bytes())
    with WhisperTranscriber("tiny", "cpu", offline=True) as whisper:
        assert isinstance(listen(whisper), str)


def test_no_network_is_one_sentence_asked_once_until_closed(tmp_path: Path, no_network: list[str]) -> None:
    whisper = WhisperTranscriber("base", "cpu", download_root=tmp_path)
    for _ in range(3):
        with pytest.raises(ClipError, match=r"base cannot be loaded: .*Network is unreachable\."):
            whisper.transcribe(torch.zeros(RATE), RATE)
    assert len(no_network) == 1
    assert socket.getdefaulttimeout() is None
    whisper.close()
    with pytest.raises(ClipError):
        whisper.transcribe(torch.zeros(RATE), RATE)
    assert len(no_network) == 2


def test_no_disk_for_the_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert "the disk is full" in refused("base", download_root=tmp_path).cause


def test_a_failure_while_listening_is_one_sentence(checkpoint: Path) -> None:
    whisper = WhisperTranscriber(str(checkpoint), "cpu")
    listen(whisper)

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("CUDA out of memory.\nlots of advice")

    whisper._model.transcribe = fail
    with pytest.raises(ClipError, match=r"failed: CUDA out of memory\. Write the words"):
        whisper.transcribe(torch.zeros(RATE), RATE)
    whisper.close()
