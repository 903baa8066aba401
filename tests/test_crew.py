"""The crew: jobs in threads, and what they bring back to the one who takes it in."""

from collections.abc import Iterator
from contextlib import closing, suppress
from threading import Event, get_ident
from typing import Any

import pytest

from outboxd import crew
from outboxd.crew import PERIOD, Crew
from outboxd.event import Outcome, Verdict
from tests.conftest import until


class Owner:
    """Whoever takes in, and how often it was rung for."""

    def __init__(self) -> None:
        self.rung = 0
        self.told: list[Any] = []
        self.crew = Crew(1, 4, self.ring)

    def ring(self) -> None:
        self.rung += 1

    def submit(self, job: Any) -> None:
        self.crew.submit(job, self.told.append)

    def take_in(self, count: int, now: float = 0.0) -> None:
        """Until so many have been told."""

        def are_told() -> bool:
            self.crew.take_in(now)
            return len(self.told) >= count

        until(are_told)


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    with closing(made.crew):
        yield made


def test_a_job_runs_in_a_thread_and_its_result_is_taken_in_by_the_owner(owner: Owner) -> None:
    takers: list[int] = []
    owner.crew.submit(get_ident, lambda worker: takers.extend((worker, get_ident())))
    until(lambda: owner.crew.has_returned)
    assert (owner.crew.jobs, takers) == (1, [])
    owner.crew.take_in(0.0)
    assert owner.crew.jobs == 0
    assert takers[1] == get_ident() != takers[0]


def test_nobody_begins_a_job_while_the_crew_stands_and_all_do_afterwards(owner: Owner) -> None:
    begun = Event()
    with suppress(ZeroDivisionError), owner.crew.standing():  # whatever ends it
        for _ in range(6):
            owner.submit(begun.set)
        assert not begun.wait(0.05)
        raise ZeroDivisionError
    owner.take_in(6)


def test_who_is_at_a_job_goes_on_while_the_crew_stands(owner: Owner) -> None:
    begun, may_end = Event(), Event()

    def job() -> None:
        begun.set()
        may_end.wait(10)

    owner.submit(job)
    assert begun.wait(10)
    with owner.crew.standing():
        may_end.set()
        owner.take_in(1)


def test_the_parts_of_a_job_that_computes_for_long_wait_while_the_crew_stands(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the interpreter from whoever stands, for as long as it goes on."""
    monkeypatch.setattr(crew, "PATIENCE", 10)  # however slow the machine is
    begun: list[int] = []
    first, go_on = Event(), Event()

    def job() -> None:
        for part in owner.crew.in_turn(range(3)):
            begun.append(part)
            first.set()
            go_on.wait(10)

    owner.submit(job)
    assert first.wait(10)
    with owner.crew.standing():
        go_on.set()
        sum(range(1_000_000))
        assert begun == [0]
    owner.take_in(1)
    assert begun == [0, 1, 2]


def test_the_crew_stands_once_a_hand_at_work_is_done_and_without_one_that_waits(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that computes would take the interpreter from whoever stands; one that waits for Brevo does not."""
    begun, ended, answered = Event(), Event(), Event()

    def at_work() -> str:
        begun.set()
        sum(range(1_000_000))
        ended.set()
        return "computed"

    def waiting() -> str:
        begun.set()
        answered.wait(10)
        return "answered"

    owner.crew.queue(at_work, owner.told.append)
    assert begun.wait(10)
    with monkeypatch.context() as patient:
        patient.setattr(crew, "SETTLE", 10)  # however slow the machine is
        with owner.crew.standing():
            assert ended.is_set()
    owner.take_in(1)
    begun.clear()
    owner.crew.queue(waiting, owner.told.append)
    assert begun.wait(10)
    with owner.crew.standing():
        assert owner.told == ["computed"]
        answered.set()
        owner.take_in(2)


def test_what_comes_back_is_ripe_once_it_is_as_much_as_what_is_still_under_way(owner: Owner) -> None:
    gates = [Event() for _ in range(4)]
    for gate in gates:
        owner.submit(lambda gate=gate: gate.wait(10))
    gates[0].set()
    until(lambda: owner.rung == 1)  # the first one always rings
    assert (owner.crew.has_returned, owner.crew.is_ripe) == (True, False)
    gates[1].set()
    until(lambda: owner.crew.is_ripe)
    until(lambda: owner.rung == 2)
    for gate in gates:
        gate.set()
    owner.take_in(4)


def test_nobody_waits_for_what_runs_beside(owner: Owner) -> None:
    gate = Event()
    owner.crew.submit(lambda: gate.wait(10), owner.told.append, is_beside=True)
    assert owner.crew.jobs == 0
    gate.set()
    owner.take_in(1)
    assert owner.crew.jobs == 0


def test_a_job_hands_back_what_it_has_before_its_end(owner: Owner) -> None:
    gate = Event()

    def job() -> str:
        owner.crew.hand_back(owner.told.append, "half")
        gate.wait(10)
        return "whole"

    owner.submit(job)
    owner.take_in(1)
    assert (owner.told, owner.crew.jobs) == (["half"], 1)
    gate.set()
    owner.take_in(2)
    assert (owner.told, owner.crew.jobs) == (["half", "whole"], 0)


def test_a_job_that_breaks_off_is_a_failed_outcome(owner: Owner) -> None:
    owner.submit(lambda: 1 / 0)
    owner.take_in(1)
    assert owner.told == [Outcome(Verdict.RETRY, detail="internal error: ZeroDivisionError")]


def test_the_rate_is_that_of_the_latest_period(owner: Owner) -> None:
    owner.crew.take_in(0.0)
    for _ in range(8):
        owner.submit(int)
    owner.take_in(8, now=PERIOD / 2)
    assert owner.crew.rate == 0
    owner.crew.take_in(2 * PERIOD)
    assert owner.crew.rate == 8 / (2 * PERIOD)
    owner.crew.take_in(3 * PERIOD)
    assert owner.crew.rate == 0


def test_jobs_in_the_queue_run_one_after_the_other_where_there_is_one_hand(owner: Owner) -> None:
    gates = [Event(), Event()]
    for gate in gates:
        owner.crew.queue(lambda gate=gate: gate.wait(10), owner.told.append)  # type: ignore[misc]
    owner.submit(int)  # waits for none of them
    owner.take_in(1)
    gates[1].set()
    owner.submit(int)
    owner.take_in(2)
    assert owner.told == [0, 0]  # the second in the queue has not even begun
    gates[0].set()
    owner.take_in(4)
