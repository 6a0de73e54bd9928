"""`-o` holds the accepted dialogue, and never costs a take."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch

from csm_repl.audio import open_sink
from csm_repl.errors import OutputError
from csm_repl.events import Audio, Event, TurnDone, TurnStarted, Withdrawn
from csm_repl.front.joined import JoinedSound

RATE = 24_000


class Run:
    """Turns of constant sound, so that each can be told in the file by its level."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.errors: list[OutputError] = []
        self.said: list[str] = []
        self.sink = open_sink(str(path), raw=False, rate=RATE, replace=False)
        self.joined = JoinedSound(self.sink, self.errors.append, self.said.append)

    def turn(self, level: int, ended: str | None = "end") -> Path:
        """Speaks 100 samples of `level` percent; None: the turn fails."""
        file = Path(f"{level:03d}.wav")
        self._tell(TurnStarted(0, 1, 0, "ada", "Hi.", 1, None))
        for _ in range(2):
            self._tell(Audio(torch.full((50,), level / 100), RATE, 0.0, 0.0))
        if ended is not None:
            self._tell(
                TurnDone(0, 1, 0, "ada", "Hi.", file, 0.1, 0.1, 0.1, 1, ended, {})  # type: ignore[arg-type]
            )
        return file

    def withdraw(self, *files: Path) -> None:
        self._tell(Withdrawn(files))

    def levels(self) -> list[int]:
        """Of each 100 samples of the file."""
        self.joined.end()
        self.sink.close()
        if not self.path.exists():
            return []
        samples, _ = soundfile.read(self.path)
        return [round(float(level) * 100) for level in samples[::100]]

    def _tell(self, event: Event) -> None:
        self.joined.handle(event)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path / "all.wav")


def test_turns_are_joined_in_order(run: Run) -> None:
    for level in (10, 20, 30):
        run.turn(level)
    assert run.levels() == [10, 20, 30]


def test_what_is_withdrawn_is_taken_out_wherever_it_is(run: Run) -> None:
    first, second, _ = run.turn(10), run.turn(20), run.turn(30)
    run.withdraw(second)
    run.turn(40)
    run.withdraw(first, Path("unknown.wav"))
    run.withdraw(second)
    assert run.levels() == [30, 40]
    assert not run.errors


@pytest.mark.parametrize("ended", ["interrupted", None])
def test_a_turn_that_was_stopped_or_failed_is_no_part_of_it(run: Run, ended: str | None) -> None:
    run.turn(10)
    run.turn(20, ended)
    run.turn(30)
    run.turn(40, ended)
    assert run.levels() == [10, 30]


@pytest.mark.parametrize("ended", ["cut", "context"])
def test_a_turn_that_was_cut_is(run: Run, ended: str) -> None:
    run.turn(10, ended)
    assert run.levels() == [10]


def test_a_dialogue_of_which_nothing_is_left_leaves_no_file(run: Run) -> None:
    run.withdraw(run.turn(10))
    assert run.levels() == []


def test_a_file_that_fails_is_closed_on_what_it_holds_and_that_is_said_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.turn(10)

    def fail(*_: object) -> None:
        raise OutputError("The disk is full.", "Free some.")

    monkeypatch.setattr(type(run.sink), "_put", fail)
    for level in (20, 30):
        run.turn(level)
    assert [str(error) for error in run.errors] == [
        "The disk is full. It ends here. The takes are kept, and the run goes on without -o."
    ]
    monkeypatch.undo()
    assert run.levels() == [10]


def test_without_a_file_nothing_happens() -> None:
    joined = JoinedSound(None, pytest.fail, pytest.fail)
    joined.handle(Withdrawn((Path("001.wav"),)))
    joined.end()


def test_that_stdout_cannot_be_taken_back_is_said_once(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    said: list[str] = []
    with open_sink("-", raw=True, rate=RATE, replace=False) as sink:
        joined = JoinedSound(sink, pytest.fail, said.append)
        for _ in range(2):
            joined.handle(TurnStarted(0, 1, 0, "ada", "Hi.", 1, None))
            joined.handle(Audio(torch.ones(50), RATE, 0.0, 0.0))
            joined.handle(TurnDone(0, 1, 0, "", "", Path("001.wav"), 1.0, 1.0, 1.0, 1, "end", {}))
            joined.handle(Withdrawn((Path("001.wav"),)))
    assert len(said) == 1
    assert len(capfdbinary.readouterr().out) == 200
