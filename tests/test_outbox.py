"""The contract of Outbox on the real file: admit, claim, record, release, revive."""

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from outboxd import database, intake, report
from outboxd.errors import DatabaseError
from outboxd.event import Claim, Outcome, Result, Stamp, Verdict
from outboxd.keys import address_key
from outboxd.outbox import FOLDED, Admission, Outbox
from tests.test_schema import assert_depth_is_right

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEASE = timedelta(minutes=2)
DELIVERED = Outcome(Verdict.DELIVERED, call="POST /contacts", http_status=201, calls=1)
REFUSED = Outcome(Verdict.REFUSED, call="POST /contacts", http_status=400, detail="invalid", calls=1)
BLOCKED = Outcome(Verdict.BLOCKED, call="POST /contacts", http_status=401, detail="wrong key", calls=1)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def retry(minutes: float) -> Outcome:
    return Outcome(Verdict.RETRY, call="POST /contacts", http_status=503, calls=1, retry_at=at(minutes))


@pytest.fixture
def outbox(db: Path) -> Iterator[Outbox]:
    with closing(Outbox(db, default_source="custom")) as opened:
        yield opened


def write(outbox: Outbox, count: int = 1) -> None:
    """Write `count` events at noon."""
    rows = [("customer_updated", '{"id":1}', None, None, None)] * count
    intake.write(outbox.path, rows, now=lambda: NOON)


def admit(
    outbox: Outbox, *names: tuple[str | None, str | None], outcome: Outcome | None = None, minutes: float = 0
) -> None:
    """Write and admit an event for each (customer id, address)."""
    write(outbox, len(names))
    fresh = outbox.fresh()
    outbox.admit(
        [
            Admission(event, customer_id, (address_key(email),) if email else (), outcome)
            for event, (customer_id, email) in zip(fresh, names, strict=True)
        ],
        at(minutes),
    )


def claim(outbox: Outbox, minutes: float = 0, limit: int = 10) -> list[Claim]:
    return outbox.claim(at(minutes), limit=limit, lease=LEASE)


def ids(claims: list[Claim]) -> list[list[int]]:
    return [[event.id for event in each.events] for each in claims]


def end(outbox: Outbox, claimed: Claim, outcome: Outcome, minutes: float = 0) -> list[Result]:
    outcomes = {event.id: outcome for event in claimed.events}
    return outbox.record([Result(claimed, outcomes, claimed.contact)], at(minutes))


def table(outbox: Outbox, columns: str, more: str = "") -> list[Any]:
    with closing(sqlite3.connect(outbox.path)) as connection:
        return connection.execute(f"SELECT {columns} FROM outbox {more} ORDER BY id").fetchall()


def keys(outbox: Outbox) -> list[str]:
    return [row[0] for row in table(outbox, "customer_key")]


# Admit


def test_an_admitted_event_is_fresh_no_more_and_due_since_it_was_written(outbox: Outbox) -> None:
    write(outbox)
    assert [event.id for event in outbox.fresh()] == [1]
    assert outbox.next_due() is None
    outbox.admit([Admission(outbox.fresh()[0], "5")], at(1))
    assert outbox.fresh() == []
    assert outbox.next_due() == NOON


def test_an_event_may_end_where_it_is_admitted(outbox: Outbox) -> None:
    admit(outbox, (None, None), outcome=Outcome(Verdict.REFUSED, detail="nobody named"))
    assert table(outbox, "status, last_error, customer_key") == [("dead", "nobody named", None)]
    assert outbox.next_due() is None


def test_two_who_admit_the_same_event_admit_it_once(outbox: Outbox) -> None:
    write(outbox)
    fresh = outbox.fresh()
    outbox.admit([Admission(fresh[0], "5")], NOON)
    (held,) = claim(outbox)
    outbox.admit([Admission(fresh[0], "6")], NOON)
    outbox.admit([Admission(fresh[0], outcome=REFUSED)], NOON)
    assert table(outbox, "customer_key, status, is_head") == [("custom:5", "pending", 1)]
    assert end(outbox, held, DELIVERED)


def test_an_event_of_a_customer_under_way_waits_for_its_turn(outbox: Outbox) -> None:
    admit(outbox, ("5", None))
    (held,) = claim(outbox)
    admit(outbox, ("5", None))
    assert claim(outbox) == []
    end(outbox, held, DELIVERED)
    assert ids(claim(outbox)) == [[2]]


# Claim


def test_a_claim_holds_all_pending_events_of_each_of_its_customers(outbox: Outbox) -> None:
    admit(outbox, ("5", None), ("6", None), ("5", None), ("7", None))
    claims = claim(outbox, limit=2)
    assert sorted(ids(claims)) == [[1, 3], [2]]
    assert {event.attempts for each in claims for event in each.events} == {1}
    assert ids(claim(outbox)) == [[4]]
    assert claim(outbox) == []


def test_a_claim_never_holds_more_of_a_customer_than_one_call_is_to_tell(outbox: Outbox) -> None:
    write(outbox, FOLDED + 50)
    while fresh := outbox.fresh():
        outbox.admit([Admission(event, "5") for event in fresh], NOON)
    (first,) = claim(outbox)
    assert len(first.events) == FOLDED
    end(outbox, first, DELIVERED)
    assert len(claim(outbox)[0].events) == 50


def test_a_lease_that_lapsed_is_claimed_again_and_its_first_result_is_dropped(outbox: Outbox) -> None:
    admit(outbox, ("5", None))
    (lost,) = claim(outbox)
    assert claim(outbox, 1.9) == []
    (held,) = claim(outbox, 2)
    assert held.events[0].attempts == 2
    assert end(outbox, lost, REFUSED, 2.1) == []
    assert table(outbox, "status, attempts") == [("pending", 2)]
    assert end(outbox, held, DELIVERED, 2.2)
    assert end(outbox, held, REFUSED, 2.3) == []
    assert table(outbox, "status, last_error") == [("delivered", None)]


def test_a_result_older_than_a_revival_is_dropped(outbox: Outbox) -> None:
    """The attempts begin anew at a revival, so their number alone would not tell the claims apart."""
    admit(outbox, ("5", None))
    (lost,) = claim(outbox)
    (held,) = claim(outbox, 2)
    end(outbox, held, REFUSED, 2)
    outbox.revive([1], at(3))
    (again,) = claim(outbox, 3)
    assert again.events[0].attempts == lost.events[0].attempts
    assert end(outbox, lost, REFUSED, 3) == []
    assert table(outbox, "status") == [("pending",)]
    assert end(outbox, again, DELIVERED, 3)


# Record


def test_a_retry_waits_for_its_time_with_its_attempt_spent(outbox: Outbox) -> None:
    admit(outbox, ("5", None), ("5", None))
    end(outbox, claim(outbox)[0], retry(30))
    assert claim(outbox, 29.9) == []
    (again,) = claim(outbox, 30)
    assert [(event.id, event.attempts) for event in again.events] == [(1, 2), (2, 2)]


def test_a_newer_event_does_not_go_round_the_backoff_of_its_customer(outbox: Outbox) -> None:
    admit(outbox, ("5", None))
    end(outbox, claim(outbox)[0], retry(30))
    admit(outbox, ("5", None))
    assert claim(outbox, 29.9) == []
    assert ids(claim(outbox, 30)) == [[1, 2]]


def test_a_block_spends_no_attempt(outbox: Outbox) -> None:
    admit(outbox, ("5", None))
    end(outbox, claim(outbox)[0], BLOCKED)
    assert table(outbox, "attempts, claimed_at, is_head, last_error") == [(0, None, 1, "wrong key")]
    assert claim(outbox)[0].events[0].attempts == 1


def test_a_released_claim_is_as_if_it_had_never_been(outbox: Outbox) -> None:
    admit(outbox, ("5", None), ("5", None))
    before = table(outbox, "*")
    outbox.record([Result(held, {}, held.contact) for held in claim(outbox, 1)], NOON)
    assert table(outbox, "*") == before
    with closing(sqlite3.connect(outbox.path)) as connection:
        assert connection.execute("SELECT count(*) FROM attempts").fetchone() == (0,)


def test_the_culprit_dies_alone_and_what_had_no_turn_stays(outbox: Outbox) -> None:
    admit(outbox, ("5", None), ("5", None), ("5", None))
    (held,) = claim(outbox)
    outbox.record([Result(held, {1: DELIVERED, 2: REFUSED}, held.contact)], NOON)
    assert table(outbox, "status, attempts, is_head") == [
        ("delivered", 1, 0),
        ("dead", 1, 0),
        ("pending", 0, 1),
    ]
    assert ids(claim(outbox)) == [[3]]


def test_every_attempt_has_its_row_and_a_short_detail(outbox: Outbox) -> None:
    admit(outbox, ("5", None))
    end(outbox, claim(outbox)[0], replace(retry(30), detail="x" * 1000, warnings=("y",)))
    end(outbox, claim(outbox, 30)[0], replace(DELIVERED, warnings=("sent without the phone",)), 30)
    with database.reading(outbox.path) as connection:
        told = report.event(connection, 1)
    assert told is not None
    assert [(a["number"], a["verdict"], a["detail"][:5]) for a in told["attempts_made"]] == [
        (1, "retry", "xxxxx"),
        (2, "delivered", "sent "),
    ]
    assert (told["status"], told["last_error"]) == ("delivered", "sent without the phone")


def test_the_contact_is_kept_as_it_was_delivered(outbox: Outbox) -> None:
    admit(outbox, ("5", None))
    (held,) = claim(outbox)
    delivered = replace(
        held.contact,
        email="jane@example.com",
        synced_email="jane@example.com",
        email_at=Stamp(NOON, 1),
        accepts_marketing=False,
        consent_at=Stamp(NOON, 1),
    )
    outbox.record([Result(held, {1: DELIVERED}, delivered)], NOON)
    admit(outbox, ("5", None))
    assert claim(outbox)[0].contact == delivered


# Revive


def test_the_dead_come_back_with_all_their_attempts_and_only_they(outbox: Outbox) -> None:
    admit(outbox, ("5", None), ("6", None))
    first, second = claim(outbox)
    end(outbox, first, REFUSED)
    end(outbox, second, DELIVERED)
    admit(outbox, (None, None), outcome=REFUSED)
    assert outbox.revive([1, 2, 3, 99], at(1)) == [1, 3]
    assert table(outbox, "status, attempts, is_head") == [
        ("pending", 0, 1),
        ("delivered", 1, 0),
        ("pending", 0, 0),
    ]
    assert ids(claim(outbox, 1)) == [[1]]
    assert [event.id for event in outbox.fresh()] == [3]


def test_a_revived_event_joins_a_customer_under_way_without_a_second_lease(outbox: Outbox) -> None:
    admit(outbox, ("5", None))
    end(outbox, claim(outbox)[0], REFUSED)
    admit(outbox, ("5", None))
    (held,) = claim(outbox)
    outbox.revive([1], NOON)
    assert claim(outbox) == []
    end(outbox, held, DELIVERED)
    assert ids(claim(outbox)) == [[1]]


@pytest.mark.parametrize(("pending", "dead"), [(3, 0), (-2, 5), (0, -1)])
def test_a_depth_that_a_foreign_hand_has_spoilt_is_corrected(outbox: Outbox, pending: int, dead: int) -> None:
    admit(outbox, ("1", "ann@example.com"))
    admit(outbox, ("2", "bad"), outcome=REFUSED)
    write(outbox, 2)
    with closing(sqlite3.connect(outbox.path)) as connection:
        with connection:
            connection.execute("UPDATE depth SET finished = finished - ?, dead = dead + ?", (pending, dead))
        outbox.recount()
        assert_depth_is_right(connection)


def test_a_depth_that_is_right_is_counted_without_a_lock(outbox: Outbox) -> None:
    """However many events there are: shops go on writing while a daemon starts."""
    write(outbox)
    with closing(sqlite3.connect(outbox.path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")  # or else: stayed locked for thirty seconds
        outbox.recount()


def test_who_asks_from_another_thread_while_the_outbox_is_closed_is_told_so(db: Path) -> None:
    """A delivery may outlast its daemon's patience; SQLite itself would take the process along."""
    outbox = Outbox(db, default_source="custom")
    is_asking = threading.Event()

    def ask() -> None:
        while True:
            outbox.others("custom:1", "ann@example.com")
            is_asking.set()

    with ThreadPoolExecutor() as threads:
        asked = [threads.submit(ask) for _ in range(4)]
        is_asking.wait()
        outbox.close()
        for each in asked:
            assert isinstance(each.exception(), DatabaseError)
