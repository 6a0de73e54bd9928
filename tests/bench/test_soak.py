"""The soak, short; and that it notices what it is there to notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench import soak
from csm_repl.audio import write_audio
from csm_repl.events import Audio, TurnDone, TurnStarted, Withdrawn

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
TURN = torch.linspace(-0.5, 0.5, 4_800)


def test_nothing_is_lost_and_no_descriptor_stays_open(quick_checkpoint: Path, tmp_path: Path) -> None:
    flags = {"model": str(quick_checkpoint), "tracks": True, "max_seconds": "0.25"}
    short = soak.Soak(flags, tmp_path / "run")
    measured = short.run(n_lines=2 * 3 * len(soak.FAULTS), every=3)
    assert short.ledger.problems == []
    assert short.faults == dict.fromkeys(soak.FAULTS, 2)
    assert short.ledger.events["Stopped"] == 2
    assert len({each.descriptors for each in measured}) == 1


def spoken(ledger: soak.Ledger, folder: Path, number: int, in_file: torch.Tensor = TURN) -> Path:
    """A line of one turn, told to the ledger."""
    file = folder / f"{number:03d}.wav"
    write_audio(file, in_file)
    file.with_suffix(".json").write_text("{}")
    ledger.take(TurnStarted(0, 1, 0, "", "Hi.", 1, None))
    for samples in TURN.split(1_920):
        ledger.take(Audio(samples, 24_000, 0.2, 0.1))
    ledger.take(
        TurnDone(
            index=0, n_turns=1, speaker=0, voice="", text="Hi.", file=file, seconds=0.2, elapsed_s=0.1,
            first_audio_s=0.1, seed=1, ended="end", meta={},
        )
    )  # fmt: skip
    return file


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda file: None, None),
        (lambda file: file.unlink(), "001.wav is gone"),
        (lambda file: file.write_bytes(file.read_bytes()[:-2]), "001.wav has changed"),
        (lambda file: file.with_name(".csm-repl-1.part").touch(), ".csm-repl-1.part is left over"),
        (lambda file: file.with_name("002.json").touch(), "002.json has no sound"),
    ],
)
def test_harm_to_a_take_is_a_problem(
    tmp_path: Path, harm: Callable[[Path], None], problem: str | None
) -> None:
    ledger = soak.Ledger()
    harm(spoken(ledger, tmp_path, 1))
    ledger.check_files([tmp_path])
    assert ledger.problems[:1] == ([] if problem is None else [problem])


def test_a_take_with_other_sound_than_was_heard_is_a_problem(tmp_path: Path) -> None:
    ledger = soak.Ledger()
    spoken(ledger, tmp_path, 1, TURN[:-1])
    assert ledger.problems == ["001.wav holds 9598 bytes of sound, and 9600 were heard"]


@pytest.mark.parametrize(("n_in_file", "n_problems"), [(0, 1), (1, 0), (2, 1)])
def test_exports_have_to_hold_the_accepted_takes(tmp_path: Path, n_in_file: int, n_problems: int) -> None:
    ledger = soak.Ledger()
    spoken(ledger, tmp_path, 1)
    ledger.take(Withdrawn((spoken(ledger, tmp_path, 2),)))
    export = tmp_path / "joined.wav"
    if n_in_file:
        write_audio(export, torch.cat([TURN] * n_in_file))
    ledger.check_tracks([export] if n_in_file else [])
    ledger.check_joined(export)
    assert len(ledger.problems) == 2 * n_problems


def test_the_slope_is_of_what_comes_after_the_first_quarter() -> None:
    measured = [
        soak.Measured(line, 500 + 0.004 * line if line >= 25 else 0, 600, 5, 1) for line in range(100)
    ]
    assert soak.slope(measured) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("mb_a_line", "leaks", "problems"),
    [
        (0.001, False, []),
        (0.050, False, ["1,000 lines add 50.0 MB"]),
        (0.001, True, ["the number of open descriptors changes"]),
    ],
)
def test_what_grows_is_a_problem(mb_a_line: float, leaks: bool, problems: list[str]) -> None:
    measured = [
        soak.Measured(line, 500 + mb_a_line * line, 600, 5 + leaks * line, 1) for line in range(0, 400, 10)
    ]
    assert soak.growth(measured, kept=0.2) == problems
