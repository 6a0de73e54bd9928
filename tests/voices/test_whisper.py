"""WhisperTranscriber with a real checkpoint in Whisper's published layout, tiny and random."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from csm_repl.errors import ClipError
from csm_repl.voices import WhisperTranscriber

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


@pytest.mark.parametrize("seconds", [0.08, 2.0, 31.0])
def test_a_checkpoint_file_is_loaded_and_listens(checkpoint: Path, seconds: float) -> None:
    with WhisperTranscriber(str(checkpoint), "cpu", offline=True) as whisper:
        text = whisper.transcribe(0.1 * torch.randn(round(seconds * RATE)), RATE)
    assert isinstance(text, str)
    assert text == " ".join(text.split())


def test_it_is_loaded_once_and_let_go_at_close(checkpoint: Path) -> None:
    whisper = WhisperTranscriber(str(checkpoint), "cpu")
    assert whisper._model is None
    whisper.transcribe(torch.zeros(RATE), RATE)
    model = whisper._model
    whisper.transcribe(torch.zeros(RATE), RATE)
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
        assert isinstance(whisper.transcribe(torch.zeros(RATE), RATE), str)
    assert no_network == []


def test_offline_looks_where_whisper_keeps_its_files(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "whisper").mkdir()
    (tmp_path / "whisper" / "tiny.pt").write_bytes(checkpoint.read_bytes())
    with WhisperTranscriber("tiny", "cpu", offline=True) as whisper:
        assert isinstance(whisper.transcribe(torch.zeros(RATE), RATE), str)


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
    whisper.transcribe(torch.zeros(RATE), RATE)

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("CUDA out of memory.\nlots of advice")

    whisper._model.transcribe = fail
    with pytest.raises(ClipError, match=r"failed: CUDA out of memory\. Write the words"):
        whisper.transcribe(torch.zeros(RATE), RATE)
    whisper.close()
