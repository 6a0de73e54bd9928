"""Names, headings and pauses, from the line to its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from csm_repl.audio import read_audio
from csm_repl.errors import LineError
from csm_repl.events import Audio, Echo, LineDone, Notice, TurnDone
from csm_repl.studio import Studio
from tests.support.speech import write_clip
from tests.support.studio import MakeStudio, of_type, say


@pytest.fixture
def studio(make_studio: MakeStudio, voices_folder: Path) -> Studio:
    write_clip(voices_folder / "reference2-Ben.wav", "Ben speaks.", pitch_hz=100)
    return make_studio()


def speakers(studio: Studio, text: str) -> list[tuple[int, str]]:
    [echo] = of_type(say(studio, text), Echo)
    return [(turn.speaker, turn.voice) for turn in echo.turns]


def test_a_turn_is_spoken_by_the_voice_that_it_names(studio: Studio) -> None:
    say(studio, "$SET speaker 3$")
    assert speakers(studio, "BEN: Hi.||Ho.") == [(2, "Ben"), (4, "speaker 4")]
    assert [turn.speaker for turn in studio.conversation.turns] == [2, 4]
    assert [turn.text for turn in studio.conversation.turns] == ["Hi.", "Ho."]
    say(studio, "$RETRY$")
    assert [turn.speaker for turn in studio.conversation.turns] == [2, 4]


def test_a_clip_that_has_just_come_is_known_by_its_name(studio: Studio, voices_folder: Path) -> None:
    assert speakers(studio, "Zoë: Hi.")[0][0] == 0
    write_clip(voices_folder / "reference7-Zoë.wav", "Zoë speaks.")
    assert speakers(studio, "zoe\u0308: Hi.") == [(7, "Zoë")]


def test_a_name_that_no_voice_has_is_spoken_with_one_hint(studio: Studio) -> None:
    def hints(text: str) -> list[str]:
        return [event.text for event in of_type(say(studio, text), Notice) if "is called" in event.text]

    assert hints("Bent: Hi.") == ["No voice is called Bent, so the name is spoken. Did you mean Ben?"]
    [hint] = hints("Carol: Hi.")
    assert "reference3-carol.wav" in hint
    assert hints("Carol: Ho.||Note: this.") == []
    assert ["--format names" in hint for hint in hints("Speaker 1: Hi.")] == [True]
    assert studio.conversation.turns[1].text == "Carol: Hi."


def test_a_heading_names_the_part_in_the_sidecars(studio: Studio) -> None:
    assert [event.text for event in say(studio, "## Act one")] == ["Part: Act one"]  # type: ignore[union-attr]
    first = of_type(say(studio, "Hi.||Ho."), LineDone)[0]
    assert say(studio, "# Nothing here.") == []
    say(studio, "##")
    second = of_type(say(studio, "Hi."), LineDone)[0]

    def part(file: Path) -> str | None:
        value: str | None = json.loads(file.with_suffix(".json").read_text())["part"]
        return value

    assert [part(first.file), *(part(turn.file) for turn in first.turns)] == ["Act one"] * 3
    assert part(second.file) is None


def test_a_sidecar_maps_what_is_said_back_to_what_was_typed(studio: Studio) -> None:
    [done] = of_type(say(studio, "It's $5 [pause 0.1] at 10:30."), TurnDone)
    meta = json.loads(done.file.with_suffix(".json").read_text())
    text = meta["text"]
    spans = [(text[each["start"] : each["end"]], each["said"]) for each in meta["replacements"]]
    assert spans == [("$5", "five dollars"), ("10:30", "ten thirty")]
    assert meta["said"] == "It's five dollars [pause 0.1] at ten thirty."


# --- pauses -----------------------------------------------------------------------------------------------


def runs_of_zeros(samples: torch.Tensor) -> list[tuple[int, int]]:
    """Start and length of each run of more than 20 zeros."""
    silent = torch.cat([torch.tensor([False]), samples == 0, torch.tensor([False])]).int()
    edges = silent.diff().nonzero().flatten().tolist()
    return [
        (start, end - start) for start, end in zip(edges[::2], edges[1::2], strict=True) if end - start > 20
    ]


def test_a_pause_is_silence_in_the_file_in_playback_and_not_in_the_context(studio: Studio) -> None:
    events = say(studio, "[pause 0.5]One.[pause 250 ms] Two.")
    [done] = of_type(events, TurnDone)
    heard = torch.cat([event.samples for event in of_type(events, Audio)])
    rate = studio.codec.sample_rate
    silences = runs_of_zeros(heard)
    assert (0, rate // 2) in silences
    assert any(length == rate // 4 for _, length in silences)
    samples, rate = read_audio(done.file)
    assert samples.shape[-1] == len(heard)
    assert done.seconds == pytest.approx(len(heard) / rate)
    [turn] = studio.conversation.turns
    assert [piece.text for piece in turn.pieces] == ["One.", "Two."]
    assert turn.text == "[pause 0.5]One.[pause 250 ms] Two."


def test_a_turn_of_a_pause_alone_is_a_silent_take_that_nobody_hears(studio: Studio) -> None:
    events = say(studio, "Hi.||[pause 0.5]||Ho.")
    line = of_type(events, LineDone)[0]
    assert [turn.seconds for turn in line.turns][1] == 0.5
    assert line.seconds == pytest.approx(sum(turn.seconds for turn in line.turns))
    assert [turn.speaker for turn in line.turns] == [0, 1, 2]
    assert [turn.in_context for turn in studio.conversation.turns] == [True, False, True]


def test_a_pause_survives_off_and_a_saved_session(studio: Studio) -> None:
    say(studio, "$SET normalize off$")
    say(studio, "One. [pause 0.5] Two.||[pause 0.25]")
    say(studio, "$SAVE talk$")
    say(studio, "$CLEAR$")
    say(studio, "$LOAD talk$")
    assert [len(turn.pieces) for turn in studio.conversation.turns] == [2, 0]
    again = of_type(say(studio, "$RETRY$"), LineDone)[0]
    assert again.turns[1].seconds == 0.25


def test_a_pause_that_is_too_long_is_refused_before_anything_is_spoken(studio: Studio) -> None:
    with pytest.raises(LineError, match="longer than 60 seconds"):
        say(studio, "Hi.||Wait. [pause 61]")
    assert len(studio.conversation) == 0


def test_the_users_ceiling_is_for_all_that_is_spoken_of_a_turn(studio: Studio) -> None:
    say(studio, "$SET max-seconds 0.16$")
    [done] = of_type(say(studio, "One. [pause 0.5] Two. [pause 0.5] Three."), TurnDone)
    assert done.ended == "cut"
    assert done.meta["frames"] == 2
