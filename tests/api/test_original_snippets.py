"""The snippets of the original project, as they stand but for the import line and the model's folder."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torchaudio

from csm_repl.api.torchaudio_files import keep_torchaudio_files
from tests.support.speech import write_clip

needs_no_torchcodec = pytest.mark.skipif(
    importlib.util.find_spec("torchcodec") is not None, reason="torchaudio has its own way to files here"
)

SENTENCE = """
from csm_repl import load_csm_1b
import torchaudio
import torch

if torch.backends.mps.is_available():
    device = "mps"
elif torch.cuda.is_available():
    device = "cuda"
else:
    device = "cpu"

generator = load_csm_1b(MODEL, device=device)

audio = generator.generate(
    text="Hello from Sesame.",
    speaker=0,
    context=[],
    max_audio_length_ms=400,
)

torchaudio.save("audio.wav", audio.unsqueeze(0).cpu(), generator.sample_rate)
"""

PROMPTED = """
from csm_repl import Segment, load_csm_1b
import torchaudio

generator = load_csm_1b(MODEL, device="cpu")

speakers = [0, 1]
transcripts = [
    "Hey how are you doing.",
    "Pretty good, pretty good.",
]
audio_paths = [
    "utterance_0.wav",
    "utterance_1.wav",
]

def load_audio(audio_path):
    audio_tensor, sample_rate = torchaudio.load(audio_path)
    audio_tensor = torchaudio.functional.resample(
        audio_tensor.squeeze(0), orig_freq=sample_rate, new_freq=generator.sample_rate
    )
    return audio_tensor

segments = [
    Segment(text=transcript, speaker=speaker, audio=load_audio(audio_path))
    for transcript, speaker, audio_path in zip(transcripts, speakers, audio_paths)
]
audio = generator.generate(
    text="Me too, this is some cool stuff huh?",
    speaker=1,
    context=segments,
    max_audio_length_ms=400,
)

torchaudio.save("audio.wav", audio.unsqueeze(0).cpu(), generator.sample_rate)
"""


@pytest.mark.parametrize("snippet", [SENTENCE, PROMPTED])
def test_it_runs_as_it_stands(
    snippet: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("utterance_0.wav", "utterance_1.wav"):
        write_clip(tmp_path / name, None)
    exec(compile(snippet, "snippet", "exec"), {"MODEL": str(tiny_checkpoint)})
    samples, rate = torchaudio.load("audio.wav")
    assert rate == 24_000
    assert samples.shape[0] == 1
    assert 0 < samples.shape[1] <= 0.4 * rate


@needs_no_torchcodec
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_what_is_saved_is_loaded_again(tmp_path: Path, name: str) -> None:
    sound = torch.linspace(-1, 1, 2 * 1000).reshape(2, 1000)
    torchaudio.save(str(tmp_path / name), sound, 16_000)
    loaded, rate = torchaudio.load(tmp_path / name)
    assert rate == 16_000
    torch.testing.assert_close(loaded, sound, atol=2 / 32768, rtol=0)
    part, _ = torchaudio.load(tmp_path / name, 100, 50, channels_first=False)
    torch.testing.assert_close(part, loaded[:, 100:150].T)
    torchaudio.save(tmp_path / name, sound.T, 16_000, channels_first=False)
    torch.testing.assert_close(torchaudio.load(tmp_path / name)[0], loaded)


@needs_no_torchcodec
def test_a_file_object_and_one_channel_alone_are_taken() -> None:
    file = io.BytesIO()
    torchaudio.save(file, torch.ones(10), 8000, format="wav")
    file.seek(0)
    assert torchaudio.load(file)[0].shape == (1, 10)


@needs_no_torchcodec
def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="no effect"):
        torchaudio.save(tmp_path / "a.wav", torch.ones(10), 8000, encoding="PCM_F")


def test_with_torchcodec_the_functions_are_torchaudios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    fake = ModuleType("torchaudio")
    monkeypatch.setitem(sys.modules, "torchaudio", fake)
    keep_torchaudio_files()
    assert not hasattr(fake, "save")
