"""Lines side by side, with a real studio and a listener that writes down."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csm_repl.errors import OutOfMemoryError, OutputError
from csm_repl.events import Audio, Echo, Event, LineDone, Notice, Stopped, Table, TurnDone
from csm_repl.front.pipe.lines import LineFeed
from csm_repl.front.pipe.listener import Listener
from csm_repl.front.pipe.side_by_side import LINES_PER_SLOT, SideBySide
from csm_repl.front.printers import PlainPrinter
from csm_repl.studio import Studio
from tests.support.speech import ROUNDING, assert_sounds_alike
from tests.support.studio import MakeStudio, of_type, say

TEXTS = [
    "One.",
    "A second line, a longer one.||With two.",
    "Three.",
    "Four is longer than three was.",
    "Five.||Six.",
]


class Notes(Listener):
    """A listener that keeps events with their line."""

    def __init__(self) -> None:
        super().__init__(PlainPrinter(None, io.StringIO()), None, None)
        self.events: list[tuple[int, Event]] = []
        self.errors: list[tuple[int, Exception]] = []
        self.when: Callable[[Event], None] = lambda _: None

    def handle(self, event: Event, line: int) -> None:
        self.when(event)
        super().handle(event, line)
        self.events.append((line, event))

    def fail(self, error: Exception, line: int) -> None:
        super().fail(error, line)
        self.errors.append((line, error))

    def of(self, kind: type[Any]) -> list[Any]:
        return of_type([event for _, event in self.events], kind)


@pytest.fixture
def feed(tmp_path: Path) -> Callable[..., LineFeed]:
    def make(lines: list[str]) -> LineFeed:
        path = tmp_path / "script.txt"
        path.write_text("".join(f"{line}\n" for line in lines))
        return LineFeed(path.open("rb"), buffered=False)

    return make


Speak = Callable[..., tuple[Studio, Notes, bool]]


@pytest.fixture
def speak(make_studio: MakeStudio, feed: Callable[..., LineFeed]) -> Speak:
    def run(lines: list[str], n_slots: int = 3, notes: Notes | None = None, **flags: Any) -> Any:
        studio = make_studio(independent=True, batch=str(n_slots), **flags)
        notes = notes or Notes()
        return studio, notes, SideBySide(studio, feed(lines), notes).run()

    return run


@pytest.fixture
def independent(make_studio: MakeStudio) -> Callable[..., Studio]:
    return lambda **flags: make_studio(independent=True, **flags)


def facts(turns: list[TurnDone]) -> list[tuple[str, int, str, int]]:
    return [(turn.file.name, turn.seed, turn.ended, turn.meta["frames"]) for turn in turns]


def assert_all_alike(files: Iterable[Path], others: Iterable[Path]) -> None:
    for file, other in zip(files, others, strict=True):
        assert file.name == other.name
        assert_sounds_alike(file, other)


@pytest.mark.parametrize("n_slots", [2, 3, 8])
def test_takes_files_and_seeds_are_those_of_lines_one_by_one(
    n_slots: int, speak: Speak, independent: Callable[..., Studio], tmp_path: Path
) -> None:
    alone = independent(seed="5", tracks=True, output=str(tmp_path / "alone"))
    expected = [event for text in TEXTS for event in say(alone, text)]
    studio, notes, stopped = speak(TEXTS, n_slots, seed="5", tracks=True)
    assert not stopped
    turns, turns_alone = notes.of(TurnDone), of_type(expected, TurnDone)
    assert facts(turns) == facts(turns_alone)
    assert_all_alike([turn.file for turn in turns], [turn.file for turn in turns_alone])
    lines, lines_alone = notes.of(LineDone), of_type(expected, LineDone)
    assert [line.number for line in lines] == [line.number for line in lines_alone]
    assert_all_alike([line.file for line in lines], [line.file for line in lines_alone])
    heard, heard_alone = (
        np.concatenate([event.samples.numpy() for event in of_type(events, Audio)])
        for events in ([event for _, event in notes.events], expected)
    )
    np.testing.assert_allclose(heard, heard_alone, atol=ROUNDING)
    assert [turn.text for turn in studio.conversation.turns] == [
        turn.text for turn in alone.conversation.turns
    ]
    assert_all_alike(list(studio.finish()), list(alone.finish()))


def test_events_come_line_by_line_in_the_order_of_the_input(speak: Speak) -> None:
    _, notes, _ = speak(TEXTS)
    numbers = [line for line, _ in notes.events]
    assert numbers == sorted(numbers)
    assert sorted(set(numbers)) == [1, 2, 3, 4, 5]
    kinds = [type(event) for line, event in notes.events if line == 2]
    assert kinds[0] is Echo
    assert kinds[-1] is LineDone


def test_lines_are_really_made_together(speak: Speak) -> None:
    studio, notes, _ = speak(["One.", "Two.", "Three."], seed="5")
    frames = [turn.meta["frames"] for turn in notes.of(TurnDone)]
    assert studio.engine.stats.frames == sum(frames)
    assert studio.engine.n_slots == 3


def test_a_command_waits_for_the_lines_before_it_and_those_behind_it_wait(speak: Speak) -> None:
    _, notes, _ = speak(["One.", "Two.", "$SWAP$", "Three.", "$HISTORY$", "Four."])
    numbers = [line for line, _ in notes.events]
    assert numbers == sorted(numbers)
    assert [turn.speaker for turn in notes.of(TurnDone)] == [0, 0, 1, 1]
    [history] = notes.of(Table)
    assert [row["text"] for row in history.records if not row["reference"]] == ["One.", "Two.", "Three."]


def test_exit_ends_the_run(speak: Speak) -> None:
    _, notes, stopped = speak(["One.", "$EXIT$", "Never spoken."])
    assert [turn.text for turn in notes.of(TurnDone)] == ["One."]
    assert notes.quit
    assert not stopped


def test_bad_lines_are_reported_in_their_place_and_the_others_are_spoken(speak: Speak) -> None:
    _, notes, _ = speak(["One.", "Below zero.-1", "$NOPE$", "", "Two.||$CLEAR$", "Three."])
    assert [line for line, _ in notes.errors] == [2, 3, 5]
    assert [turn.text for turn in notes.of(TurnDone)] == ["One.", "Three."]
    assert [done.number for done in notes.of(LineDone)] == [1, 2]


def test_a_take_that_fails_costs_its_own_line_and_numbers_and_seeds_stay(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csm_repl.outputs.takes import LineFiles

    save = LineFiles.save_turn

    def failing(self: LineFiles, samples: Any, rate: int, meta: Any, *rest: Any, **named: Any) -> Path:
        if meta["text"] == "Bad.":
            raise OutputError("The disk is full.", "Make room.")
        return save(self, samples, rate, meta, *rest, **named)

    monkeypatch.setattr(LineFiles, "save_turn", failing)
    _, notes, _ = speak(["One.", "Bad.||Unsaid.", "Three."], seed="5")
    assert [line for line, _ in notes.errors] == [2]
    assert [done.number for done in notes.of(LineDone)] == [1, 3]
    assert [turn.seed for turn in notes.of(TurnDone)] == [5, 8]


def test_a_failing_step_costs_one_line_and_frees_its_slot(
    speak: Speak, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csm_repl.engine.step import EagerRunner

    draw, calls = EagerRunner.draw, iter(range(10_000))

    def failing(self: EagerRunner, slots: Any) -> None:
        if next(calls) == 2:
            raise RuntimeError("a kernel failed")
        draw(self, slots)

    monkeypatch.setattr(EagerRunner, "draw", failing)
    studio, notes, _ = speak(["One.", "Two.", "Three.", "Four."])
    assert len(notes.errors) == 1
    assert len(notes.of(LineDone)) == 3
    assert studio.engine.n_open == 0


@pytest.mark.parametrize("error", [ValueError("no plan"), RuntimeError("no plan"), MemoryError()])
def test_a_context_that_cannot_be_planned_costs_its_own_line(
    speak: Speak, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It came up in the step of all lines, and the oldest was blamed."""
    from csm_repl.speech import Planner

    plan = Planner.plan

    def failing(self: Planner, *heard: Any, **named: Any) -> Any:
        if tuple(named["ids"]) == self.ids(0, "Bad."):
            raise error
        return plan(self, *heard, **named)

    monkeypatch.setattr(Planner, "plan", failing)
    _, notes, _ = speak(["One.", "Two.", "Bad.", "Four."])
    assert [line for line, _ in notes.errors] == [3]
    assert [line for line, event in notes.events if isinstance(event, LineDone)] == [1, 2, 4]
    if isinstance(error, MemoryError):
        assert isinstance(notes.errors[0][1], OutOfMemoryError)


def test_a_listener_that_fails_costs_its_line(speak: Speak) -> None:
    notes = Notes()

    def full(event: Event) -> None:
        if isinstance(event, Audio) and not notes.errors and notes.of(LineDone):
            raise OutputError("The disk is full.", "Make room.")

    notes.when = full
    speak(["One.", "Two.", "Three."], notes=notes)
    assert [line for line, _ in notes.errors] == [2]
    assert [line for line, event in notes.events if isinstance(event, LineDone)] == [1, 3]


def test_what_waits_for_a_slow_line_is_bounded(speak: Speak, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 0
    report = SideBySide._report

    def counted(self: SideBySide) -> None:
        nonlocal most
        most = max(most, len(self._begun))
        report(self)

    monkeypatch.setattr(SideBySide, "_report", counted)
    slow = "This line goes on, and on. " * 12
    _, notes, _ = speak([slow, *["Hi."] * 30], 2, max_seconds="3")
    assert len(notes.of(LineDone)) == 31
    assert most <= LINES_PER_SLOT * 2


# Stopping.


def stopped_at(speak: Speak, lines: list[str], when: Callable[[Event], bool], **flags: Any) -> Any:
    notes = Notes()
    hit: list[Event] = []

    def interrupt(event: Event) -> None:
        if not hit and when(event):
            hit.append(event)
            raise KeyboardInterrupt

    notes.when = interrupt
    studio, notes, stopped = speak(lines, notes=notes, **flags)
    assert hit
    assert stopped
    return studio, notes


def test_a_stop_keeps_finished_lines_and_drops_the_others(speak: Speak) -> None:
    slow = "This one is slower than the others. " * 3
    studio, notes = stopped_at(
        speak, ["One.", slow, slow, slow], lambda event: isinstance(event, LineDone), max_seconds="2"
    )
    [stop] = notes.of(Stopped)
    assert "2 unfinished lines were dropped" in stop.text
    assert studio.engine.n_open == 0
    assert len(list(Path(studio.takes.folder).glob("*.wav"))) >= 1


def test_a_stop_inside_a_pass_stops_all_lines(speak: Speak, monkeypatch: pytest.MonkeyPatch) -> None:
    from csm_repl.engine.step import EagerRunner

    draw, calls = EagerRunner.draw, iter(range(10_000))

    def interrupted(self: EagerRunner, slots: Any) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt
        draw(self, slots)

    monkeypatch.setattr(EagerRunner, "draw", interrupted)
    studio, notes, stopped = speak(["One, two, three.", "Four, five, six.", "Seven."], max_seconds="2")
    assert stopped
    [stop] = notes.of(Stopped)
    assert "dropped" in stop.text
    assert studio.engine.n_open == 0
    assert not notes.of(LineDone)


def test_finished_turns_of_a_dropped_line_stay_as_files(speak: Speak) -> None:
    slow = "This one is slower than the others are. " * 4
    studio, notes = stopped_at(
        speak, [f"Hi.||{slow}"], lambda event: isinstance(event, TurnDone), n_slots=2, max_seconds="3"
    )
    assert [path.name for path in sorted(Path(studio.takes.folder).glob("*.wav"))] == ["001-1.wav"]
    assert [turn.text for turn in studio.conversation.turns] == ["Hi."]
    assert "1 unfinished line was dropped" in notes.of(Stopped)[0].text


# Lines that are slow to come.


def test_a_line_is_spoken_before_the_next_one_has_come(make_studio: MakeStudio) -> None:
    studio, notes = make_studio(independent=True, batch="3"), Notes()
    reading, writing = os.pipe()
    texts = ["One.", "Two.", "Three."]

    def more(event: Event) -> None:
        # The next line comes only when the one before is over.
        if isinstance(event, LineDone):
            if texts:
                os.write(writing, f"{texts.pop(0)}\n".encode())
            else:
                os.close(writing)

    notes.when = more
    os.write(writing, f"{texts.pop(0)}\n".encode())
    with os.fdopen(reading, "rb") as file:
        SideBySide(studio, LineFeed(file, buffered=False), notes).run()
    assert [turn.text for turn in notes.of(TurnDone)] == ["One.", "Two.", "Three."]


def test_a_voice_that_changes_is_noticed_before_the_next_line(speak: Speak, voices_folder: Path) -> None:
    notes = Notes()

    def edit(event: Event) -> None:
        if isinstance(event, LineDone):
            (voices_folder / "reference.txt").write_text("Other words.")

    notes.when = edit
    speak(["One.", "$STATUS$", "Two."], notes=notes)
    [notice] = [event for event in notes.of(Notice) if "transcript" in event.text]
    assert "was changed" in notice.text
