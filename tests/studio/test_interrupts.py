"""Ctrl-C during a job: what was made is kept, and the model goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from csm_repl.events import Audio, Event, LineDone, Notice, Progress, Stopped, TurnDone
from csm_repl.front.jobs import run_job
from csm_repl.studio import Studio
from csm_repl.studio.reading import run_line
from tests.support.faults import Fault
from tests.support.studio import MakeStudio, of_type, say


def _interrupt_at(studio: Studio, text: str, n_audio: int) -> list[Event]:
    """Events of a line whose listener is hit by Ctrl-C at the n-th chunk of sound."""
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        sounding = of_type(events, Audio)
        if isinstance(event, Audio) and len(sounding) == n_audio:
            raise KeyboardInterrupt

    assert run_job(run_line(studio, text), listen)
    return events


@pytest.fixture
def endless(make_studio: MakeStudio, micro_checkpoint: Path) -> Studio:
    return make_studio(model=str(micro_checkpoint), references="nowhere", max_seconds="5")


def test_a_stop_keeps_what_was_heard_as_a_file_outside_the_context(endless: Studio) -> None:
    events = _interrupt_at(endless, "Never ending.", 3)
    [turn], [stopped] = of_type(events, TurnDone), of_type(events, Stopped)
    assert turn.ended == "interrupted"
    assert turn.file.exists()
    assert json.loads(turn.file.with_suffix(".json").read_text())["ended"] == "interrupted"
    assert turn.file.name in stopped.text
    assert len(endless.conversation) == 0
    assert not of_type(events, LineDone)


def test_a_stop_is_one_also_where_nothing_can_be_written(endless: Studio, tmp_path: Path) -> None:
    endless.takes.root = tmp_path / "file" / "below"
    (tmp_path / "file").touch()
    events = _interrupt_at(endless, "Never ending.", 3)
    assert [stopped.text for stopped in of_type(events, Stopped)] == ["Stopped."]
    (text,) = [notice.text for notice in of_type(events, Notice) if "cannot be written" in notice.text]
    kept = Path(text.partition("The take is kept: ")[2].removesuffix("."))
    assert kept.is_file()
    shutil.rmtree(kept.parent)


def test_a_stop_keeps_the_finished_turns_of_the_line(endless: Studio) -> None:
    events = _interrupt_at(endless, "One.||Two.", 12)
    turns = of_type(events, TurnDone)
    assert [turn.ended for turn in turns] == ["cut", "interrupted"]
    assert [turn.text for turn in endless.conversation.turns] == ["One."]


def test_after_a_stop_the_next_take_is_what_it_would_be_without_it(
    make_studio: MakeStudio, micro_checkpoint: Path
) -> None:
    def fresh() -> Studio:
        return make_studio(model=str(micro_checkpoint), references="nowhere", max_seconds="1")

    plain, stopped = fresh(), fresh()
    _interrupt_at(stopped, "Stopped.", 1)
    for studio in (plain, stopped):
        studio.set("seed", 99)
    first, second = (of_type(say(studio, "Next."), LineDone)[0] for studio in (plain, stopped))
    assert first.file.read_bytes() == second.file.read_bytes()


def test_a_line_that_is_stopped_gives_back_what_had_left_for_it(
    make_studio: MakeStudio, micro_checkpoint: Path
) -> None:
    studio = make_studio(model=str(micro_checkpoint), references="nowhere", max_seconds="1")
    for text in ("One.", "Two."):
        say(studio, text)
    before, used = studio.conversation.kept, studio.context_used
    assert [turn.text for turn in before] == ["One.", "Two."]
    studio.set("max_seconds", 6.0)
    line, events = run_line(studio, "On and on."), []
    beginning = studio.engine.held()[:10].clone()
    for event in line:
        events.append(event)
        if isinstance(event, Progress | Audio) and event.generated_s > 5:
            break
    assert not torch.equal(studio.engine.held()[:10], beginning)
    events.append(line.throw(KeyboardInterrupt))  # type: ignore[attr-defined]
    events += line
    assert [type(event).__name__ for event in events][-1] == "Stopped"
    assert studio.conversation.kept == before
    assert studio.context_used == used
    studio.set("max_seconds", 0.4)
    [turn] = say(studio, "Next.")[-2:-1]
    assert turn.meta["context"]["prompt_positions"] == used + len(studio.planner.ids(0, "Next."))
    assert [turn.text for turn in studio.conversation.kept] == ["One.", "Two.", "Next."]


def test_an_interrupt_inside_a_pass_leaves_a_sound_engine(
    make_studio: MakeStudio, micro_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make_studio(model=str(micro_checkpoint), references="nowhere", max_seconds="1")
    reference = make_studio(model=str(micro_checkpoint), references="nowhere", max_seconds="1")
    backbone = studio.engine.model.backbone
    with monkeypatch.context() as patch:
        Fault(KeyboardInterrupt, left=4).plant(patch, backbone, backbone.layers[1])
        events: list[Event] = []
        assert run_job(run_line(studio, "Hit in a layer."), events.append)
    assert of_type(events, Stopped)
    for each in (studio, reference):
        each.set("seed", 5)
    first, second = (of_type(say(each, "Next."), LineDone)[0] for each in (studio, reference))
    assert first.file.read_bytes() == second.file.read_bytes()


def test_a_stop_before_any_sound_says_that_nothing_was_made(endless: Studio) -> None:
    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress):
            raise KeyboardInterrupt

    events: list[Event] = []
    endless.settings = endless.settings.with_value("trim_tail", True, "test")
    assert run_job(run_line(endless, "Hi."), listen)
    assert of_type(events, Stopped)
