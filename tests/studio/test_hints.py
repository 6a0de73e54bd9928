"""A speaker without a voice, while others have one: said once for each, with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from csm_repl.events import Echo, Notice, TurnStarted
from csm_repl.studio import Studio
from csm_repl.studio.hints import voiceless_notice
from csm_repl.text.grammar import Line, parse
from csm_repl.voices import PrepareOptions, VoiceFolder
from tests.support.speech import write_clip
from tests.support.studio import MakeStudio, of_type, say


def folder_with(root: Path, *clips: str) -> VoiceFolder:
    for name in clips:
        write_clip(root / name, "A voice.")
    voices = VoiceFolder(
        root, options=PrepareOptions(), encode=None, codec_id="none", transcriber=None, cache_dir=None
    )
    voices.refresh()
    return voices


def notice(voices: VoiceFolder, text: str, primary: int = 0) -> str:
    line = parse(text)
    assert isinstance(line, Line)
    return voiceless_notice(line.turns[-1], primary, voices)


def test_a_name_on_speaker_1_alone_is_shown_with_the_ways_to_it(tmp_path: Path) -> None:
    voices = folder_with(tmp_path / "voices", "reference1-anna.wav")
    assert notice(voices, "Hello.") == (
        "Speaker 0 has no clip and speaks in a random voice. Speaker 1 is anna. To speak as speaker 1, use "
        "$SWAP$, the offset 1 at the end of the turn or $SET speaker 1$ (at the start: --speaker 1). To give "
        f"speaker 0 a voice, put reference.wav into {tmp_path / 'voices'}."
    )


def test_a_number_that_was_taken_for_an_offset_is_named(tmp_path: Path) -> None:
    voices = folder_with(tmp_path, "reference.wav")
    told = notice(voices, "This is Win95")
    assert told.startswith("Speaker 95 has no clip and speaks in a random voice. Only speaker 0 has one.")
    assert told.endswith(
        f"{tmp_path}. To have the 95 spoken, put a full stop after it, or use $SET offsets off$."
    )
    assert "--speaker" not in told


def test_the_way_back_and_to_far_speakers(tmp_path: Path) -> None:
    voices = folder_with(tmp_path, "reference3-ben.wav", "reference200.wav")
    assert "use $BACK$, the offset -1 at the end of the turn or $SET speaker 3$" in notice(voices, "Hi.", 4)
    assert "To speak as speaker 200, use $SET speaker 200$ (at the start: --speaker 200)." in notice(
        voices, "Hi.", 350
    )


def test_many_voices_are_not_all_named(tmp_path: Path) -> None:
    voices = folder_with(tmp_path, *(f"reference{number}-v{number}.wav" for number in range(1, 8)))
    assert "Speaker 1 is v1, speaker 2 is v2, speaker 3 is v3, speaker 4 is v4, 3 more." in notice(
        voices, "Hi."
    )


def test_a_clip_that_cannot_be_used_is_the_reason(tmp_path: Path) -> None:
    (tmp_path / "reference1-ben.wav").write_bytes(b"nothing")
    voices = folder_with(tmp_path, "reference.wav")
    assert notice(voices, "A.||B.") == (
        "Speaker 1 speaks in a random voice: reference1-ben.wav cannot be used, and $VOICES$ says why."
    )


def test_who_has_a_voice_or_is_among_none_who_have_one_is_no_news(tmp_path: Path) -> None:
    assert notice(folder_with(tmp_path / "a", "reference.wav"), "Hi.") == ""
    assert notice(folder_with(tmp_path / "b"), "Hi.5") == ""


@pytest.fixture
def studio(make_studio: MakeStudio) -> Studio:
    return make_studio(max_seconds="0.2")


def _warnings(studio: Studio, text: str) -> list[str]:
    return [notice.text for notice in of_type(say(studio, text), Notice) if notice.level == "warning"]


def test_it_is_said_once_for_each_speaker_between_echo_and_sound(studio: Studio) -> None:
    kinds = [type(event) for event in say(studio, "One.||Two.||Three.")]
    assert kinds[:3] == [Echo, Notice, TurnStarted]
    assert _warnings(studio, "Again.2") == []
    assert len(_warnings(studio, "Four.3||Five.4||Six.4")) == 2


def test_it_is_said_again_when_a_voice_came_and_went(studio: Studio) -> None:
    clip = studio.voices.root / "reference2.wav"
    assert _warnings(studio, "One.2")
    write_clip(clip, "A third voice.")
    assert _warnings(studio, "Two.2") == []
    clip.unlink()
    assert _warnings(studio, "Three.2")
