"""The relay: leases, fences, folding, one delivery at a time for each customer, and bounded rounds."""

import sqlite3
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from random import Random

import pytest

from outboxd import app
from outboxd.admit import admission
from outboxd.brevo.sandbox import Fault
from outboxd.event import Outcome, Result, Verdict
from outboxd.outbox import CHUNK, FOLDED
from outboxd.relay import Relay
from outboxd.sources import DEFAULTS
from tests.conftest import until
from tests.shop import KEY, MakeShop, Shop

LEASE = timedelta(minutes=1)


@contextmanager
def running(relay: Relay) -> Iterator[None]:
    """`relay` drains in a thread until the block ends."""
    stopping = threading.Event()
    thread = threading.Thread(target=relay.run, args=(stopping, timedelta(seconds=10)), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        relay.bell.set()
        thread.join(15)
        assert not thread.is_alive()


@contextmanager
def beside(shop: Shop) -> Iterator[Relay]:
    """Another drainer of the same outbox."""
    with closing(app.outbox(shop.settings)) as outbox:
        courier = app.brevo(shop.settings, KEY)
        with closing(app.relay(shop.settings, courier, outbox, clock=shop.clock)) as relay:
            yield relay


def backlog(shop: Shop, events: int, customers: int, seed: int = 1) -> None:
    """So many updates of so many customers at once, shuffled."""
    numbers = [(number % customers, number) for number in range(events)]
    Random(seed).shuffle(numbers)
    rows = [
        f'{{"id": {customer}, "email": "ann{customer}@example.com", "firstName": "Ann {number}"}}'
        for customer, number in numbers
    ]
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.executemany(
            "INSERT INTO outbox (event, payload) VALUES ('customer_updated', ?)", [(row,) for row in rows]
        )


def test_a_lease_of_a_drainer_that_died_lapses_and_the_event_is_delivered(shop: Shop) -> None:
    event_id = shop.enqueue("created", id=7, email="ann@example.com")
    with closing(app.outbox(shop.settings)) as dead:
        shop.sandbox.stop()
        shop.drain()  # admitted, and tried once in vain
        shop.sandbox.start()
        shop.later(minutes=1)
        [claim] = dead.claim(shop.clock(), limit=8, lease=LEASE)
    assert [event.id for event in claim.events] == [event_id]
    shop.drain()
    assert shop.calls == []
    assert shop.status()["in_flight"] == 1
    shop.later(seconds=61)
    shop.drain()
    assert shop.event(event_id)["status"] == "delivered"
    assert shop.event(event_id)["attempts"] == 3


def test_a_result_that_comes_after_its_lease_was_lost_is_dropped(shop: Shop) -> None:
    event_id = shop.enqueue("created", id=7, email="ann@example.com")
    with closing(app.outbox(shop.settings)) as slow:
        shop.sandbox.stop()
        shop.drain()
        shop.sandbox.start()
        shop.later(minutes=1)
        [claim] = slow.claim(shop.clock(), limit=8, lease=LEASE)
        shop.later(seconds=61)
        shop.drain()
        before = shop.event(event_id), shop.status()["delivered"], shop.rows("SELECT * FROM contacts")
        refused = Outcome(Verdict.REFUSED, call="POST /contacts", detail="too late")
        late = Result(claim, {event_id: refused}, claim.contact)
        assert slow.record([late], shop.clock()) == []
    assert (shop.event(event_id), shop.status()["delivered"], shop.rows("SELECT * FROM contacts")) == before


def test_two_drainers_never_hold_the_same_customer(shop: Shop) -> None:
    customers = CHUNK // 2 - 1
    backlog(shop, 2 * customers, customers)
    with beside(shop) as other:
        other.step()  # admits all of them, and leases what it has workers for
        with closing(app.outbox(shop.settings)) as outbox:
            claimed = outbox.claim(shop.clock(), limit=100, lease=LEASE)
        keys = [claim.contact.customer_key for claim in claimed]
        assert len(keys) == len(set(keys)) == customers - shop.settings.brevo.workers
        other.drain()
        assert shop.status()["delivered"] == 2 * shop.settings.brevo.workers


def test_a_backlog_is_folded_into_few_calls(shop: Shop) -> None:
    backlog(shop, 400, 20)
    shop.drain()
    assert shop.status()["delivered"] == 400
    assert 20 <= len(shop.calls) <= 60, "it is folded as far as it is taken in"


def test_calls_for_one_customer_never_overlap(make_shop: MakeShop) -> None:
    """Many workers, a slow Brevo, two drainers at once, and events that come while others are under way."""
    shop = make_shop({"latency": timedelta(milliseconds=15)}, brevo={"workers": 12})
    with beside(shop) as other, running(shop.relay), running(other):
        for seed in range(8):
            backlog(shop, 40, 10, seed)
            enough = (seed + 1) * 40
            until(lambda enough=enough: shop.status()["delivered"] >= enough - 30)  # type: ignore[misc]
        until(lambda: shop.status()["delivered"] == 320)
    assert shop.sandbox.stats["largest_overlap"] == 1
    assert 10 <= len(shop.calls) < 320
    assert len(shop.sandbox.contacts) == 10


def test_a_stop_finishes_what_is_in_flight_and_begins_nothing_more(make_shop: MakeShop) -> None:
    shop = make_shop({"latency": timedelta(milliseconds=300)}, brevo={"workers": 4})
    backlog(shop, 40, 40)
    with running(shop.relay):
        until(lambda: shop.sandbox.stats["under_way"] == 4)
    called = len(shop.calls)
    assert called < 20
    assert shop.status()["delivered"] == called == len(shop.sandbox.contacts)
    assert shop.status()["in_flight"] == 0
    assert shop.rows("SELECT count(*) FROM outbox WHERE claimed_at IS NOT NULL") == [(0,)]


WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1])
connection.execute("INSERT INTO outbox (event, payload) VALUES ('customer_created', ?)", (sys.argv[2],))
connection.commit()
print(time.monotonic())
"""


def test_what_was_claimed_ahead_of_the_workers_goes_back_untried_when_the_lane_stops(
    make_shop: MakeShop,
) -> None:
    shop = make_shop({"latency": timedelta(milliseconds=10)}, brevo={"workers": 2})
    shop.fill("created", ({"id": number, "email": f"ann{number}@example.com"} for number in range(600)))
    revoked = Fault(status=401, path="/contacts")
    with running(shop.relay):
        until(lambda: shop.status()["delivered"] >= 150)
        shop.sandbox.faults.add(revoked)
        until(lambda: shop.relay.lane.state == "blocked")
        until(lambda: shop.status()["in_flight"] <= 1)  # a probe
    with closing(sqlite3.connect(shop.path)) as connection:
        [(spent,)] = connection.execute("SELECT sum(attempts) FROM outbox WHERE status = 'pending'")
    assert spent == 0
    assert shop.sandbox.stats["by_status"]["401"] <= 4  # what was under way, and a probe or two
    shop.sandbox.faults.clear()
    shop.reopen().later(minutes=5)
    shop.settle()
    assert shop.status()["dead"] == 0
    created = [call.path for call in shop.calls if call.status == 201]
    assert len(created) == 600


def test_a_commit_by_another_process_wakes_the_relay_at_once(shop: Shop) -> None:
    """Nothing tells the relay but the file itself; its own round is five seconds."""
    waits = []
    with running(shop.relay):
        for number in range(3):
            payload = f'{{"id": {number}, "email": "ann{number}@example.com"}}'
            wrote = subprocess.run(
                [sys.executable, "-c", WRITER, str(shop.path), payload],
                capture_output=True,
                text=True,
                check=True,
            )
            until(lambda number=number: len(shop.calls) > number)  # type: ignore[misc]
            waits.append(shop.calls[-1].started_at - float(wrote.stdout))
    assert min(waits) < 0.15, waits
    assert max(waits) < 1.5, waits


def test_a_round_takes_in_and_leases_a_bounded_number_of_events_however_many_wait(shop: Shop) -> None:
    backlog(shop, 3000, 3)
    shop.relay.step()
    [(admitted,)] = shop.rows("SELECT count(*) FROM outbox WHERE customer_key IS NOT NULL")
    assert admitted == CHUNK
    shop.relay.drain()
    most = shop.rows("SELECT max(n) FROM (SELECT count(*) AS n FROM attempts GROUP BY started_at)")
    assert most[0][0] <= 2 * FOLDED
    assert shop.status()["delivered"] == 3000


@pytest.mark.parametrize(("events", "customers", "is_whole"), [(1200, 1200, False), (3000, 300, True)])
def test_a_backlog_is_taken_in_as_a_whole_only_where_customers_recur_in_it(
    shop: Shop, events: int, customers: int, is_whole: bool
) -> None:
    """What recurs is folded into one call, so that it pays to wait; strangers would wait for nothing."""
    backlog(shop, events, customers)
    while not shop.relay.is_busy:
        shop.relay.step()
    [(fresh,)] = shop.rows("SELECT count(*) FROM outbox WHERE customer_key IS NULL AND status = 'pending'")
    assert (fresh == 0) is is_whole
    shop.relay.drain()
    assert len(shop.calls) == customers


def test_a_claim_leaves_a_customer_whose_events_do_not_fit_for_the_next_one(shop: Shop) -> None:
    """A part of them would be a call of its own."""
    backlog(shop, 90, 3)
    with closing(app.outbox(shop.settings)) as outbox:
        while events := outbox.fresh():
            outbox.admit([admission(event, DEFAULTS) for event in events], shop.clock())
        claims = [outbox.claim(shop.clock(), limit=9, lease=LEASE) for _ in range(4)]
    assert [[len(claim.events) for claim in each] for each in claims] == [[30], [30], [30], []]


def test_memory_does_not_grow_with_the_backlog(make_shop: MakeShop) -> None:
    peaks = []
    for events in (1_000, 20_000):
        shop = make_shop()
        backlog(shop, events, events // 2)
        shop.relay.step()
        tracemalloc.start()
        for _ in range(6):
            shop.relay.step()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 4 * peaks[0], "twenty times the backlog, and no more memory than chance asks for"
