"""Ctrl-C and jobs, whatever the job is."""

from __future__ import annotations

from csm_repl.events import Event, Notice, Stopped
from csm_repl.front.jobs import Interrupts, run_job


def test_the_second_interrupt_within_two_seconds_counts_as_leaving() -> None:
    now = [0.0]
    interrupts = Interrupts(clock=lambda: now[0])
    assert not interrupts.note()
    now[0] = 1.9
    assert interrupts.note()
    now[0] = 10.0
    assert not interrupts.note()
    now[0] = 12.1
    assert not interrupts.note()


def test_an_interrupt_while_a_job_without_order_of_its_own_runs_stops_it() -> None:
    def job() -> object:
        yield Notice("one")
        raise KeyboardInterrupt

    seen: list[Event] = []
    assert run_job(job(), seen.append)  # type: ignore[arg-type]
    assert [type(event) for event in seen] == [Notice, Stopped]
