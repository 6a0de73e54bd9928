"""The built-in voice: what the program says about speech, shown on speech.

Everything here runs the shipped weights with fixed seeds, so a run gives the same sound each time on one
kind of CPU; bounds leave room for another kind's rounding. How good the voice is, is `score.py`'s question.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch

from csm_repl.codec import load_codec
from csm_repl.events import Audio, LineDone
from csm_repl.files.builtin import builtin_folder
from csm_repl.files.hub import find_model
from csm_repl.settings import load_settings
from csm_repl.studio import Studio
from csm_repl.studio.open import open_studio
from tests.support.paths import ROOT
from tests.support.studio import of_type, say
from tools.demo_voice.context import measure
from tools.demo_voice.recognise import recognise, word_errors
from tools.demo_voice.redraw import Speaker
from tools.demo_voice.similarity import features

REFERENCES = ROOT / "references"
CLIPS = {"ada": REFERENCES / "reference-ada.wav", "ben": REFERENCES / "reference1-ben.wav"}
SENTENCES = (
    "Good morning, my old friend.",
    "There are seven green bottles on the table.",
    "Did you see the doctor yesterday?",
    "I think the children wanted to go home.",
    "Please open the window and sit down.",
    "Nobody knew where the captain lived.",
)
Open = Callable[..., Studio]


@pytest.fixture
def open_demo(tmp_path: Path) -> Open:
    def open_it(**flags: str) -> Studio:
        flags = {"model": "demo", "references": str(REFERENCES), "seed": "1", "dtype": "float32", **flags}
        studio = open_studio(load_settings({**flags, "output": str(tmp_path)}, environ={}, dotenv=None))
        list(studio.refresh_voices())
        return studio

    return open_it


def _sound(path: Path) -> torch.Tensor:
    return torch.from_numpy(soundfile.read(path, dtype="float32")[0])


def _error_rate(texts: list[str], heard: list[str]) -> float:
    counts = [word_errors(text, words) for text, words in zip(texts, heard, strict=True)]
    return sum(wrong for wrong, _ in counts) / sum(words for _, words in counts)


def _whose(path: Path) -> str:
    """Which example voice a take is nearer to in pitch: Ada's is 170 Hz, Ben's 100 Hz."""
    pitch = {name: features(_sound(clip))[-1] for name, clip in CLIPS.items()}
    take = features(_sound(path))[-1]
    return min(pitch, key=lambda name: float((pitch[name] - take).abs()))


def test_the_package_holds_a_whole_model_of_at_most_30_mb() -> None:
    files = find_model("demo", offline=True)
    assert files.folder == builtin_folder()
    assert {files.tokenizer.parent, files.codec.parent} == {files.folder}
    assert sum(path.stat().st_size for path in files.folder.iterdir()) <= 30_000_000
    assert (files.folder / "README.md").read_text().startswith("# ")


def test_takes_are_understood_and_end_by_themselves(open_demo: Open) -> None:
    studio = open_demo()
    heard = []
    for sentence in SENTENCES[:4]:
        [done] = of_type(say(studio, sentence), LineDone)
        assert done.turns[0].ended == "end"
        assert 0.5 < done.seconds < 6.0
        heard.append(recognise(_sound(done.file)))
    # What is not understood at all has a rate of 1 and more.
    assert _error_rate(list(SENTENCES[:4]), heard) < 0.6
    shuffled = [*SENTENCES[1:4], SENTENCES[0]]
    assert _error_rate(shuffled, heard) > 0.9


def test_each_speaker_has_the_voice_of_his_reference(open_demo: Open) -> None:
    studio = open_demo()
    right = 0
    for sentence in SENTENCES[:4]:
        for speaker, separator in ((0, ""), (1, "||")):
            [done] = of_type(say(studio, separator + sentence), LineDone)
            right += _whose(done.file) == ("ada", "ben")[speaker]
            studio.clear()
    assert right >= 0.8 * 2 * 4


def test_a_speakers_voice_changes_with_his_reference(open_demo: Open, tmp_path: Path) -> None:
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    for old, new in (("reference1-ben", "reference"), ("reference-ada", "reference1")):
        for suffix in (".wav", ".txt"):
            shutil.copy(REFERENCES / f"{old}{suffix}", swapped / f"{new}{suffix}")
    studio = open_demo(references=str(swapped))
    right = 0
    for sentence in SENTENCES:
        [done] = of_type(say(studio, sentence), LineDone)
        right += _whose(done.file) == "ben"
        studio.clear()
    assert right >= 0.8 * len(SENTENCES)


def test_streamed_sound_is_the_whole_decoded_at_once(open_demo: Open) -> None:
    import numpy as np

    studio = open_demo(keep_codes="on", trim_tail="off")
    events = say(studio, SENTENCES[0])
    [done] = of_type(events, LineDone)
    codes = torch.from_numpy(np.load(done.file.with_suffix(".npy")).astype("int64"))
    folder = builtin_folder()
    codec = load_codec(
        folder / "codec.safetensors",
        folder / "codec.json",
        n_codebooks=len(codes),
        device=torch.device("cpu"),
    )
    streamed = torch.cat([event.samples for event in of_type(events, Audio)])
    torch.testing.assert_close(streamed, codec.decode(codes), rtol=0, atol=1e-4)


def test_max_seconds_cuts_a_take(open_demo: Open) -> None:
    [done] = of_type(say(open_demo(max_seconds="0.8"), SENTENCES[1]), LineDone)
    assert done.turns[0].ended == "cut"
    assert done.seconds <= 0.8


@pytest.mark.slow(reason="speaks 40 turns")
def test_a_conversation_beyond_the_context_keeps_its_words_and_voices(open_demo: Open) -> None:
    studio = open_demo()
    files = []
    for number in range(40):
        separator = ("", "||")[number % 2]
        [done] = of_type(say(studio, separator + SENTENCES[number % len(SENTENCES)]), LineDone)
        assert done.turns[0].ended == "end"
        files.append(done.file)
    assert studio.context_used <= studio.engine.max_positions
    last = range(34, 40)
    texts = [SENTENCES[number % len(SENTENCES)] for number in last]
    assert _error_rate(texts, [recognise(_sound(files[number])) for number in last]) < 0.6
    right = [_whose(files[number]) == ("ada", "ben")[number % 2] for number in last]
    assert sum(right) >= 0.8 * len(last)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantised_weights_are_understood_too(open_demo: Open, mode: str) -> None:
    studio = open_demo(quantize=mode)
    takes = [of_type(say(studio, sentence), LineDone)[0] for sentence in SENTENCES[:4]]
    assert _error_rate(list(SENTENCES[:4]), [recognise(_sound(take.file)) for take in takes]) < 0.6


def test_a_newcomer_without_csm_1b_is_told_so_and_hears_the_built_in_voice(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "csm_repl", "--offline", "--references", str(REFERENCES), "--seed", "3"],
        input="Good morning, my old friend.||Did you see the doctor?\n",
        capture_output=True, text=True, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("built-in voice speaks") == 1
    assert "hf download sesame/csm-1b" in done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert (tmp_path / done.stdout.strip()).is_file()


def test_redrawn_codes_keep_what_is_said_and_follow_the_model() -> None:
    """What the recipe trains the codec's decoder on."""
    text = (REFERENCES / "reference-ada.txt").read_text().strip()
    clip = _sound(REFERENCES / "reference-ada.wav")
    torch.manual_seed(0)
    speaker = Speaker(builtin_folder(), builtin_folder(), temperature=1e-4)
    [(own, drawn), (_, again)] = speaker.codes([text] * 2, ["ada", "somebody"], [clip] * 2)
    assert torch.equal(drawn[0], own[0])
    assert drawn.shape == own.shape
    # At this temperature there is no chance in it, and the other voice's clip is no context.
    assert torch.equal(drawn, again)
    agreement = (drawn[1:] == own[1:]).double().mean()
    assert 0.05 < agreement < 0.9


def test_the_context_tool_sees_that_the_own_voice_and_number_help() -> None:
    utterances = {
        name: {
            "voice": name, "folder": REFERENCES, "audio": clip.name,
            "text": clip.with_suffix(".txt").read_text().strip(),
        }
        for name, clip in CLIPS.items()
    }  # fmt: skip
    others = {f"none-{n}": utterances["ben"] for n in range(3)}
    speaker = Speaker(builtin_folder(), builtin_folder(), temperature=1.0)
    found = measure(
        speaker, [utterances["ada"]], {"ada": utterances["ada"], **others, "other": utterances["ben"]}
    )
    assert found["own voice"][2] < found["another voice"][2]
    assert (
        found["another, then own"][2] < found["own under the other's number, then another under its own"][2]
    )
